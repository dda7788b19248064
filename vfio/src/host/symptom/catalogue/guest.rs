//! What shows inside the guest, or ends it.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "nvidia-open-modules",
        title: "the guest's NVIDIA driver is of the wrong kind for this GPU",
        signs: &[
            r"NVRM: .*requires use of the NVIDIA open kernel modules",
            r"NVRM: installed in this system requires use of the",
        ],
        context: None,
        cause: "GeForce RTX 50 (Blackwell) and newer are driven by NVIDIA's open kernel modules alone.",
        remedy: "In the guest install the open variant of the driver (nvidia-open, nvidia-driver-NNN-open).",
        source: "github.com/QubesOS/qubes-issues/issues/10036; NVIDIA open-gpu-kernel-modules",
    },
    Symptom {
        id: "nvidia-init-failed",
        title: "NVIDIA's driver does not get the GPU going",
        signs: &[
            r"NVRM: GPU <BDF>: RmInitAdapter failed",
            r"NVRM: .*rm_init_adapter failed",
        ],
        context: None,
        cause: "The GPU is in a state the driver does not expect: asleep, not reset since its last user, or with a ROM that is \
                not its own.",
        remedy: "See the lines before it for the cause (D3cold, BAR, ROM). Otherwise power the guest off, not reboot, and \
                 start again; give the GPU its own romfile.",
        source: "github.com/bryansteiner/gpu-passthrough-tutorial/issues/39",
    },
    Symptom {
        id: "windows-code-43",
        title: "Windows stops the device: Code 43",
        signs: &[
            r"\(Code 43\)",
            r"CM_PROB_FAILED_POST_START",
            r"ConfigManagerErrorCode\s*[:=]\s*43\b",
        ],
        context: None,
        cause: "The driver gave up: older NVIDIA drivers (before 465) when they see a hypervisor, any driver with a wrong or \
                missing ROM, or a device on a bus that makes no sense to it.",
        remedy: "tenon hides KVM from guests with a GPU (leave hide-kvm on); give the GPU a romfile of its own; update the \
                 driver in the guest.",
        source: "github.com/ipaqmaster/vfio/issues/13; github.com/strongtz/i915-sriov-dkms/issues/262",
    },
    Symptom {
        id: "windows-code-12",
        title: "Windows finds no room for the device: Code 12",
        signs: &[
            r"\(Code 12\)",
            r"CM_PROB_NORMAL_CONFLICT",
            r"cannot find enough free resources that it can use",
            r"ConfigManagerErrorCode\s*[:=]\s*12\b",
        ],
        context: None,
        cause: "The window for large BARs is too small, or above what Windows addresses.",
        remedy: "Leave cpu.phys-bits out, so that tenon makes the window as large as the host reaches; or make the BAR smaller \
                 before binding (resource1_resize), or turn Resizable BAR off in the firmware setup.",
        source: "Microsoft, Error codes in Device Manager in Windows",
    },
    Symptom {
        id: "windows-code-31",
        title: "Windows cannot load the device's driver: Code 31",
        signs: &[
            r"\(Code 31\)",
            r"CM_PROB_FAILED_ADD",
            r"ConfigManagerErrorCode\s*[:=]\s*31\b",
        ],
        context: None,
        cause: "The driver that Windows chose is not for this device: often the generic one, before the vendor's is installed.",
        remedy: "Install the vendor's driver in the guest; for HDMI audio, after that of the GPU.",
        source: "Microsoft, Error codes in Device Manager in Windows",
    },
    Symptom {
        id: "audio-crackle",
        title: "sound crackles or stops",
        signs: &[
            r"snd_hda_intel <BDF>: IRQ timing workaround is activated",
            r"snd_hda_intel <BDF>: (spurious response|No response from codec, disabling MSI)",
        ],
        context: None,
        cause: "The audio function's interrupts come late or are lost, as those of a shared legacy line are.",
        remedy: "Let the guest use MSI for it: in Linux snd_hda_intel.enable_msi=1, in Windows MSISupported=1 under the \
                 device's key in the registry (MSI_util sets it).",
        source: "ArchWiki, PCI passthrough via OVMF: audio; Linux sound/pci/hda/hda_intel.c",
    },
    Symptom {
        id: "kvm-internal-error",
        title: "the virtual machine ran into something that KVM cannot execute",
        signs: &[
            r"KVM internal error\. Suberror: \d+",
            r"KVM: entry failed, hardware error 0x[0-9a-f]+",
            r"error: kvm run failed Bad address",
            r"KVM met .* \(KVM_EXIT_INTERNAL_ERROR",
            r"the processor refused to enter the guest \(hardware reason",
        ],
        context: None,
        cause: "The guest touched a BAR that was switched off under it (memory decoding, a device that went away), or ran into \
                memory without code.",
        remedy: "Look for what happened to the device just before (reset, off the bus). With tenon's own message, report it \
                 with `tenon capture FILE.tar.zst`.",
        source: "QEMU accel/kvm/kvm-all.c; Linux arch/x86/kvm/mmu/mmu.c",
    },
];
