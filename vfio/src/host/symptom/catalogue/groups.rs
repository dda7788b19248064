//! IOMMU groups and who holds their members.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "group-not-viable",
        title: "part of the IOMMU group is still driven by the host",
        signs: &[
            r"group <GROUP> is not viable",
            r"Please ensure all devices within the iommu_group are bound to their vfio bus driver",
            r"IOMMU group <GROUP> has devices not bound to vfio-pci",
            r"<BDF> .*shares IOMMU group <GROUP> with functions that were not named",
        ],
        context: None,
        cause: "All functions of a group reach the same memory, so they are given away together. Root ports and switches may \
                stay on pcieport.",
        remedy: "`tenon devices --group {group}` lists who is in it; `tenon bind {bdf}` takes the whole of it.",
        source: "QEMU hw/vfio/container.c; github.com/ryanprescott/realtek-verb-tools/issues/9",
    },
    Symptom {
        id: "group-busy",
        title: "another virtual machine holds the group",
        signs: &[
            r"(failed to open|could not open|cannot open) '?/dev/vfio/<GROUP>'?:? .*Device or resource busy",
            r"IOMMU group <GROUP> \(.*\) is in use by another process",
            r"PCI device <BDF> is in use by driver \S+, domain",
        ],
        context: None,
        cause: "A group is opened by one process at a time. A virtual machine that hangs in its end holds it as well.",
        remedy: "Stop the other virtual machine; `fuser -v /dev/vfio/{group}` names its process.",
        source: "github.com/VoltCyclone/PCILeechFWGenerator/issues/79; libvirt src/hypervisor/virhostdev.c",
    },
    Symptom {
        id: "not-on-vfio",
        title: "the device was never given to vfio-pci",
        signs: &[
            r"(failed to open|could not open|cannot open) '?/dev/vfio/<GROUP>'?:? .*No such file or directory",
            r"/dev/vfio/<GROUP> does not exist",
            r"is not on vfio-pci; bind it",
        ],
        context: None,
        cause: "The group's file under /dev/vfio is there only while one of its functions is on vfio-pci.",
        remedy: "`tenon bind {bdf}` now; `tenon boot-args {bdf}` for every boot.",
        source: "github.com/foxlet/macOS-Simple-KVM/issues/12, issues/497",
    },
    Symptom {
        id: "half-bound-slot",
        title: "a function of the card was left with the host: the host crashes when the guest shuts down",
        signs: &[r"Code:\s+Bad RIP value"],
        context: Some(r"(pci-stub|vfio-pci)\b.*(claimed by stub|resetting|vfio_|enabling device)|\bvfio_pci"),
        cause: "A card is reset as a whole, and its HDMI audio or USB controller with it. If a driver of the host still has \
                that function, it works on registers that are gone.",
        remedy: "Give all functions of the slot away together: `tenon bind {bdf}` takes them; `tenon boot-args {bdf}` prints \
                 the kernel argument that claims them from boot on.",
        source: "Performing IOMMU-based PCI Passthrough of an NVidia GPU with Fedora 22",
    },
    Symptom {
        id: "shared-group",
        title: "the group holds devices that have nothing to do with each other",
        signs: &[],
        context: None,
        cause: "Nothing on the way to them (root port, switch, chipset) says by ACS that it keeps them apart.",
        remedy: "Put the card into a slot that the processor drives itself, turn on `ACS` and `AER` in the firmware setup, or \
                 give the guest all of the group. pcie_acs_override=downstream,multifunction, where the kernel has that patch, \
                 only claims an isolation that is not there.",
        source: "Alex Williamson, IOMMU Groups, inside and out; cr0x.net/en/iommu-groups-gpu-nvme-passthrough",
    },
    Symptom {
        id: "ids-match-twice",
        title: "an ids= argument takes devices that were not meant",
        signs: &[],
        context: None,
        cause: "vfio-pci.ids= and pci-stub.ids= claim every function with that ID: a second card of the same make, or a bridge.",
        remedy: "Take the ID off the argument; `tenon boot-args {bdf}` binds by address where an ID is shared.",
        source: "ArchWiki, PCI passthrough via OVMF: using identical guest and host GPUs",
    },
    Symptom {
        id: "bridge-on-vfio",
        title: "a bridge was offered to vfio-pci, which does not take bridges",
        signs: &[
            r"vfio[-_]pci: probe of <BDF> failed with error -22",
            r"vfio-pci <BDF>: probe with driver vfio-pci failed with error -22",
            r"Failed to bind PCI device '<BDF>' to vfio-pci: No such device",
        ],
        context: None,
        cause: "vfio-pci drives endpoints (header type 0) alone. A bridge in the group stays with the host and does not spoil it.",
        remedy: "Leave {bdf} on pcieport, or without a driver, and bind what is behind it.",
        source: "unix.stackexchange.com/questions/265541",
    },
];
