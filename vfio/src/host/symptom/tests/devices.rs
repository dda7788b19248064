//! Failures of a device: groups, drivers, BARs, power and resets.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // github.com/ryanprescott/realtek-verb-tools/issues/9
    Case {
        id: "group-not-viable",
        log: "\
qemu-system-x86_64: -device vfio-pci,host=0000:00:1f.3: vfio 0000:00:1f.3: group 14 is not viable
Please ensure all devices within the iommu_group are bound to their vfio bus driver.
",
        bdf: Some("0000:00:1f.3"),
        group: Some(14),
        advice: "`tenon devices --group 14` lists who is in it; `tenon bind 0000:00:1f.3`",
    },
    // tenon's own words, and github.com/VoltCyclone/PCILeechFWGenerator/issues/74
    Case {
        id: "group-not-viable",
        log: "\
error: IOMMU group 1 is not viable: its functions 0000:01:00.1 [10de:0fba, driver snd_hda_intel] are driven by the host
Failed to read IOMMU group for 0000:05:00.0: IOMMU group 15 has devices not bound to vfio-pci:
",
        bdf: Some("0000:05:00.0"),
        group: Some(15),
        advice: "`tenon devices --group 15`",
    },
    // github.com/VoltCyclone/PCILeechFWGenerator/issues/79
    Case {
        id: "group-busy",
        log: "qemu-system-x86_64: -device vfio-pci,host=07:00.0: vfio 0000:07:00.0: failed to open /dev/vfio/10: Device or resource busy\n",
        bdf: Some("0000:07:00.0"),
        group: Some(10),
        advice: "fuser -v /dev/vfio/10",
    },
    // github.com/foxlet/macOS-Simple-KVM/issues/12
    Case {
        id: "not-on-vfio",
        log: "qemu-system-x86_64: -device vfio-pci,host=00:02.0,bus=port.1: vfio 0000:00:02.0: failed to open /dev/vfio/1: No such file or directory\n",
        bdf: Some("0000:00:02.0"),
        group: Some(1),
        advice: "`tenon bind 0000:00:02.0` now",
    },
    // The end of the Fedora 22 procedure, where 01:00.1 had been left to the host.
    Case {
        id: "half-bound-slot",
        log: "\
[    0.447986] pci-stub 0000:01:00.0: claimed by stub
[ 5123.001121] Call Trace:
[ 5123.001126]  [<ffffffffa0541c4b>] azx_runtime_suspend+0x3b/0xa0 [snd_hda_intel]
[ 5123.001140] Code:  Bad RIP value.
",
        bdf: None,
        group: None,
        advice: "Give all functions of the slot away together",
    },
    // unix.stackexchange.com/questions/265541
    Case {
        id: "bridge-on-vfio",
        log: "Feb 23 19:46:46 tupac kernel: [  214.105934] vfio-pci: probe of 0000:03:00.0 failed with error -22\n",
        bdf: Some("0000:03:00.0"),
        group: None,
        advice: "Leave 0000:03:00.0 on pcieport",
    },
    // github.com/kubevirt/kubevirt/issues/8549
    Case {
        id: "driver-busy",
        log: "[Fri Sep 30 10:38:28 2022] NVRM: Attempting to remove device 0000:8a:00.0 with non-zero usage count!\n",
        bdf: Some("0000:8a:00.0"),
        group: None,
        advice: "nvidia-persistenced",
    },
    // QEMU hw/vfio/pci.c with Linux kernel/irq/manage.c
    Case {
        id: "intx-shared",
        log: "\
kvm: vfio 0000:04:05.0: Failed to set up TRIGGER eventfd signaling for interrupt INTX-0: VFIO_DEVICE_SET_IRQS failure: Device or resource busy
[ 1200.481] genirq: Flags mismatch irq 16. 00000000 (vfio-intx(0000:04:05.0)) vs. 00000080 (ehci_hcd:usb1)
",
        bdf: Some("0000:04:05.0"),
        group: None,
        advice: "move 0000:04:05.0 to another slot",
    },
    // Linux drivers/vfio/pci/vfio_pci_core.c
    Case {
        id: "sriov-enabled",
        log: "[   65.353451] vfio-pci 0000:00:02.0: Cannot bind to PF with SR-IOV enabled\n",
        bdf: Some("0000:00:02.0"),
        group: None,
        advice: "/sys/bus/pci/devices/0000:00:02.0/sriov_numvfs",
    },
    // github.com/cosminmocan/vfio-single-amdgpu-passthrough/issues/3
    Case {
        id: "bar-taken",
        log: "[   44.702115] vfio-pci 0000:05:00.0: BAR 0: can't reserve [mem 0xd0000000-0xdfffffff 64bit pref]\n",
        bdf: Some("0000:05:00.0"),
        group: None,
        advice: "initcall_blacklist=sysfb_init",
    },
    // The same since Linux 6.10, which writes the range first.
    Case {
        id: "bar-taken",
        log: "[   41.1] vfio-pci 0000:0a:00.0: BAR 1 [mem 0x7800000000-0x7bffffffff 64bit pref]: can't reserve\n",
        bdf: Some("0000:0a:00.0"),
        group: None,
        advice: "echo 1 > /sys/bus/pci/devices/0000:0a:00.0/remove",
    },
    // Linux drivers/pci/setup-res.c, and NVIDIA's driver in a guest
    Case {
        id: "bar-unassigned",
        log: "\
[    0.512] pci 0000:06:00.0: BAR 1: no space for [mem size 0x400000000 64bit pref]
[    0.513] pci 0000:06:00.0: BAR 1: failed to assign [mem size 0x400000000 64bit pref]
[    5.102] NVRM: BAR0 is 0M @ 0x0 (PCI:0000:06:00.0)
",
        bdf: Some("0000:06:00.0"),
        group: None,
        advice: "Above 4G Decoding",
    },
    Case {
        id: "bar-unassigned",
        log: "[    0.713] pci 0000:01:00.0: BAR 1 [mem size 0x200000000 64bit pref]: can't assign; no space\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "/sys/bus/pci/devices/0000:01:00.0/resource1_resize",
    },
    // github.com/strongtz/i915-sriov-dkms/issues/262
    Case {
        id: "bad-rom",
        log: "[24987.194545] vfio-pci 0000:00:02.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0x483f\n",
        bdf: Some("0000:00:02.0"),
        group: None,
        advice: "--device 0000:00:02.0,romfile=FILE",
    },
    // tenon's own words
    Case {
        id: "bad-rom",
        log: " WARN 0000:01:00.0: its ROM cannot be read (it does not begin with 55 AA), so the guest finds none\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "must begin with 55 aa",
    },
    // github.com/bryansteiner/gpu-passthrough-tutorial/issues/39
    Case {
        id: "off-the-bus",
        log: "libvirt.libvirtError: internal error: Unknown PCI header type '127' for device '0000:01:00.0'\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "/sys/bus/pci/devices/0000:01:00.0/remove",
    },
    // The same, later in that thread; github.com/kata-containers/kata-containers/issues/11708
    Case {
        id: "stuck-in-d3",
        log: "\
[   87.412701] nvidia 0000:01:00.0: not ready 65535ms after resume; giving up
[586739.359281] vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible
",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "/sys/bus/pci/devices/0000:01:00.0/d3cold_allowed",
    },
    // github.com/cosminmocan/vfio-single-amdgpu-passthrough/issues/3
    Case {
        id: "stuck-in-d3",
        log: "kvm: vfio: Unable to power on device, stuck in D3\n",
        bdf: None,
        group: None,
        advice: "vfio-pci.disable_idle_d3=1",
    },
    // github.com/gnif/vendor-reset/issues/72
    Case {
        id: "reset-not-ready",
        log: "\
[ 5684.895216] vfio-pci 0000:01:00.0: not ready 1023ms after bus reset; waiting
[ 5751.967000] vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up
",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "/sys/bus/pci/devices/0000:01:00.0/reset_method",
    },
    // github.com/gangqizai/igd/issues/17
    Case {
        id: "no-reset",
        log: "kvm: vfio: Cannot reset device 0000:00:1f.3, no available reset mechanism.\n",
        bdf: Some("0000:00:1f.3"),
        group: None,
        advice: "Usually nothing needs to be done",
    },
    // QEMU hw/vfio/pci.c
    Case {
        id: "reset-dependency",
        log: "qemu-system-x86_64: vfio: Cannot reset device 0000:03:00.0, depends on group 28 which is not owned.\n",
        bdf: Some("0000:03:00.0"),
        group: Some(28),
        advice: "`tenon bind 0000:03:00.0`",
    },
    // tenon's own words
    Case {
        id: "reset-dependency",
        log: " WARN 0000:01:00.0 cannot be reset: it has no function level reset, and a reset of its bus would hit 0000:01:00.1 in IOMMU group 2, which is not assigned\n",
        bdf: Some("0000:01:00.0"),
        group: Some(2),
        advice: "name each with `--device`",
    },
    // github.com/gnif/vendor-reset/issues/81
    Case {
        id: "amd-reset-bug",
        log: "\
Jun 15 11:58:56   kernel: iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:0b:00.0 address=0x100215ba0]
Jun 15 11:58:56   kernel: vfio-pci 0000:0b:00.0: AMD_VEGA10: failed to reset device
Jun 15 11:58:56   kernel: AMD-Vi: Completion-Wait loop timed out
",
        bdf: Some("0000:0b:00.0"),
        group: None,
        advice: "/sys/bus/pci/devices/0000:0b:00.0/reset_method",
    },
    // github.com/gnif/vendor-reset/issues/72
    Case {
        id: "fatal-bus-error",
        log: "[ 5682.626559] pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received: 0000:00:01.0\n",
        bdf: Some("0000:00:01.0"),
        group: None,
        advice: "Turn the machine off and on",
    },
    // github.com/gnif/vendor-reset/issues/4
    Case {
        id: "exit-lockup",
        log: "\
[  424.1] vfio-pci 0000:45:00.0: AMD_VEGA10: performing pre-reset
[  424.659584] watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:2:210]
",
        bdf: None,
        group: None,
        advice: "Start the guest by UEFI",
    },
];
