#!/bin/bash
# Made by `tenon boot-args --apply`; `tenon boot-args --remove` takes it away.
check() {
    return 255
}

depends() {
    return 0
}

install() {
    inst_hook pre-udev 10 "$moddir/tenon-vfio.sh"
}
