#!/bin/busybox sh
# The lab guest's whole user space. The kernel argument tenon.do=WORD[=ARG],WORD,... says what to do, in that order;
# answers are lines "@@ key=value" on the first serial port. Forks are dear in a machine emulated by an emulated machine,
# so files are read by the shell itself wherever that will do.
#
#   drivers            the driver of each PCI function
#   lspci              ids, class, interrupt and BARs of each PCI function
#   config             the configuration space of each PCI function, in hexadecimal
#   disks              size and write protection of each disk
#   blk[=vdX]          write, flush and read back the disk vdb (or the one named), or see that it refuses writes
#   cpus mem dmi       processors; memory; the SMBIOS strings Linux shows
#   cpuid              what the processor says of a hypervisor, and the clock sources
#   msr                whether KVM's paravirtual MSRs answer
#   tone[=SECONDS]     1 kHz on each HDA controller in turn, 2 s each by default
#   efivar-write=N:V   set the UEFI variable N; efivar-read=N prints it; efivar-delete=N removes it
#   efivar-loop[=N]    set UEFI variables of N times 64 bytes (3 by default) over and over, until killed
#   reboots=N[:HOW...] reboot (here, before the words that follow) until this is boot N+1, counted in a UEFI variable;
#                      HOW is the way of each reboot in turn, as in /sys/kernel/reboot/type: acpi kbd triple efi pci
#   reboot-by=HOW      which way the word reboot will go
#   display            load the display's own driver
#   console            the kernel's messages about the devices, and a known text, on the screen
#   frame              a known picture on the screen
#   pause=SECONDS      wait; hold waits for a line on the serial port
#   dmesg[=TEXT]       the kernel's log, or its lines with TEXT in them
#   wait-powerbutton   wait for the power button, then power off
#   reboot poweroff hang shell      how to end; poweroff when none is said

export PATH=/bin ALSA_CONFIG_PATH=/etc/alsa.conf LD_LIBRARY_PATH=/lib64
GUID=cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0
VARS=/sys/firmware/efi/efivars
LOADED=" "

say() { echo "@@ $*" >&3; }

# Loads a group of modules, each with the parameters that the command line has for it (modprobe would do that).
load() {
    while read -r module; do
        case "$LOADED" in *" $module "*) continue ;; esac
        LOADED="$LOADED$module "
        params=
        for word in $CMDLINE; do
            case "$word" in "$module".*) params="$params ${word#*.}" ;; esac
        done
        insmod /modules/"$module".ko $params || say "error=module $module did not load"
    done </modules/"$1"
}

# Waits up to about 10 s for a file that a driver makes.
await() {
    tries=0
    while [ ! -e "$1" ]; do
        tries=$((tries + 1))
        [ $tries -gt 200 ] && return 1
        usleep 50000
    done
}

functions() { echo /sys/bus/pci/devices/*; }

drivers() {
    load display
    load sound
    load disk
    for function in $(functions); do
        driver=none
        for bound in /sys/bus/pci/drivers/*/"${function##*/}"; do
            [ -e "$bound" ] && driver=${bound%/*} && driver=${driver##*/}
        done
        say "driver ${function##*/}=$driver"
    done
}

lspci() {
    for function in $(functions); do
        name=${function##*/}
        read -r vendor <"$function/vendor"
        read -r device <"$function/device"
        read -r class <"$function/class"
        read -r revision <"$function/revision"
        read -r irq <"$function/irq"
        say "pci $name=${vendor#0x}:${device#0x} class=${class#0x} rev=${revision#0x} irq=$irq"
        index=0
        while read -r first last flags; do
            [ "$flags" != 0x0000000000000000 ] && say "bar $name/$index=$first-$last flags=$flags"
            index=$((index + 1))
        done <"$function/resource"
    done
}

config() {
    for function in $(functions); do
        say "config ${function##*/}=$(xxd -p -c 4096 "$function/config")"
    done
}

disks() {
    load disk
    for disk in /sys/block/vd*; do
        [ -e "$disk" ] || continue
        read -r sectors <"$disk/size"
        read -r ro <"$disk/ro"
        read -r cache <"$disk/queue/write_cache"
        serial=
        read -r serial <"$disk/serial"
        say "disk ${disk##*/}=sectors=$sectors ro=$ro cache=${cache%% *} serial=$serial"
    done
}

blk() {
    load disk
    disk=${1:-vdb}
    await /dev/"$disk" || { say "blk $disk=missing"; return; }
    read -r ro <"/sys/block/$disk/ro"
    if [ "$ro" = 1 ]; then
        if echo x 2>/dev/null >/dev/"$disk"; then say "blk $disk=ro=1 write=accepted"; else say "blk $disk=ro=1 write=refused"; fi
        return
    fi
    dd if=/dev/urandom of=/tmp/pattern bs=65536 count=16 2>/dev/null
    dd if=/tmp/pattern of=/dev/"$disk" bs=65536 seek=1 conv=fsync 2>/dev/null || { say "blk $disk=ro=0 verify=write-failed"; return; }
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/"$disk" of=/tmp/back bs=65536 skip=1 count=16 2>/dev/null
    if cmp -s /tmp/pattern /tmp/back; then verify=ok; else verify=differs; fi
    set -- $(sha256sum /tmp/pattern)
    say "blk $disk=ro=0 verify=$verify sha256=$1 offset=65536 bytes=1048576"
}

cpus() {
    read -r online </sys/devices/system/cpu/online
    read -r present </sys/devices/system/cpu/present
    count=0
    while read -r key _; do [ "$key" = processor ] && count=$((count + 1)); done </proc/cpuinfo
    say "cpus=$count online=$online present=$present"
}

mem() {
    while read -r key value _; do
        case "$key" in MemTotal:) say "mem=$value kB" ;; esac
    done </proc/meminfo
}

dmi() {
    for key in sys_vendor product_name product_version board_vendor board_name chassis_vendor bios_vendor bios_version; do
        value=
        read -r value 2>/dev/null </sys/class/dmi/id/$key
        say "dmi $key=$value"
    done
}

# Leaf $1 of /dev/cpu/0/cpuid as "eax ebx ecx edx" in hexadecimal. The device's position is the leaf.
leaf() {
    dd if=/dev/cpu/0/cpuid bs=16 count=1 iflag=skip_bytes skip=$(($1)) 2>/dev/null | hexdump -v -e '4/4 "%08x " "\n"'
}

cpuid() {
    load processor
    await /dev/cpu/0/cpuid || say "error=no /dev/cpu/0/cpuid"
    set -- $(leaf 1)
    say "hypervisor-bit=$((0x${3:-0} >> 31 & 1))"
    for number in 0x40000000 0x40000001 0x40000100 0x40000101; do say "cpuid $number=$(leaf $number)"; done
    # Every leaf of the hypervisor range, one after another in one read.
    dd if=/dev/cpu/0/cpuid of=/tmp/leaves bs=16384 count=64 iflag=skip_bytes skip=$((0x40000000)) 2>/dev/null
    set -- $(wc -c </tmp/leaves)
    say "kvm-leaves=$(grep -c KVMKVMKVM /tmp/leaves) scanned=$(($1 / 16))"
    bit=no
    kvm=no
    while read -r line; do
        case "$line" in flags*" hypervisor"*) bit=yes ;; esac
        case "$line" in *KVM* | *kvm*) kvm=yes ;; esac
        case "$line" in "model name"*) model=${line#*: } ;; esac
    done </proc/cpuinfo
    say "cpuinfo=hypervisor=$bit kvm=$kvm model=$model"
    dmesg >/tmp/dmesg
    detected=none
    while read -r line; do
        case "$line" in *"Hypervisor detected: "*) detected=${line##*: } ;; esac
    done </tmp/dmesg
    say "detected=$detected"
    say "dmesg-kvm=$(grep -ciE 'kvm' /tmp/dmesg)"
    clock=/sys/devices/system/clocksource/clocksource0
    read -r current <$clock/current_clocksource
    read -r available <$clock/available_clocksource
    say "clocksource=$current"
    say "clocksources=$available"
    grep -iE 'tsc: |clocksource: .*unstable' /tmp/dmesg | while read -r line; do say "tsc-log=$line"; done
}

msr() {
    load processor
    await /dev/cpu/0/msr || say "error=no /dev/cpu/0/msr"
    # MSR_KVM_WALL_CLOCK_NEW to MSR_KVM_MIGRATION_CONTROL, and the two old clock MSRs.
    for number in 0x11 0x12 0x4b564d00 0x4b564d01 0x4b564d02 0x4b564d03 0x4b564d04; do
        if dd if=/dev/cpu/0/msr of=/tmp/msr bs=8 count=1 iflag=skip_bytes skip=$((number)) 2>/dev/null; then
            say "msr $number=$(hexdump -v -e '1/8 "%016x"' /tmp/msr)"
        else
            say "msr $number=refused"
        fi
    done
}

# The interrupt of the HDA card $1: sets COUNT (over all processors) and KIND.
interrupts() {
    COUNT=0
    KIND=none
    while read -r line; do
        case "$line" in *"snd_hda_intel:card$1"*) ;; *) continue ;; esac
        set -- $line
        shift
        while :; do
            case "$1" in "" | *[!0-9]*) break ;; esac
            COUNT=$((COUNT + $1))
            shift
        done
        case "$1" in *MSI*) KIND=msi ;; *IO-APIC*) KIND=intx ;; *) KIND=$1 ;; esac
        break
    done </proc/interrupts
}

tone() {
    load sound
    await /dev/snd/controlC0 || say "error=no sound card"
    # Codecs are probed behind the scenes: wait for as many cards as there are controllers with a driver.
    for bound in /sys/bus/pci/drivers/snd_hda_intel/*:*; do
        tries=0
        until [ -e "$(echo "$bound"/sound/card*/pcmC*D0p)" ]; do
            tries=$((tries + 1))
            [ $tries -gt 200 ] && break
            usleep 50000
        done
        card=$(echo "$bound"/sound/card*)
        tone_on "${card##*/card}" "${bound##*/}" "${1:-2}"
    done
}

# Plays $3 seconds on the card $1 of the function $2.
tone_on() {
    amixer -q -D hw:"$1" sset Master 100% unmute 2>/tmp/amixer || say "mixer $2=$(tail -n 1 /tmp/amixer)"
    interrupts "$1"
    before=$COUNT
    played=0
    seconds=$3
    while [ "$played" -lt "$seconds" ]; do
        cat /tone.raw
        played=$((played + 1))
    done | aplay -q -D hw:"$1",0 -t raw -f S16_LE -c 2 -r 48000 2>/tmp/aplay
    status=$?
    interrupts "$1"
    say "tone $2=card=$1 kind=$KIND before=$before after=$COUNT status=$status"
    [ $status = 0 ] || while read -r line; do say "tone-log $2=$line"; done </tmp/aplay
}

variables() {
    [ -e /sys/firmware/efi ] || { say "error=no UEFI runtime services"; return 1; }
    load variables
    [ -n "$MOUNTED" ] || mount -t efivarfs efivarfs $VARS && MOUNTED=1
}

# Non-volatile, for boot and run time. One write call, as efivarfs wants it.
efivar_write() {
    variables || return
    if printf '\007\000\000\000%s' "${1#*:}" >"$VARS/${1%%:*}-$GUID"; then say "efivar-write ${1%%:*}=ok"; else say "efivar-write ${1%%:*}=failed"; fi
}

efivar_read() {
    variables || return
    file=$VARS/$1-$GUID
    if [ -e "$file" ]; then say "efivar $1=$(dd if="$file" bs=4096 iflag=skip_bytes skip=4 2>/dev/null)"; else say "efivar $1"; fi
}

efivar_delete() {
    variables || return
    rm "$VARS/$1-$GUID" && say "efivar-delete $1=ok"
}

efivar_loop() {
    variables || return
    filler=$(repeat 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef "${1:-3}")
    number=0
    while printf '\007\000\000\000%s' "$number $filler" >"$VARS/TenonLoop$((number % 4))-$GUID"; do
        say "efivar-loop=$number"
        number=$((number + 1))
    done
    say "error=variable $number could not be written"
}

reboots() {
    variables || return
    file=$VARS/TenonBoots-$GUID
    boots=0
    [ -e "$file" ] && boots=$(dd if="$file" bs=4096 iflag=skip_bytes skip=4 2>/dev/null)
    say "boots=$boots"
    hows=$1:
    [ "$boots" -ge "${hows%%:*}" ] && return
    efivar_write "TenonBoots:$((boots + 1))"
    while [ "$boots" -ge 0 ]; do
        hows=${hows#*:}
        boots=$((boots - 1))
    done
    [ -n "${hows%%:*}" ] && reboot_by "${hows%%:*}"
    end reboot
}

reboot_by() {
    echo "$1" >/sys/kernel/reboot/type || { say "error=this kernel cannot reboot by $1"; return; }
    say "reboot-by=$1"
}

display() {
    load display
    await /dev/fb0 || say "error=no /dev/fb0"
    read -r name </sys/class/graphics/fb0/name
    read -r size </sys/class/graphics/fb0/virtual_size
    say "display=$name size=$size"
}

# Keeps the kernel's messages (they stay in its log) out of a picture.
silence() { dmesg -n 1; }

# What the kernel said of the devices, and a text of our own.
console() {
    silence
    {
        printf '\033[2J\033[H\033[?25l'
        dmesg | grep -E 'efi: EFI|DMI: |PCI: (ECAM|MMCONFIG) |Command line|Detected .* proc|bochs|snd_hda_intel|vda' | cut -c 1-150
        printf '\n  TENON GUEST CONSOLE\n\n'
        printf '  %s\n' "Linux $(uname -r)"
        printf '  The quick brown fox jumps over the lazy dog 0123456789\n'
    } >/dev/tty0
    say console
}

# $1 repeated $2 times.
repeat() {
    out=
    unit=$1
    number=$2
    while [ "$number" -gt 0 ]; do
        [ $((number & 1)) = 1 ] && out=$out$unit
        unit=$unit$unit
        number=$((number >> 1))
    done
    printf '%s' "$out"
}

# Four coloured quarters in a white border of 32 pixels. Pixels are bytes blue, green, red, unused, none of them zero
# (a shell variable cannot hold that).
frame() {
    await /dev/fb0 || { say "error=no /dev/fb0"; return; }
    silence
    printf '\033[2J\033[?25l' >/dev/tty0
    IFS=, read -r width height </sys/class/graphics/fb0/virtual_size
    read -r bits </sys/class/graphics/fb0/bits_per_pixel
    read -r stride </sys/class/graphics/fb0/stride
    [ "$bits" = 32 ] && [ "$stride" = $((width * 4)) ] || say "error=frame buffer of $bits bits, $stride bytes a line"
    white=$(printf '\376\376\376\001')
    red=$(printf '\040\040\340\001')
    green=$(printf '\040\300\040\001')
    blue=$(printf '\340\060\060\001')
    yellow=$(printf '\040\340\340\001')
    half=$((width / 2 - 32))
    # One line each to a file, the picture from these files: large strings are slow in the shell.
    side=$(repeat "$white" 32)
    repeat "$white" "$width" >/tmp/full
    printf '%s' "$side$(repeat "$red" $half)$(repeat "$green" $half)$side" >/tmp/upper
    printf '%s' "$side$(repeat "$blue" $half)$(repeat "$yellow" $half)$side" >/tmp/lower
    edge=$(repeat "/tmp/full " 32)
    rows=$((height / 2 - 32))
    cat $edge $(repeat "/tmp/upper " $rows) $(repeat "/tmp/lower " $rows) $edge >/tmp/frame
    # In one write: after many small ones the driver forgets to show some lines (bochs-drm of Linux 6.12).
    dd if=/tmp/frame of=/dev/fb0 bs=16M 2>/dev/null
    say "frame=${width}x$height"
}

kernel_log() {
    if [ -n "$1" ]; then dmesg | grep -F "$1"; else dmesg; fi >&3
}

wait_powerbutton() {
    load button
    button=
    tries=0
    while [ -z "$button" ] && [ $tries -lt 200 ]; do
        for event in /sys/class/input/event*; do
            name=
            read -r name 2>/dev/null <"$event/device/name"
            [ "$name" = "Power Button" ] && button=/dev/input/${event##*/}
        done
        tries=$((tries + 1))
        [ -n "$button" ] || usleep 50000
    done
    [ -n "$button" ] || { say "error=no power button"; return; }
    say "wait-powerbutton=$button"
    dd if="$button" bs=24 count=1 >/dev/null 2>&1
    say powerbutton
    end poweroff
}

# Never comes back: PID 1 must not end.
end() {
    case "$1" in
        reboot | poweroff) say "$1"; "$1" -f ;;
        hang) say hang ;;
        shell) say shell; setsid cttyhack sh <>/dev/ttyS0 >&0 2>&0; poweroff -f ;;
    esac
    while :; do sleep 3600; done
}

act() {
    argument=
    case "$1" in *=*) argument=${1#*=} ;; esac
    case "${1%%=*}" in
        drivers) drivers ;;
        lspci) lspci ;;
        config) config ;;
        disks) disks ;;
        blk) blk "$argument" ;;
        cpus) cpus ;;
        mem) mem ;;
        dmi) dmi ;;
        cpuid) cpuid ;;
        msr) msr ;;
        tone) tone "$argument" ;;
        efivar-write) efivar_write "$argument" ;;
        efivar-read) efivar_read "$argument" ;;
        efivar-delete) efivar_delete "$argument" ;;
        efivar-loop) efivar_loop "$argument" ;;
        reboots) reboots "$argument" ;;
        reboot-by) reboot_by "$argument" ;;
        display) display ;;
        console) console ;;
        frame) frame ;;
        pause) sleep "$argument" ;;
        hold) say hold; read -r _ </dev/ttyS0 ;;
        dmesg) kernel_log "$argument" ;;
        wait-powerbutton) wait_powerbutton ;;
        reboot | poweroff | hang | shell) end "$1" ;;
        *) say "error=unknown word $1" ;;
    esac
}

mount -t devtmpfs dev /dev
exec 3>/dev/ttyS0 || exec 3>/dev/console
mount -t proc proc /proc
read -r uptime _ </proc/uptime
say "init=$uptime"
read -r release </proc/sys/kernel/osrelease
say "kernel=$release"
mount -t sysfs sys /sys
read -r CMDLINE </proc/cmdline
words=
for word in $CMDLINE; do
    case "$word" in tenon.do=*) words=${word#tenon.do=} ;; esac
done
IFS=,
set -- $words
unset IFS
for word; do act "$word"; done
read -r uptime _ </proc/uptime
say "done=$uptime"
end poweroff
