//! The bad inputs, what is said of each, and with which status.

use crate::scenarios::cases::{CONFIGURATION, Case, HOST};

pub const CASES: &[Case] = &[
    Case {
        name: "unknown key",
        script: "tenon run unknown.toml",
        status: CONFIGURATION,
        says: &["unknown.toml", "line 2", "`memroy`", "did you mean `memory`?"],
    },
    Case {
        name: "unknown flag",
        script: "tenon run $GOOD --memroy 1G 2>&1 | head -n 1 >&2; exit $(tenon run --memroy 1G >/dev/null 2>&1; echo $?)",
        status: CONFIGURATION,
        says: &["--memroy"],
    },
    Case {
        name: "missing disk",
        script: "tenon run $GOOD --disk path=none.img",
        status: CONFIGURATION,
        says: &["none.img", "No such file", "check that the path is right"],
    },
    Case {
        name: "truncated OVMF",
        script: "tenon run $GOOD --firmware truncated.fd",
        status: CONFIGURATION,
        says: &["truncated.fd is truncated", "1310720 bytes", "reinstall the package"],
    },
    Case {
        name: "VARS of the wrong size",
        script: "tenon run --memory 128M --vars small.fd",
        status: CONFIGURATION,
        says: &["small.fd", "131072 bytes", "540672 bytes", "made for it"],
    },
    Case {
        name: "group not viable",
        script: "tenon run $BARE --device $SATA --device $SMBUS",
        status: HOST,
        says: &["is not viable", "0000:00:1f.0", "driver lpc_ich", "unbind"],
    },
    Case {
        name: "sibling on another driver",
        script: "rebind $HDMI pci-stub; tenon run $GOOD; status=$?; bind_vfio $HDMI; exit $status",
        status: HOST,
        says: &["0000:01:00.1", "driver pci-stub", "tenon bind 0000:01:00.1", "--bind"],
    },
    Case {
        name: "half a group",
        script: "tenon run $BARE --device $GPU",
        status: CONFIGURATION,
        says: &[
            "0000:01:00.0 shares IOMMU group",
            "0000:01:00.1",
            "--device 0000:01:00.1",
        ],
    },
    Case {
        name: "no such function",
        script: "tenon run $BARE --device 0000:05:00.0",
        status: CONFIGURATION,
        says: &["no PCI function 0000:05:00.0", "lspci"],
    },
    Case {
        name: "not on vfio-pci",
        script: "rebind $HDA pci-stub; tenon run $BARE --device $HDA; status=$?; bind_vfio $HDA; exit $status",
        status: HOST,
        says: &[
            "0000:00:1b.0",
            "driver pci-stub",
            "not on vfio-pci",
            "tenon bind 0000:00:1b.0",
        ],
    },
    Case {
        name: "on no driver",
        script: "rebind $HDA none; tenon run $BARE --device $HDA; status=$?; bind_vfio $HDA; exit $status",
        status: HOST,
        says: &["0000:00:1b.0", "no driver", "tenon bind"],
    },
    Case {
        name: "a bridge",
        script: "tenon run $BARE --device 0000:00:01.0",
        status: CONFIGURATION,
        says: &["0000:00:01.0", "is a bridge", "functions behind it"],
    },
    Case {
        name: "memlock too low",
        script: "as_nobody \"ulimit -l 64; tenon run $BARE --device $HDA\"",
        status: HOST,
        says: &["128 MiB", "64 KiB", "RLIMIT_MEMLOCK", "ulimit -l unlimited"],
    },
    Case {
        name: "group's file without permission",
        script: "chown nobody /dev/kvm; su nobody -s /bin/sh -c \"cd $HERE; tenon run $BARE --device $HDA\"; status=$?; \
                 chown root /dev/kvm; exit $status",
        status: HOST,
        says: &["/dev/vfio/", "Permission denied", "udev rule"],
    },
    Case {
        name: "two machines with one device",
        script: "hold $BARE --device $HDA; tenon run $BARE --device $HDA; status=$?; let_go; exit $status",
        status: HOST,
        says: &["0000:00:1b.0", "in use by another process", "stop that one first"],
    },
    Case {
        name: "two machines with one disk",
        script: "hold $BARE --disk path=disk.img; tenon run $BARE --disk path=disk.img; status=$?; let_go; exit $status",
        status: CONFIGURATION,
        says: &["disk.img is in use", "belongs to one machine"],
    },
    Case {
        name: "two machines with one variable store",
        script: "md5sum held.fd >held.sum; hold --memory 128M --serial none --vars held.fd; \
                 tenon run --memory 128M --serial none --vars held.fd; status=$?; let_go; \
                 cp /usr/share/OVMF/OVMF_VARS_4M.fd held.fd; md5sum -c held.sum >/dev/null; rm held.sum; exit $status",
        status: HOST,
        says: &["held.fd", "in use by another virtual machine", "one of its own"],
    },
    Case {
        name: "no /dev/kvm",
        script: "mv /dev/kvm /dev/kvm.away; tenon run $GOOD; status=$?; mv /dev/kvm.away /dev/kvm; exit $status",
        status: HOST,
        says: &["/dev/kvm", "No such file", "modprobe kvm_amd"],
    },
    Case {
        name: "/dev/kvm without permission",
        script: "su nobody -s /bin/sh -c \"cd $HERE; tenon run $BARE\"",
        status: HOST,
        says: &["/dev/kvm", "Permission denied", "`kvm` group"],
    },
];
