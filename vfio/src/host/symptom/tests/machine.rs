//! Failures of the machine around the devices: KVM, kernel, IOMMU, memory; and what a guest says.

use super::Case;

pub(super) const CASES: &[Case] = &[
    // Linux arch/x86/kvm, before 6.4 and since
    Case {
        id: "kvm-disabled",
        log: "[    2.214] kvm: disabled by bios\n[    3.1] kvm_amd: SVM disabled (by BIOS) in MSR_VM_CR on CPU 0\n",
        bdf: None,
        group: None,
        advice: "`SVM Mode`",
    },
    Case {
        id: "kvm-disabled",
        log: "[    5.020] kvm_intel: VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL on CPU 2\n",
        bdf: None,
        group: None,
        advice: "Intel Virtualization Technology",
    },
    // github.com/foxlet/vmra1n/issues/12
    Case {
        id: "modules-of-another-kernel",
        log: "modprobe: FATAL: Module vfio-pci not found in directory /lib/modules/5.0.0-36-generic\n",
        bdf: None,
        group: None,
        advice: "Reboot into the installed kernel",
    },
    // tenon's own words
    Case {
        id: "vfio-permission",
        log: "error: cannot open /dev/vfio/14: Permission denied (os error 13); run as root, or let a udev rule\n",
        bdf: None,
        group: Some(14),
        advice: "SUBSYSTEM==\"vfio\"",
    },
    // github.com/NVIDIA/nvtrust/issues/48
    Case {
        id: "lockdown",
        log: "[ 2526.471043] Lockdown: python3: direct PCI access is restricted; see man kernel_lockdown.7\n",
        bdf: None,
        group: None,
        advice: "goes through VFIO",
    },
    // QEMU hw/vfio, and tenon's own words
    Case {
        id: "no-iommu",
        log: "qemu-system-x86_64: -device vfio-pci,host=01:00.0: vfio 0000:01:00.0: no iommu_group found: No such file or directory\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "intel_iommu=on",
    },
    Case {
        id: "no-iommu",
        log: "error: 0000:01:00.0 is in no IOMMU group: no IOMMU is active; turn on VT-d or AMD-Vi\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "`tenon boot-args`",
    },
    // Linux drivers/vfio/vfio_iommu_type1.c and the QEMU of that time
    Case {
        id: "no-interrupt-remapping",
        log: "\
[ 1742.1] vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param \"allow_unsafe_interrupts\" to enable VFIO IOMMU support on this platform
qemu-kvm: -device vfio-pci,host=01:00.0: vfio: failed to set iommu for container: Operation not permitted
",
        bdf: None,
        group: None,
        advice: "`Interrupt Remapping`",
    },
    // A board whose IVRS table is broken; Linux drivers/iommu/amd/init.c
    Case {
        id: "no-interrupt-remapping",
        log: "\
[    0.9] AMD-Vi: [Firmware Bug]: : IOAPIC[9] not in IVRS table
[    0.9] AMD-Vi: Disabling interrupt remapping
",
        bdf: None,
        group: None,
        advice: "allow_unsafe_interrupts=1",
    },
    // tenon's own words
    Case {
        id: "no-interrupt-remapping",
        log: "error: IOMMU group 3: cannot join the container: Operation not permitted (os error 1) (see the kernel log)\n",
        bdf: None,
        group: Some(3),
        advice: "intremap=off",
    },
    // github.com/harvester/harvester/issues/7340
    Case {
        id: "rmrr",
        log: "kernel: vfio-pci 0000:04:00.1: DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR requirement.  Contact your platform vendor.\n",
        bdf: Some("0000:04:00.1"),
        group: None,
        advice: "put 0000:04:00.1 into another slot",
    },
    // github.com/AltraMayor/gatekeeper/issues/718
    Case {
        id: "direct-mapping",
        log: "vfio-pci 0000:0b:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting configuring the device without a 1:1 mapping. Contact your platform vendor.\n",
        bdf: Some("0000:0b:00.0"),
        group: None,
        advice: "`Pre-boot DMA Protection`",
    },
    // github.com/patmagauran/i915ovmfPkg/issues/23
    Case {
        id: "iommu-fault",
        log: "[  184.630630] DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 9c000000 [fault reason 06] PTE Read access is not set\n",
        bdf: Some("0000:00:02.0"),
        group: None,
        advice: "`tenon devices 0000:00:02.0`",
    },
    // github.com/Dasharo/dasharo-issues/issues/1134
    Case {
        id: "iommu-fault",
        log: "[   57.392307] ath10k_pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000d address=0xcfd51ad0 flags=0x0070]\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "0000:01:00.0 has a reset method",
    },
    // github.com/kata-containers/kata-containers/issues/12861
    Case {
        id: "iommu-reach",
        log: "\
qemu-system-x86_64: vfio_container_dma_map(0x5555685b7190, 0xe0e00000000, 0x10000000, 0x714d50000000) = -22 (Invalid argument)
qemu-system-x86_64: 0000:01:00.0: PCI peer-to-peer transactions on BARs are not supported.
",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "cpu.phys-bits",
    },
    // github.com/MicronSSD/unvme/issues/4
    Case {
        id: "iommu-reach",
        log: "[429200.701588] intel_iommu_map: iommu width (39) is not sufficient for the mapped address (8800001000)\n",
        bdf: None,
        group: None,
        advice: "no more address bits than the IOMMU has",
    },
    // github.com/kubevirt/kubevirt/issues/8472
    Case {
        id: "memlock",
        log: "[  +0.001779] vfio_pin_pages_remote: RLIMIT_MEMLOCK (65536) exceeded\n",
        bdf: None,
        group: None,
        advice: "LimitMEMLOCK=infinity",
    },
    // github.com/Silfalion/Iphone_docker_osx_passthrough/issues/3, and the QEMU of today
    Case {
        id: "memlock",
        log: "\
qemu-system-x86_64: VFIO_MAP_DMA failed: Cannot allocate memory
qemu-system-x86_64: vfio_container_dma_map(0x557c3b8b7b20, 0x0, 0xa0000, 0x7f7e4be00000) = -12 (Cannot allocate memory)
",
        bdf: None,
        group: None,
        advice: "1 GiB more",
    },
    // QEMU system/physmem.c; Linux mm/hugetlb.c
    Case {
        id: "hugepages",
        log: "\
qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory
[    0.1] HugeTLB: allocating 16 of page size 1.00 GiB failed.  Only allocated 11 hugepages.
",
        bdf: None,
        group: None,
        advice: "hugepagesz=1G hugepages=N",
    },
    // tenon's own words
    Case {
        id: "dma-entries",
        log: "error: cannot map guest RAM at 0x100000000 (6 GiB) for the devices: No space left on device (os error 28); the limit on mappings is reached\n",
        bdf: None,
        group: None,
        advice: "dma_entry_limit",
    },
    // NVIDIA's driver in a guest with a GeForce RTX 50
    Case {
        id: "nvidia-open-modules",
        log: "\
[    4.2] NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85)
[    4.2] NVRM: installed in this system requires use of the NVIDIA open kernel modules.
",
        bdf: None,
        group: None,
        advice: "nvidia-open",
    },
    // github.com/bryansteiner/gpu-passthrough-tutorial/issues/39
    Case {
        id: "nvidia-init-failed",
        log: "[   87.473074] NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:667)\n",
        bdf: Some("0000:01:00.0"),
        group: None,
        advice: "power the guest off, not reboot",
    },
    // What Windows' Device Manager and `Get-PnpDevice` write
    Case {
        id: "windows-code-43",
        log: "Windows has stopped this device because it has reported problems. (Code 43)\n",
        bdf: None,
        group: None,
        advice: "hide-kvm",
    },
    Case {
        id: "windows-code-12",
        log: "This device cannot find enough free resources that it can use. (Code 12)\n",
        bdf: None,
        group: None,
        advice: "cpu.phys-bits",
    },
    Case {
        id: "windows-code-31",
        log: "ConfigManagerErrorCode : 31\nProblem : CM_PROB_FAILED_ADD\n",
        bdf: None,
        group: None,
        advice: "vendor's driver",
    },
    // A Linux guest with a GPU's HDMI audio; sound/pci/hda/hda_intel.c
    Case {
        id: "audio-crackle",
        log: "snd_hda_intel 0000:01:00.1: IRQ timing workaround is activated for card #1. Suggest a bigger bdl_pos_adj.\n",
        bdf: Some("0000:01:00.1"),
        group: None,
        advice: "snd_hda_intel.enable_msi=1",
    },
    // QEMU accel/kvm/kvm-all.c, and tenon's own words
    Case {
        id: "kvm-internal-error",
        log: "\
KVM internal error. Suberror: 1
error: vCPU 0: KVM met an instruction it cannot emulate (KVM_EXIT_INTERNAL_ERROR, suberror 1, data 0x0 0x0)
",
        bdf: None,
        group: None,
        advice: "tenon capture FILE.tar.zst",
    },
];
