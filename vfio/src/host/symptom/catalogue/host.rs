//! KVM, the kernel and its modules, permissions.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "kvm-disabled",
        title: "the firmware keeps the processor's virtualisation switched off",
        signs: &[
            r"kvm(_intel|_amd)?: (support for '\w+' )?disabled by bios",
            r"kvm(_intel|_amd)?: .*(VMX|SVM) (not enabled|disabled)( \(by BIOS\))?( in MSR_\w+)?",
            r"VMX \(outside TXT\) disabled by BIOS",
        ],
        context: None,
        cause: "VT-x or SVM is off in the firmware setup, so the kernel's KVM module does not start.",
        remedy: "Turn on `Intel Virtualization Technology` or `SVM Mode` in the firmware setup, then power off once.",
        source: "Linux arch/x86/kvm/vmx/vmx.c, svm/svm.c",
    },
    Symptom {
        id: "modules-of-another-kernel",
        title: "the running kernel's modules are gone",
        signs: &[
            r"modprobe: FATAL: Module vfio[-_\w]* not found in directory /lib/modules/",
            r"Failed to find module 'vfio(_pci|-pci|_iommu_type1)?'",
        ],
        context: None,
        cause: "The kernel package was updated or removed since the machine booted, and took the running kernel's modules \
                along; or the kernel has no VFIO at all.",
        remedy: "Reboot into the installed kernel. If it stays so, install the distribution's full set of modules \
                 (`linux-modules-extra`, `kernel-modules`).",
        source: "github.com/foxlet/vmra1n/issues/12; kmod",
    },
    Symptom {
        id: "vfio-permission",
        title: "the user may not open the group's file",
        signs: &[
            r"(failed to open|could not open|cannot open) '?/dev/vfio/(<GROUP>|vfio)'?:? .*(Permission denied|Operation not permitted)",
            r"failed to open /dev/vfio/devices/vfio\d+: Permission denied",
        ],
        context: None,
        cause: "Files under /dev/vfio belong to root until a udev rule gives them away.",
        remedy: "Run as root, or install the udev rule SUBSYSTEM==\"vfio\", GROUP=\"kvm\", MODE=\"0660\" and be in the group \
                 kvm (a new login is needed).",
        source: "github.com/intel/gvt-linux/issues/69; Linux Documentation/driver-api/vfio.rst",
    },
    Symptom {
        id: "lockdown",
        title: "Secure Boot's lockdown refuses a tool its way to the device",
        signs: &[
            r"Lockdown: [^:]+: (direct PCI access|/dev/mem[\w,]*|raw io port access|raw MSR access|unsigned module loading) is restricted",
        ],
        context: None,
        cause: "The kernel is locked down, as Secure Boot makes it: setpci, mappings of /sys/.../resourceN, /dev/mem and \
                unsigned modules (vendor-reset, kvmfr) are refused. VFIO itself is not touched.",
        remedy: "Use a tool that goes through VFIO, or sign the module with your own key (mokutil); only where neither is \
                 possible, turn Secure Boot off.",
        source: "github.com/NVIDIA/nvtrust/issues/48; kernel_lockdown(7)",
    },
    Symptom {
        id: "known-bad-kernel",
        title: "a kernel release in which VFIO is broken",
        signs: &[],
        context: None,
        cause: "The release carries a regression: in 6.12.23 and 6.14.2 a device on vfio-pci is not reset on opening and \
                closing.",
        remedy: "Boot another release of the same series: 6.12.24 or 6.14.3, or newer.",
        source: "Linux stable release notes; github.com/NVIDIA/open-gpu-kernel-modules issues of April 2025",
    },
];
