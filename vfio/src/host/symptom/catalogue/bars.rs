//! A device's BARs and its ROM.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "bar-taken",
        title: "the boot framebuffer sits in the device's BAR",
        signs: &[
            r"vfio-pci <BDF>: BAR \d+( \[[^\]]*\])?: can't reserve",
            r"<BDF>: BAR \d+.*can't reserve \[mem",
        ],
        context: None,
        cause: "The firmware's framebuffer (BOOTFB, efifb, simpledrm in /proc/iomem) keeps the range of the GPU that the machine \
                booted on. vfio-pci moves it away since Linux 6.0; pci-stub never does.",
        remedy: "Boot with initcall_blacklist=sysfb_init (Linux 5.15 or newer; video=efifb:off before), or make another GPU \
                 primary in the firmware setup. At once: `echo 1 > /sys/bus/pci/devices/{bdf}/remove`, \
                 `echo 1 > /sys/bus/pci/rescan`, and `tenon bind {bdf}` again.",
        source: "github.com/cosminmocan/vfio-single-amdgpu-passthrough/issues/3; Linux d17378062079",
    },
    Symptom {
        id: "bar-unassigned",
        title: "a BAR has no addresses",
        signs: &[
            r"NVRM: BAR\d( \(\w+\))? is 0M @ 0x0",
            r"NVRM: BAR\d/BAR\d is 0M @ 0x0",
            r"<BDF>: BAR \d+:? \[mem size 0x[0-9a-f]+[^\]]*\]: (can't assign; no space|failed to assign)",
            r"<BDF>: BAR \d+: (no space for|failed to assign) \[mem size",
        ],
        context: None,
        cause: "There is no window large enough for it: on the host below 4 GiB, or in the guest.",
        remedy: "On the host turn on `Above 4G Decoding` and turn CSM off in the firmware setup, and try pci=realloc. In a \
                 guest of tenon leave cpu.phys-bits out, or make the BAR smaller before binding \
                 (/sys/bus/pci/devices/{bdf}/resource1_resize).",
        source: "Linux drivers/pci/setup-res.c; github.com/cloud-hypervisor/cloud-hypervisor/issues/6147",
    },
    Symptom {
        id: "bad-rom",
        title: "the device's ROM cannot be read",
        signs: &[
            r"(vfio-pci|pci|pci-stub) <BDF>: Invalid PCI ROM (header signature: expecting 0xaa55|data signature)",
            r"vfio-pci: Cannot read device rom at <BDF>",
            r"vfio-pci <BDF>.*ROM contents invalid",
            r"<BDF>: its ROM cannot be read",
        ],
        context: None,
        cause: "The GPU was used at boot, and its ROM with it (a shadow copy stands in for it); or it sleeps in D3; or it has \
                none at all, as integrated graphics, where this means nothing.",
        remedy: "Give the guest a copy: `--device {bdf},romfile=FILE`, read from /sys/bus/pci/devices/{bdf}/rom while another \
                 GPU was primary. It must begin with 55 aa: cut what stands before that in files of GPU-Z.",
        source: "github.com/gangqizai/igd/issues/24; github.com/awilliam/rom-parser/issues/4",
    },
];
