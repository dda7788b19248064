//! Power states and resets, which devices do not survive.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "off-the-bus",
        title: "the device does not answer any more",
        signs: &[
            r"Unknown PCI header type '127' for device '<BDF>'",
            r"Unknown PCI header type '?(127|0x7f)'?",
            r"!!! Unknown header type 7f",
            r"NVRM: GPU (at PCI:|<BDF>).*has fallen off the bus",
            r"GPU has fallen off the bus",
        ],
        context: None,
        cause: "All of its registers read ff: it lost power (D3cold), did not come back from a reset, or was killed while busy.",
        remedy: "`echo 1 > /sys/bus/pci/devices/{bdf}/remove` and `echo 1 > /sys/bus/pci/rescan`; if that does not bring it \
                 back, turn the machine off. To prevent it: vfio-pci.disable_idle_d3=1, and shut guests down cleanly.",
        source: "github.com/QubesOS/qubes-issues/issues/10885; github.com/bryansteiner/gpu-passthrough-tutorial/issues/39",
    },
    Symptom {
        id: "stuck-in-d3",
        title: "the device does not wake up",
        signs: &[
            r"Unable to power on device, stuck in D3",
            r"<BDF>: (can't change|Unable to change) power state from D3\w* to D0",
            r"vfio-pci <BDF>: refused to change power state",
            r"<BDF>: not ready \d+ms after resume; giving up",
            r"<BDF> cannot be woken and stays in D\d",
        ],
        context: None,
        cause: "It went to sleep while nobody used it, and the platform does not bring it back: usual with the GPUs of laptops \
                and with some AMD boards.",
        remedy: "Keep it awake: `tenon boot-args {bdf}` with vfio-pci.disable_idle_d3=1 added, and \
                 `echo 0 > /sys/bus/pci/devices/{bdf}/d3cold_allowed`. If it persists: pcie_aspm=off or pcie_port_pm=off.",
        source: "github.com/kata-containers/kata-containers/issues/11708; github.com/mroboff/vm-curator/pull/63",
    },
    Symptom {
        id: "reset-not-ready",
        title: "the device does not come back from a reset",
        signs: &[
            r"<BDF>: not ready \d+ms after (FLR|bus reset|PM D3->D0|slot reset)[^;]*; (waiting|giving up)",
            r"<BDF>: timed out waiting for pending transaction; performing function level reset anyway",
            r"<BDF>: (function|hot) reset failed: .*; the device keeps its state",
        ],
        context: None,
        cause: "Its function-level reset is broken (some Radeon RX 6000 and 7000, GeForce RTX 50, some NVMe controllers), or it \
                was busy when reset.",
        remedy: "Use another way, if there is one: `cat /sys/bus/pci/devices/{bdf}/reset_method`, then \
                 `echo bus > /sys/bus/pci/devices/{bdf}/reset_method`. Update the firmware of board and card.",
        source: "github.com/gnif/vendor-reset/issues/72; Linux drivers/pci/pci.c",
    },
    Symptom {
        id: "no-reset",
        title: "the device cannot be reset",
        signs: &[
            r"Cannot reset device <BDF>, no available reset mechanism",
            r"<BDF> cannot be reset: it has no function level reset, and its slot and bus cannot be reset",
        ],
        context: None,
        cause: "It has neither FLR nor a power-management reset, and its bus holds others, as onboard audio and USB controllers \
                do. The guest gets it as the last user left it.",
        remedy: "Usually nothing needs to be done. If the guest's driver does not find it well: power the guest off before the \
                 next start, or reboot the host.",
        source: "github.com/gangqizai/igd/issues/17; github.com/ra1nstorm/ra1nstorm-helper/issues/103",
    },
    Symptom {
        id: "reset-dependency",
        title: "a reset would hit a device that the guest does not have",
        signs: &[
            r"Cannot reset device <BDF>, depends on (group <GROUP>|device \S+) which is not owned",
            r"<BDF> cannot be reset: .*a reset of its bus would hit \S+ in IOMMU group <GROUP>",
        ],
        context: None,
        cause: "The reset works on the whole slot or bus, and a function there belongs to another group or to the host.",
        remedy: "Give the guest all functions of the slot: `tenon bind {bdf}` takes them; name each with `--device`.",
        source: "QEMU hw/vfio/pci.c; github.com/rust-vmm/vfio/pull/170",
    },
    Symptom {
        id: "amd-reset-bug",
        title: "an AMD GPU does not start a second time",
        signs: &[
            r"AMD-Vi: Completion-Wait loop timed out",
            r"AMD-Vi: Event logged \[IOTLB_INV_TIMEOUT device=<BDF>",
            r"\[drm:psp_\w+.*PSP load \w+ failed",
            r"<BDF>: AMD_\w+: failed to reset device",
        ],
        context: None,
        cause: "Polaris, Vega and Navi 1x do not come back from a bus reset: their firmware (PSP, SMU) goes on from where it was.",
        remedy: "Install the module vendor-reset and choose it: \
                 `echo device_specific > /sys/bus/pci/devices/{bdf}/reset_method`. Without it only a suspend brings the card \
                 back (`rtcwake -m mem -s 5`); leave amdgpu off it, and do not kill the guest.",
        source: "github.com/gnif/vendor-reset/issues/81, issues/25",
    },
    Symptom {
        id: "fatal-bus-error",
        title: "the link to the device broke",
        signs: &[
            r"pcieport <BDF>: AER: Uncorrected \(Fatal\) error received",
            r"pcieport <BDF>: AER: Uncorrectable \(Fatal\) error",
            r"pcieport <BDF>: DPC: containment event",
        ],
        context: None,
        cause: "A request was never answered: the device below {bdf} hangs, mostly after a reset; or riser, slot or power supply \
                are at fault.",
        remedy: "Turn the machine off and on. If it comes again without a guest: another slot, no riser cable, a lower link \
                 speed in the firmware setup.",
        source: "github.com/gnif/vendor-reset/issues/72; Linux drivers/pci/pcie/aer.c",
    },
    Symptom {
        id: "exit-lockup",
        title: "the host's processor hangs when the guest ends",
        signs: &[r"watchdog: BUG: soft lockup - CPU#\d+ stuck for \d+s!"],
        context: Some(r"vfio_pci|vfio-pci|vfio_df|AMD_\w+: performing (pre-)?reset"),
        cause: "The kernel waits for a reset that the GPU does not answer: seen with GeForce RTX 50 left by a guest in BIOS mode, \
                and with AMD cards under vendor-reset.",
        remedy: "Start the guest by UEFI (OVMF), shut it down from within, and update the card's VBIOS and the guest's driver.",
        source: "github.com/NVIDIA/open-gpu-kernel-modules/issues/853; github.com/gnif/vendor-reset/issues/4",
    },
];
