# Sourced by each case, in /tmp/refusals, after /etc/lab.sh.

GPU=0000:01:00.0 HDMI=0000:01:00.1 HDA=0000:00:1b.0
# The chipset's functions are one group; lpc_ich drives its bridge as an ordinary driver does, which no guest may share with.
LPC=0000:00:1f.0 SATA=0000:00:1f.2 SMBUS=0000:00:1f.3
HERE=/tmp/refusals
GOOD="--memory 128M --disk path=$HERE/disk.img --vars $HERE/VARS.fd --device $GPU --device $HDMI --device $HDA"
# Without devices, disks and firmware.
BARE="--memory 128M --serial none --kernel $HERE/halting.elf"

set_up() {
    chmod 755 halting.elf
    truncate -s 8M disk.img
    dd if=/usr/share/OVMF/OVMF_CODE_4M.fd of=truncated.fd bs=64k count=20 2>/dev/null
    head -c 131072 /usr/share/OVMF/OVMF_VARS_4M.fd >small.fd
    cp /usr/share/OVMF/OVMF_VARS_4M.fd held.fd
    printf 'cpus = 1\nmemroy = "1G"\n' >unknown.toml
    insmod "/sets/new/usr/lib/modules/$(uname -r)/kernel/drivers/mfd/lpc_ich.ko.xz"
    [ "$(driver_of $LPC)" = lpc_ich ] || { echo "lpc_ich does not drive $LPC" >&2; return 1; }
    bind_vfio $GPU $HDMI $HDA $SATA $SMBUS
}

take_down() {
    unbind_vfio $GPU $HDMI $HDA $SATA $SMBUS
    rmmod lpc_ich
    cd / && rm -r $HERE
}

# All that a refused run might have left: drivers, files, locks, pinned pages, open groups and machines, processes.
state() {
    for dev in /sys/bus/pci/devices/*; do
        echo "${dev##*/} driver=$(driver_of "${dev##*/}") override=$(cat "$dev/driver_override") enable=$(cat "$dev/enable")"
    done
    stat -c '%n %a %u' /dev/kvm /dev/vfio/*
    find / -xdev \( -path /proc -o -path /sys -o -path /dev \) -prune -o -type f -print | sort
    find /tmp /run /dev -type f | sort
    md5sum $HERE/*
    cat /proc/mounts /proc/locks
    while read -r key value; do
        case "$key" in
            nr_foll_pin_acquired) acquired=$value ;;
            nr_foll_pin_released) released=$value ;;
        esac
    done </proc/vmstat
    echo "pinned=$((acquired - released))"
    grep -E 'Mlocked|HugePages_Free' /proc/meminfo
    for module in kvm_amd vfio_pci vfio_iommu_type1; do echo "$module users=$(cat /sys/module/$module/refcnt)"; done
    pidof tenon && echo "tenon still runs"
    ls /sys/class/net
    true
}

# rebind BDF DRIVER: gives a function to another driver, or with `none` to no driver.
rebind() {
    dev=/sys/bus/pci/devices/$1
    [ -e "$dev/driver" ] && echo "$1" >"$dev/driver/unbind"
    echo "$2" >"$dev/driver_override"
    [ "$2" = none ] || echo "$1" >/sys/bus/pci/drivers_probe
}

# hold ARG...: a machine that runs, until it is let go.
hold() {
    setsid tenon run "$@" >hold.log 2>&1 </dev/null &
    holder=$!
    tries=0
    until grep -qs vcpu0 /proc/$holder/task/*/comm; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || [ ! -d /proc/$holder ]; then
            echo "the first machine does not run: $(cat hold.log)" >&2
            exit 125
        fi
        usleep 50000
    done
}

let_go() {
    kill -KILL $holder
    wait $holder 2>/dev/null
    rm hold.log
}

# As another user, who has the groups' and KVM's files.
as_nobody() {
    chown nobody /dev/kvm "/dev/vfio/$(group_of $HDA)"
    su nobody -s /bin/sh -c "cd $HERE; $*"
    status=$?
    chown root /dev/kvm "/dev/vfio/$(group_of $HDA)"
    return $status
}
