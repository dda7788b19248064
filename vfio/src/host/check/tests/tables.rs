//! What is wrong with a host, and what is to be said of it: status, what was seen, the remedy, the failure.

use super::Status::{Fail, Pass, Unknown, Warn};
use super::{AUDIO, Expected, Function, GPU, IGD, ROOT_PORT, on};

/// A file, its content (of `/proc/cpuinfo` the flags, of the log one line), the requirement that looks at it.
pub(super) const FILES: &[(&str, &str, &str, Expected)] = &[
    (
        "/proc/cpuinfo",
        "fpu",
        "virtualisation",
        (Fail, "no `svm`", "`SVM Mode`", Some("kvm-disabled")),
    ),
    (
        "/proc/cpuinfo",
        "svm hypervisor",
        "nested",
        (Warn, "virtual machine itself", "", None),
    ),
    (
        "/proc/cpuinfo",
        "hypervisor",
        "virtualisation",
        (Fail, "not given SVM", "kvm_amd.nested=1", None),
    ),
    (
        "/tenon/kernel.log",
        "kvm_intel: VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL on CPU 2",
        "virtualisation",
        (Fail, "switched off", "firmware setup", Some("kvm-disabled")),
    ),
    (
        "/proc/sys/kernel/osrelease",
        "6.14.2-arch1-1",
        "kernel",
        (Warn, "not reset", "another kernel", Some("known-bad-kernel")),
    ),
    (
        "/proc/sys/kernel/osrelease",
        "5.4.0-90-generic",
        "kernel",
        (Fail, "5.10 or newer", "update", None),
    ),
    (
        "/sys/kernel/security/lockdown",
        "none [integrity] confidentiality",
        "lockdown",
        (Pass, "vendor-reset", "", Some("lockdown")),
    ),
    (
        "/proc/interrupts",
        " 1: 9 IO-APIC 1-edge i8042\n",
        "interrupt-remapping",
        (Fail, "off", "x2APIC", Some("no-interrupt-remapping")),
    ),
    (
        "/tenon/kernel.log",
        "DMAR-IR: Failed to enable irq remapping. You are vulnerable to irq-injection attacks.",
        "interrupt-remapping",
        (Pass, "by /proc/interrupts", "", None),
    ),
    (
        "/proc/interrupts",
        "",
        "interrupt-remapping",
        (Unknown, "says nothing", "", None),
    ),
    (
        "/proc/cmdline",
        "amd_iommu=on",
        "kernel-arguments",
        (Warn, "means nothing", "take it off", None),
    ),
    (
        "/proc/cmdline",
        "video=efifb:off",
        "kernel-arguments",
        (Warn, "no longer", "sysfb_init", None),
    ),
    (
        "/proc/cmdline",
        "vfio-pci.ids=1002:67df",
        "claims-by-id",
        (Warn, "claims nothing", "take it off", None),
    ),
    (
        "/proc/cmdline",
        "vfio-pci.ids=8086:0151",
        "claims-by-id",
        (
            Warn,
            "claims the bridge 00:01.0",
            "stay with the host",
            Some("ids-match-twice"),
        ),
    ),
    (
        "/proc/cmdline",
        "pcie_acs_override=downstream",
        "acs-override",
        (Warn, "no such patch", "zen", Some("shared-group")),
    ),
    (
        "/tenon/kernel.log",
        "Warning: PCIe ACS overrides enabled; This may allow non-IOMMU protected peer-to-peer DMA",
        "acs-override",
        (Warn, "does not keep apart", "trusted", Some("shared-group")),
    ),
    (
        "/sys/class/iommu/dmar0/intel-iommu/cap",
        "d2008020e60262",
        "iommu-width",
        (Pass, "39 bits", "", Some("iommu-reach")),
    ),
    (
        "/sys/class/dmi/id/chassis_type",
        "10",
        "hybrid-graphics",
        (
            Warn,
            "a laptop with 00:02.0 and",
            "Looking Glass",
            Some("hybrid-graphics"),
        ),
    ),
    (
        "/proc/meminfo",
        "MemAvailable: 9 kB\nHugePages_Free: 8\nHugepagesize: 1048576 kB\n",
        "hugepages",
        (Warn, "8 GiB are reserved", "nr_hugepages", Some("hugepages")),
    ),
    (
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "always madvise [never]",
        "hugepages",
        (Warn, "are off", "madvise", Some("hugepages")),
    ),
    (
        "/tenon/kernel.log",
        "vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up",
        "kernel-log",
        (
            Warn,
            "does not come back",
            "/sys/bus/pci/devices/0000:01:00.0/reset_method",
            Some("reset-not-ready"),
        ),
    ),
];

const STUB: Option<&str> = Some("pci-stub");
const LPC: Function = ("0000:00:1f.0", 0x060100, (0x8086, 0x1e44), Some("lpc_ich"), Some(3));
const HDA: Function = (
    "0000:00:1f.3",
    0x040300,
    (0x8086, 0x1e20),
    Some("snd_hda_intel"),
    Some(3),
);
const TWIN: Function = ("0000:02:00.0", 0x030000, (0x10de, 0x1401), Some("nouveau"), Some(5));
const NVME: Function = ("0000:03:00.0", 0x010802, (0x144d, 0xa808), Some("nvme"), Some(1));
const LEFT: Function = on(AUDIO, Some("snd_hda_intel"));

/// Functions, those asked for, the requirement that looks at them.
pub(super) const FUNCTIONS: &[(&[Function], &[&str], &str, Expected)] = &[
    (
        &[IGD, GPU, LEFT],
        &[],
        "isolation",
        (
            Fail,
            "01:00.1 is left to snd_hda_intel: a guest with it will not start",
            "`tenon bind 01:00.0`",
            Some("half-bound-slot"),
        ),
    ),
    (
        &[on(IGD, STUB), on(GPU, STUB), LEFT],
        &[],
        "isolation",
        (
            Warn,
            "00:02.0 is on pci-stub, but no guest's",
            "tenon release 00:02.0",
            Some("ids-match-twice"),
        ),
    ),
    (
        &[IGD, on(GPU, STUB), on(AUDIO, STUB)],
        &[],
        "devices",
        (Warn, "is on pci-stub", "`tenon bind 01:00.0`", Some("not-on-vfio")),
    ),
    (
        &[IGD, on(GPU, STUB), on(AUDIO, STUB)],
        &["01:00.0"],
        "devices",
        (Fail, "is on pci-stub", "`tenon bind 01:00.0`", Some("not-on-vfio")),
    ),
    (
        &[IGD, GPU, AUDIO],
        &["01:00.0"],
        "devices",
        (
            Fail,
            "must go along: 01:00.1",
            "--device 01:00.1",
            Some("group-not-viable"),
        ),
    ),
    (
        &[IGD, GPU, AUDIO],
        &["0f:00.0"],
        "devices",
        (Fail, "no PCI function 0f:00.0", "`tenon devices`", None),
    ),
    (
        &[ROOT_PORT, GPU],
        &["00:01.0"],
        "devices",
        (Fail, "is a bridge", "what is behind it", Some("bridge-on-vfio")),
    ),
    (
        &[LPC, HDA],
        &["00:1f.3"],
        "devices",
        (
            Fail,
            "bridge 00:1f.0 in the group has driver lpc_ich",
            "lpc_ich",
            Some("group-not-viable"),
        ),
    ),
    (
        &[IGD, TWIN, GPU, AUDIO],
        &[],
        "claims-by-id",
        (
            Warn,
            "01:00.0 and 02:00.0 alike, but 02:00.0 is not claimed",
            "binds by address",
            Some("ids-match-twice"),
        ),
    ),
    (
        &[IGD, GPU, AUDIO, NVME],
        &["01:00.0"],
        "shared-group",
        (Warn, "only together with 03:00.0", "another slot", Some("shared-group")),
    ),
    (
        &[IGD, on(GPU, Some("nouveau")), LEFT],
        &[],
        "devices",
        (
            Pass,
            "01:00.0 and 01:00.1 can be assigned",
            "`tenon bind 01:00.0`",
            None,
        ),
    ),
];

/// BAR 0 of a card whose framebuffer is at its beginning.
const BAR: &str = "0xd0000000 0xdfffffff 0x14220c\n";

/// A file of the GPU that is asked for, its content, the kernel, the requirement that looks at it.
pub(super) const DEVICE: &[(&str, &str, &str, &str, Expected)] = &[
    (
        "power_state",
        "D3cold",
        "6.12.30",
        "power",
        (Warn, "sleeps without power", "d3cold_allowed", Some("stuck-in-d3")),
    ),
    (
        "reset_method",
        "",
        "6.12.30",
        "reset",
        (Warn, "no way to reset", "power the guest off", Some("no-reset")),
    ),
    (
        "boot_vga",
        "1",
        "6.12.30",
        "boot-display",
        (
            Warn,
            "01:00.0: the firmware lit the screen",
            "--device 01:00.0,romfile=FILE",
            Some("boot-display"),
        ),
    ),
    (
        "sriov_numvfs",
        "2",
        "6.12.30",
        "devices",
        (
            Fail,
            "01:00.0: has 2 virtual functions enabled",
            "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs",
            Some("sriov-enabled"),
        ),
    ),
    (
        "resource",
        BAR,
        "5.15.0",
        "boot-framebuffer",
        (Warn, "BOOTFB lies in a BAR", "sysfb_init", Some("bar-taken")),
    ),
    (
        "resource",
        BAR,
        "6.12.30",
        "boot-framebuffer",
        (Pass, "moves it away", "", None),
    ),
    (
        "resource",
        "",
        "6.12.30",
        "boot-framebuffer",
        (Unknown, "root only", "as root", None),
    ),
];
