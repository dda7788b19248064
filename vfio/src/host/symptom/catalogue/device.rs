//! Taking a device from its driver, its interrupts, its virtual functions.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "driver-busy",
        title: "the driver does not let go of the device",
        signs: &[
            r"NVRM: Attempting to remove device <BDF> with non-zero usage count",
            r"INFO: task (tenon|bash|sh|tee|libvirtd|rpc-\S*|virtqemud|nodedev\S*):\d+ blocked for more than \d+ seconds",
        ],
        context: Some(r"NVRM: Attempting to remove device|unbind_store|device_driver_detach"),
        cause: "Something still has it open: a display server, nvidia-persistenced, a CUDA program, a sound server. Once such \
                an unbind waits, ending the program does not always free it.",
        remedy: "Before unbinding {bdf}, stop the display manager and `systemctl stop nvidia-persistenced`, and see who has \
                 /dev/nvidia*, /dev/dri/* and /dev/snd/* open; `tenon bind {bdf}` names them and waits with a time limit. An \
                 unbind that hangs already ends with a reboot alone.",
        source: "github.com/NVIDIA/open-gpu-kernel-modules/issues/1119, issues/1374; github.com/kubevirt/kubevirt/issues/8549",
    },
    Symptom {
        id: "intx-shared",
        title: "the device's legacy interrupt line is shared with another device",
        signs: &[
            r"Failed to set up TRIGGER eventfd signaling for interrupt INTX-0: VFIO_DEVICE_SET_IRQS failure",
            r"genirq: Flags mismatch irq \d+\. \w+ \((vfio-intx[^)]*)\) vs\.",
            r"genirq: Flags mismatch irq \d+\. \w+ \([^)]*\) vs\. \w+ \(vfio-intx",
            r"<BDF>: INTx .*could not be set up",
        ],
        context: None,
        cause: "The device cannot mask INTx by itself (no DisINTx), so it needs the line alone, and a driver of the host has it.",
        remedy: "`grep vfio /proc/interrupts` shows the line; unbind the other device on it, move {bdf} to another slot, or let \
                 the guest use MSI.",
        source: "Linux drivers/vfio/pci/vfio_pci_intrs.c; kernel/irq/manage.c",
    },
    Symptom {
        id: "sriov-enabled",
        title: "a device with virtual functions switched on is not taken",
        signs: &[
            r"(vfio[-_]pci )?<BDF>: Cannot bind to PF with SR-?IOV enabled",
            r"Cannot bind to PF with SR-?IOV enabled",
        ],
        context: None,
        cause: "vfio-pci takes a physical function only while it has no virtual functions.",
        remedy: "Take them away first: `echo 0 > /sys/bus/pci/devices/{bdf}/sriov_numvfs`; or give the guest one of the virtual \
                 functions instead.",
        source: "Linux drivers/vfio/pci/vfio_pci_core.c; github.com/strongtz/i915-sriov-dkms/issues/342",
    },
    Symptom {
        id: "boot-display",
        title: "the GPU is the one that the firmware and the console use",
        signs: &[],
        context: None,
        cause: "The firmware lit the screen through it. Its ROM is then the shadow copy in memory, the boot framebuffer lies in \
                its BARs, and taking it leaves the host without a console.",
        remedy: "Make the other GPU primary in the firmware setup (`Primary Display`, `Init Display First`), or give {bdf} away \
                 knowingly with a romfile and `--yes-this-is-my-display`, with ssh to the host at hand.",
        source: "ArchWiki, PCI passthrough via OVMF: passing the boot GPU",
    },
    Symptom {
        id: "hybrid-graphics",
        title: "a laptop whose panel hangs on the integrated GPU",
        signs: &[],
        context: None,
        cause: "With muxless graphics the discrete GPU has no output of its own: its guest draws, but onto no screen; and it \
                sleeps in D3cold, from where it may not wake for VFIO.",
        remedy: "Plug a screen or a dummy plug into a port that the discrete GPU drives, or show the guest through Looking \
                 Glass; set the graphics mode to hybrid and keep {bdf} out of D3cold: \
                 `echo 0 > /sys/bus/pci/devices/{bdf}/d3cold_allowed`.",
        source: "github.com/jscinoz/optimus-vfio-docs/issues/2; github.com/bryansteiner/gpu-passthrough-tutorial/issues/39",
    },
];
