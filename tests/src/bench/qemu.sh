# The rival: QEMU q35 with the same firmware, memory and devices. Sourced in the lab host; `start_qemu` leaves its
# process number in /run/monitor.pid.
# From memory, as tenon is: the shared folder would be charged to QEMU otherwise.
prepare_qemu() {
    [ -x /tmp/qemu/qemu-system-x86_64 ] && return
    set=/sets/new
    lib=$set/usr/lib/x86_64-linux-gnu
    mkdir -p /tmp/qemu/lib /tmp/qemu/share
    cp $set/usr/bin/qemu-system-x86_64 /tmp/qemu/
    "$lib/ld-linux-x86-64.so.2" --library-path "$lib" --list /tmp/qemu/qemu-system-x86_64 |
        awk '$2 == "=>" { print $3 }' | while read -r file; do cp "$file" /tmp/qemu/lib/; done
    cp "$lib/ld-linux-x86-64.so.2" /tmp/qemu/lib/
    cp $set/usr/share/qemu/*.bin /tmp/qemu/share/ 2>/dev/null
    cp $set/usr/share/seabios/bios-256k.bin /tmp/qemu/share/
}

# start_qemu MEMORY_MB VARS SERIAL [ARG]...
start_qemu() {
    memory=$1 vars=$2 serial=$3
    shift 3
    /tmp/qemu/lib/ld-linux-x86-64.so.2 --library-path /tmp/qemu/lib /tmp/qemu/qemu-system-x86_64 -L /tmp/qemu/share \
        -nodefaults -no-user-config -display none -vga none -net none \
        -machine q35,accel=kvm,kernel-irqchip=on -cpu host -smp 1 -m "$memory" \
        -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
        -drive if=pflash,format=raw,unit=1,file="$vars" -serial file:"$serial" \
        -device pcie-root-port,id=rp,bus=pcie.0,addr=02.0,chassis=1,slot=1 \
        -device vfio-pci,host=0000:01:00.0,bus=rp,addr=00.0,multifunction=on \
        -device vfio-pci,host=0000:01:00.1,bus=rp,addr=00.1 \
        -device vfio-pci,host=0000:00:1b.0,bus=pcie.0,addr=1b.0 "$@" >/tmp/qemu.log 2>&1 &
    echo $! > /run/monitor.pid
}
