//! The IOMMU: there or not, and what the firmware asks of it.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "no-iommu",
        title: "no IOMMU is active",
        signs: &[
            r"<BDF>: no iommu_group found",
            r"is in no IOMMU group: no IOMMU is active",
            r"No IOMMU detected, please activate it",
            r"host doesn't support passthrough of host PCI devices",
            r"DMAR: No DMAR devices found",
            r"AMD-Vi: AMD IOMMU disabled",
            r"Cannot find any IOMMU|No IOMMU found",
        ],
        context: None,
        cause: "VT-d or AMD-Vi is off in the firmware setup, or, with an Intel processor, the kernel was not told to use it. \
                Without it a device could write anywhere in the host's memory.",
        remedy: "Turn on `VT-d` or `IOMMU` in the firmware setup; with an Intel processor also boot with intel_iommu=on: \
                 `tenon boot-args` prints how on this distribution.",
        source: "QEMU hw/vfio; Linux drivers/iommu; Proxmox VE wiki, PCI(e) Passthrough",
    },
    Symptom {
        id: "no-interrupt-remapping",
        title: "interrupts are not remapped, so VFIO refuses the IOMMU",
        signs: &[
            // tenon's own hints quote the words.
            r"(^|[^`])No interrupt remapping (support|for this platform)",
            r"IOMMU group <GROUP>: cannot .*: Operation not permitted",
            r"Failed to set iommu for container: Operation not permitted",
            r"the IOMMU cannot be used: Operation not permitted",
            r"DMAR-IR: Failed to enable irq remapping",
            r"DMAR-IR: .*IRQ remapping disabled|BIOS requested IRQ remapping be disabled|IRQ remapping was not enabled",
            r"AMD-Vi: Disabling interrupt remapping",
        ],
        context: None,
        cause: "A device could then raise any interrupt of the host by writing to memory. It is off in the firmware setup, \
                broken there (`IOAPIC not in IVRS table`), or turned off by intremap=off.",
        remedy: "Turn on `Interrupt Remapping` or `x2APIC` in the firmware setup, update the firmware, and take intremap=off \
                 or nointremap off the kernel command line. Only for a guest that is trusted: \
                 vfio_iommu_type1.allow_unsafe_interrupts=1.",
        source: "Linux drivers/vfio/vfio_iommu_type1.c; github.com/tiiuae/ghaf/issues/103",
    },
    Symptom {
        id: "rmrr",
        title: "the firmware keeps memory reserved that the device uses behind the system's back",
        signs: &[r"Device is ineligible for IOMMU domain attach due to platform RMRR requirement"],
        context: None,
        cause: "An RMRR of the ACPI DMAR table names the device: often a server's management controller (HP iLO, Dell iDRAC) \
                that talks to it through memory.",
        remedy: "Turn the firmware's option for shared memory with this slot off (on HPE: `HP Shared Memory features` with \
                 conrep), put {bdf} into another slot, or update the firmware.",
        source: "github.com/harvester/harvester/issues/7340; Red Hat, IOMMU and RMRR white paper",
    },
    Symptom {
        id: "direct-mapping",
        title: "the firmware wants a 1:1 mapping for the device, so VFIO refuses it",
        signs: &[
            r"Firmware has requested this device have a 1:1 IOMMU mapping, rejecting",
            r"Failed to set group container: Invalid argument",
            r"IOMMU group <GROUP>: cannot .*: Invalid argument",
        ],
        context: None,
        cause: "An RMRR (Intel) or IVMD (AMD) of the firmware covers the device; since Linux 6.6 such a device is refused. \
                Some boards cover every device by mistake, or because of Pre-boot DMA protection.",
        remedy: "In the firmware setup turn `Pre-boot DMA Protection` off and set `IOMMU` to Enabled instead of Auto; update \
                 the firmware. /sys/kernel/iommu_groups/{group}/reserved_regions must hold no line `direct` afterwards.",
        source: "github.com/AltraMayor/gatekeeper/issues/718; lkml.iu.edu/2603.3/12078.html",
    },
    Symptom {
        id: "iommu-fault",
        title: "the IOMMU blocked a device's access to memory",
        signs: &[
            r"AMD-Vi: Event logged \[(IO_PAGE_FAULT|INVALID_DEVICE_REQUEST|ILLEGAL_DEV_TABLE_ENTRY)( device=<BDF>)?",
            r"DMAR: \[(DMA (Read|Write)|INTR-REMAP)[^\]]*\] Request device \[?<BDF>",
        ],
        context: None,
        cause: "The device used an address it was not given: its driver in the guest is at fault, or it goes on with work from \
                before the guest was reset or killed. A few at the guest's start and stop are harmless.",
        remedy: "If they go on, shut the guest down cleanly instead of killing it, and see that {bdf} has a reset method: \
                 `tenon devices {bdf}`.",
        source: "github.com/patmagauran/i915ovmfPkg/issues/23; github.com/Dasharo/dasharo-issues/issues/1134",
    },
    Symptom {
        id: "iommu-reach",
        title: "an address lies beyond what the IOMMU reaches",
        signs: &[
            r"iommu width \(\d+\) is not sufficient for the mapped address",
            r"(vfio_container_dma_map|vfio_dma_map)\(.*\) = -(22|14) ",
            r"PCI peer-to-peer transactions on BARs are not supported",
            r"IOMMU_IOAS_MAP failed: Bad address, PCI BAR\?",
            r"guest RAM at .* is not wholly within the addresses this IOMMU can map",
        ],
        context: None,
        cause: "A BAR was placed above the IOMMU's width (39 bits on many Intel desktops) or cannot be mapped for other \
                devices. Devices then cannot reach each other; as a warning it does no harm to a single device.",
        remedy: "Give the guest no more address bits than the IOMMU has: tenon does by itself; with cpu.phys-bits set, leave \
                 that out.",
        source: "github.com/MicronSSD/unvme/issues/4; github.com/kata-containers/kata-containers/issues/12861",
    },
];
