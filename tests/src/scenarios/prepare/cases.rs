//! What is tried, what is said of it, and with which status.

use crate::scenarios::cases::{CONFIGURATION, Case, DONE, HOST, STOPPED};

pub const CASES: &[Case] = &[
    Case {
        name: "the plan names what comes along and why",
        script: "tenon bind $GPU --dry-run --yes-this-is-my-display",
        status: DONE,
        says: &[
            "0000:01:00.0  bochs-drm",
            "0000:01:00.1  snd_hda_intel",
            "-> vfio-pci",
            "in IOMMU group",
            "goes dark",
        ],
    },
    Case {
        name: "the screen takes a word",
        script: "tenon bind $GPU --yes",
        status: CONFIGURATION,
        says: &["0000:01:00.0", "the only display", "--yes-this-is-my-display"],
    },
    Case {
        name: "without a terminal it takes a yes",
        script: "tenon bind $HDA",
        status: CONFIGURATION,
        says: &["no terminal", "--yes"],
    },
    Case {
        name: "bind and release",
        script: "set -e
                 tenon bind $GPU $HDA $MINE
                 for f in $GPU $HDMI $HDA; do is_on $f vfio-pci; ( : <>/dev/vfio/$(group_of $f) ); done
                 tenon bind $GPU $MINE | grep -q 'Nothing to do'
                 tenon release
                 tenon release $HDMI
                 is_on $GPU bochs-drm && is_on $HDMI snd_hda_intel && is_on $HDA vfio-pci
                 tenon release --all
                 tenon release --all
                 tenon release $GPU",
        status: DONE,
        says: &[
            "0000:00:1b.0  snd_hda_intel -> vfio-pci",
            "`tenon release 0000:01:00.0 0000:00:1b.0` gives them back",
            "0000:01:00.1  vfio-pci -> snd_hda_intel  (taken by tenon bind)",
            "0000:01:00.0  back on bochs-drm",
            "Nothing to give back",
        ],
    },
    Case {
        name: "pci-stub is left for vfio-pci, and goes back to pci-stub",
        script: "set -e
                 bind_vfio $HDMI; unbind_vfio $HDMI
                 echo pci-stub >/sys/bus/pci/devices/$HDMI/driver_override
                 echo $HDMI >/sys/bus/pci/devices/$HDMI/driver/unbind
                 echo $HDMI >/sys/bus/pci/drivers_probe
                 tenon bind $GPU $MINE
                 is_on $HDMI vfio-pci
                 tenon release --all
                 is_on $HDMI pci-stub
                 unbind_vfio $HDMI",
        status: DONE,
        says: &[
            "isolated on pci-stub",
            "0000:01:00.1  pci-stub",
            "0000:01:00.1  back on pci-stub",
        ],
    },
    Case {
        name: "the module is loaded",
        script: "rmmod vfio_pci && tenon bind $HDA --yes && is_on $HDA vfio-pci && tenon release $HDA",
        status: DONE,
        says: &["0000:00:1b.0  back on snd_hda_intel"],
    },
    Case {
        name: "the kernel was upgraded under it",
        script: "rmmod vfio_pci; mv /lib/modules/$(uname -r) /lib/modules/9.9.9; tenon bind $HDA --yes; status=$?
                 mv /lib/modules/9.9.9 /lib/modules/$(uname -r); modprobe vfio_pci; exit $status",
        status: HOST,
        says: &["vfio-pci is not there", "9.9.9", "reboot"],
    },
    Case {
        name: "a mounted NVMe disk",
        script: "mke2fs -q /dev/nvme0n1 >/dev/null; mkdir -p mnt && mount -t ext4 /dev/nvme0n1 mnt || exit 125
                 tenon bind $NVME --yes; status=$?; umount mnt; rmdir mnt; exit $status",
        status: HOST,
        says: &[
            "0000:00:05.0",
            "holds /tmp/prepare/mnt (nvme0n1)",
            "umount /tmp/prepare/mnt",
        ],
    },
    Case {
        name: "a virtio disk with swap on it",
        script: "mkswap /dev/vda >/dev/null && swapon /dev/vda || exit 125
                 tenon bind $DISK --yes; status=$?; swapoff /dev/vda; exit $status",
        status: HOST,
        says: &["0000:00:06.0", "holds swap /dev/vda (vda)", "swapoff /dev/vda"],
    },
    Case {
        name: "a disk that a process writes to",
        script: "sleep 1000 9<>/dev/nvme0n1 & tenon bind $NVME --yes; status=$?; kill $!; exit $status",
        status: HOST,
        says: &[
            "0000:00:05.0",
            "is held by sleep (process",
            "/dev/nvme0n1",
            "end these first",
        ],
    },
    Case {
        name: "an unused disk",
        script: "tenon bind $NVME --yes && is_on $NVME vfio-pci && tenon release $NVME && is_on $NVME nvme
                 status=$?; until [ -b /dev/nvme0n1 ]; do usleep 100000; done; exit $status",
        status: DONE,
        says: &["0000:00:05.0  nvme -> vfio-pci", "0000:00:05.0  back on nvme"],
    },
    Case {
        name: "a driver that waits for whoever has it open",
        script: "sleep 1000 9<>$(sound_of $HDA) & holder=$!
                 tenon bind $HDA --yes --timeout 2; status=$?
                 tenon release $HDA --timeout 1 && exit 124
                 kill $holder; usleep 500000
                 tenon release $HDA && is_on $HDA snd_hda_intel || exit 124
                 exit $status",
        status: HOST,
        says: &[
            "sleep (process",
            "must close it when it is told",
            "snd_hda_intel has not let go of 0000:00:1b.0 within 2 s",
            "it is held by sleep (process",
            "/dev/snd/controlC",
            "1 of 1 functions were not given back",
            "0000:00:1b.0  back on snd_hda_intel",
        ],
    },
    Case {
        name: "what hangs leaves the rest as it was",
        script: "sleep 1000 9<>$(sound_of $HDMI) & holder=$!
                 tenon bind $HDA $GPU $MINE --timeout 1; status=$?
                 is_on $GPU bochs-drm && is_on $HDA snd_hda_intel || exit 124
                 kill $holder; usleep 500000; tenon release --all || exit 124; exit $status",
        status: HOST,
        says: &["has not let go of 0000:01:00.1", "0000:01:00.1  back on snd_hda_intel"],
    },
    Case {
        name: "kill -9 at any moment of bind",
        script: "kill_at_all_moments",
        status: DONE,
        says: &["halfway"],
    },
    Case {
        name: "a journal that is none",
        script: "mkdir -p /run/tenon; echo garbage >$JOURNAL; tenon bind $HDA --yes; status=$?
                 grep -q garbage $JOURNAL || exit 124; rm $JOURNAL; exit $status",
        status: HOST,
        says: &["/run/tenon/taken.json does not hold a journal", "left as it is"],
    },
    Case {
        name: "what a machine has is not given back",
        script:
            "tenon bind $HDA --yes >/dev/null 2>&1; hold $BARE --device $HDA; tenon release --all; status=$?; let_go
                 tenon release --all; exit $status",
        status: HOST,
        says: &[
            "0000:00:1b.0 is in use: tenon (process",
            "/dev/vfio/",
            "0000:00:1b.0  back on snd_hda_intel",
        ],
    },
    Case {
        name: "half a group named for a run",
        script: "tenon run $BARE --device $GPU --bind",
        status: CONFIGURATION,
        says: &["0000:01:00.0 shares IOMMU group", "--device 0000:01:00.1"],
    },
    Case {
        name: "half a group taken by hand",
        script: "bind_vfio $GPU; tenon run $BARE --device $GPU --device $HDMI; status=$?; unbind_vfio $GPU; exit $status",
        status: HOST,
        says: &["0000:01:00.1", "not on vfio-pci", "driver snd_hda_intel"],
    },
    Case {
        name: "a run that cannot start takes nothing",
        script: "tenon run --memory 128M --kernel none.elf --device $HDA --bind",
        status: CONFIGURATION,
        says: &["none.elf"],
    },
    Case {
        name: "a run that is killed",
        script: "hold $BARE --device $HDA --bind; is_on $HDA vfio-pci || exit 124; let_go KILL
                 tenon release; tenon release --all",
        status: DONE,
        says: &[
            "0000:00:1b.0  vfio-pci -> snd_hda_intel  (taken by tenon run, process",
            "back on snd_hda_intel",
        ],
    },
    Case {
        name: "a run after one that was killed gives back for it",
        script: "hold $BARE --device $HDA --bind; let_go KILL; hold $BARE --device $HDA --bind
                 kill -HUP $holder; usleep 300000; let_go HUP; cat hold.log; exit $ended",
        status: STOPPED,
        says: &["0000:00:1b.0  back on snd_hda_intel"],
    },
    Case {
        name: "a run that is stopped by two signals",
        script: "hold $BARE --device $HDA --bind; is_on $HDA vfio-pci || exit 124
                 kill -TERM $holder; usleep 300000; let_go TERM; cat hold.log; exit $ended",
        status: STOPPED,
        says: &[
            "0000:00:1b.0  snd_hda_intel -> vfio-pci",
            "0000:00:1b.0  back on snd_hda_intel",
        ],
    },
    Case {
        name: "what was on vfio-pci before a run stays there",
        script: "bind_vfio $HDA; hold $BARE --device $HDA --bind; kill -TERM $holder; usleep 300000; let_go TERM
                 is_on $HDA vfio-pci || exit 124; unbind_vfio $HDA; exit $ended",
        status: STOPPED,
        says: &[],
    },
];
