#!/bin/sh
# PID 1 of the lab host.
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TERM=linux ENV=/etc/lab.sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in $(cat /etc/modules); do
    modprobe "$module" || echo "init: no $module"
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /out || echo "init: no /out"
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=mmap store /store 2>/dev/null
# The emulated machine's links come up by themselves; only the loopback needs a hand.
ip link set lo up 2>/dev/null
ulimit -l unlimited
echo "init: ready"
lab-agent
echo "init: the agent is gone"
poweroff -f
