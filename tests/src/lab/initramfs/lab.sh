# Shell functions for scripts in the lab host; sourced by every one of them.

# bind_vfio BDF...: hands functions to vfio-pci by driver_override, as a user would by hand.
bind_vfio() {
    for bdf in "$@"; do
        dev=/sys/bus/pci/devices/$bdf
        [ -d "$dev" ] || { echo "bind_vfio: no $bdf" >&2; return 1; }
        echo vfio-pci > "$dev/driver_override"
        [ -e "$dev/driver" ] && echo "$bdf" > "$dev/driver/unbind"
        echo "$bdf" > /sys/bus/pci/drivers_probe
        [ "$(driver_of "$bdf")" = vfio-pci ] || { echo "bind_vfio: $bdf did not bind" >&2; return 1; }
    done
}

# unbind_vfio BDF...: the way back.
unbind_vfio() {
    for bdf in "$@"; do
        dev=/sys/bus/pci/devices/$bdf
        [ -e "$dev/driver" ] && echo "$bdf" > "$dev/driver/unbind"
        echo > "$dev/driver_override"
        echo "$bdf" > /sys/bus/pci/drivers_probe
    done
}

# driver_of BDF: the driver's name, or nothing.
driver_of() {
    driver=$(readlink "/sys/bus/pci/devices/$1/driver") && echo "${driver##*/}"
}

# group_of BDF: the IOMMU group's number.
group_of() {
    group=$(readlink "/sys/bus/pci/devices/$1/iommu_group") && echo "${group##*/}"
}

# members_of GROUP: the functions in it, one a line.
members_of() {
    ls "/sys/kernel/iommu_groups/$1/devices"
}

# from_set SET PROGRAM [ARG]...: runs a program of one of the lab's package sets (new, old) with the set's own libraries.
from_set() {
    root=/sets/$1 program=$2
    shift 2
    lib=$root/usr/lib/x86_64-linux-gnu
    "$lib/ld-linux-x86-64.so.2" --library-path "$lib:$lib/pulseaudio:$lib/systemd" --argv0 "${program##*/}" "$root/$program" "$@"
}

# lspci [ARG]...: the real one, which decodes capabilities; busybox has none.
lspci() {
    from_set new usr/bin/lspci "$@"
}

# pace on|off: an idle lab host skips to its next timer, so that what a guest shows while it waits is gone at once. Paced,
# it does something worthless instead at the lowest priority (1.5 % of a busy processor) and waits take their time.
pace() {
    [ -e /run/pace ] && kill "$(cat /run/pace)" && rm /run/pace
    [ "$1" = on ] || return 0
    setsid nice -n 19 sh -c 'while :; do :; done' </dev/null >/dev/null 2>&1 &
    echo $! > /run/pace
}

# tidy: ends monitors that a scenario left behind.
tidy() {
    pace off
    killall -KILL tenon qemu-system-x86_64 ld-linux-x86-64.so.2 2>/dev/null
    true
}
