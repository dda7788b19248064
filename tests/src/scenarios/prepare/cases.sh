# Sourced by each case, in /tmp/prepare, after /etc/lab.sh.

GPU=0000:01:00.0 HDMI=0000:01:00.1 HDA=0000:00:1b.0
NVME=0000:00:05.0 DISK=0000:00:06.0
HERE=/tmp/prepare
# The only display of the lab host is the one that a guest is to have.
MINE="--yes --yes-this-is-my-display"
BARE="--memory 128M --serial none --kernel $HERE/halting.elf"
JOURNAL=/run/tenon/taken.json

set_up() {
    chmod 755 halting.elf
    modprobe nvme && modprobe virtio_blk && load snd-hda-codec-generic snd-hda-intel bochs crc32c_generic ext4 || return 1
    tries=0
    until [ -b /dev/nvme0n1 ] && [ -b /dev/vda ] && [ -e "$(sound_of $HDA)" ] && [ -e "$(sound_of $HDMI)" ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { ls /dev /dev/snd >&2; echo "the host's own drivers do not come up" >&2; return 1; }
        usleep 100000
    done
    for pair in $GPU:bochs-drm $HDMI:snd_hda_intel $HDA:snd_hda_intel $NVME:nvme $DISK:virtio-pci; do
        is_on "${pair%:*}" "${pair##*:}" || return 1
    done
}

take_down() {
    rmmod bochs snd_hda_intel ext4 nvme virtio_blk 2>/dev/null
    cd / && rm -r $HERE /run/tenon
}

# load MODULE...: loads modules of the store with what they need, which stands last thing first in modules.dep.
load() {
    dir=/sets/new/usr/lib/modules/$(uname -r)
    for module; do
        line=$(grep "/$module\.ko[.xz]*:" "$dir/modules.dep") || { echo "no module $module" >&2; return 1; }
        for file in $(echo "${line#*:}" | tr ' ' '\n' | tac) "${line%%:*}"; do
            name=${file##*/} name=${name%%.*}
            [ -d "/sys/module/$(echo "$name" | tr - _)" ] || insmod "$dir/$file" || return 1
        done
    done
}

# sound_of BDF: the control file of a sound controller's card.
sound_of() {
    card=$(ls "/sys/bus/pci/devices/$1/sound" 2>/dev/null)
    echo "/dev/snd/controlC${card#card}"
}

# is_on BDF DRIVER: that a function is on that driver.
is_on() {
    now=$(driver_of "$1")
    [ "$now" = "$2" ] || { echo "$1 is on '$now', not on '$2'" >&2; return 1; }
}

# Driver and override of each function, what is taken, and who is at it.
state() {
    for dev in /sys/bus/pci/devices/*; do
        echo "${dev##*/} driver=$(driver_of "${dev##*/}") override=$(cat "$dev/driver_override")"
    done
    ls $JOURNAL 2>/dev/null
    ls /dev/vfio
    pidof tenon && echo "tenon still runs"
    cat /proc/mounts /proc/swaps
    ls /sys/module | grep -x vfio_pci
}

# now: thousandths of seconds since the boot.
now() {
    awk '{ print int($1 * 1000) }' /proc/uptime
}

# hold ARG...: a machine that runs, until it is let go.
hold() {
    setsid tenon run "$@" >hold.log 2>&1 </dev/null &
    holder=$!
    tries=0
    until grep -qs vcpu0 /proc/$holder/task/*/comm; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || [ ! -d /proc/$holder ]; then
            echo "the machine does not run: $(cat hold.log)" >&2
            exit 125
        fi
        usleep 50000
    done
}

# let_go [SIGNAL]: ends it; its status is left in $ended.
let_go() {
    kill -"${1:-KILL}" $holder
    wait $holder 2>/dev/null
    ended=$?
}

# Kills `tenon bind` at moments spread over the time it takes, gives everything back each time, and compares.
kill_at_all_moments() {
    all="$GPU $HDA"
    before=$(state)
    # The first time is longer.
    for try in 1 2; do
        start=$(now)
        tenon bind $all $MINE >/dev/null 2>&1 || return 1
        whole=$(($(now) - start))
        tenon release --all >/dev/null 2>&1 || return 1
    done
    moments=20 journalled=0 halfway=0
    for moment in $(seq 1 $moments); do
        tenon bind $all $MINE >/dev/null 2>&1 &
        usleep $((whole * 1000 * moment / moments))
        kill -KILL $! 2>/dev/null
        wait $! 2>/dev/null
        taken=0 steps=0
        [ -e $JOURNAL ] && taken=$(grep -c '"bdf"' $JOURNAL) && steps=$(grep -c '"step": "taken"' $JOURNAL)
        [ "$taken" -gt 0 ] && journalled=$((journalled + 1))
        [ "$taken" -gt 0 ] && [ "$taken$steps" != 33 ] && halfway=$((halfway + 1))
        tenon release --all >release.log 2>&1 || { cat release.log >&2; return 1; }
        after=$(state)
        [ "$after" = "$before" ] || { echo "killed after $moment/$moments of $whole ms: $after" >&2; return 1; }
    done
    echo "a bind takes $whole ms; of $moments kills $journalled left functions taken, $halfway of them halfway"
    [ $halfway -ge 3 ]
}
