#!/bin/sh
# Made by `tenon boot-args --apply`; `tenon boot-args --remove` takes it away.

claimed=

# claim BDF VENDOR DEVICE
claim() {
    here=/sys/bus/pci/devices/$1
    [ -e "$here/driver_override" ] || return 0
    read -r vendor < "$here/vendor"
    read -r device < "$here/device"
    if [ "$vendor $device" != "$2 $3" ]; then
        echo "tenon-vfio: $1 is now $vendor:$device, not $2:$3: left alone; run tenon boot-args again" > /dev/kmsg
        return 0
    fi
    echo vfio-pci > "$here/driver_override"
    if [ -e "$here/driver" ]; then
        echo "$1" > "$here/driver/unbind"
    fi
    claimed="$claimed $1"
}

claim 0000:0a:00.0 0x1002 0x73bf
claim 0000:0a:00.1 0x1002 0xab28

modprobe vfio-pci

for bdf in $claimed; do
    echo "$bdf" > /sys/bus/pci/drivers_probe
done
