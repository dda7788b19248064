//! Opening `/dev/kvm` and making a virtual machine, with a refusal that says what the host lacks.

use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, VmFd};
use thiserror::Error;

/// Why the host cannot run a virtual machine.
#[derive(Debug, Error)]
pub enum HostError {
    /// `/dev/kvm` did not open.
    #[error("cannot open /dev/kvm: {hint}")]
    Open {
        /// What to do about it.
        hint: &'static str,
        /// What the kernel said.
        source: kvm_ioctls::Error,
    },
    /// A KVM without something tenon stands on.
    #[error("this kernel's KVM lacks {0}; tenon needs Linux 5.10 or newer with KVM for x86-64")]
    Lacks(&'static str),
    /// An ioctl that sets up the virtual machine failed.
    #[error("KVM refused to {action}")]
    Setup {
        /// What was asked.
        action: &'static str,
        /// What the kernel said.
        source: kvm_ioctls::Error,
    },
}

/// For `map_err`: KVM refused to `action`.
pub(crate) fn refused(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> HostError {
    move |source| HostError::Setup { action, source }
}

/// Opens KVM and checks that it has what the machine needs.
///
/// # Errors
/// No `/dev/kvm`, no permission, or a capability is missing.
pub fn open() -> Result<Kvm, HostError> {
    let kvm = Kvm::new().map_err(|source| HostError::Open {
        hint: open_hint(source.errno()),
        source,
    })?;
    let needed = [
        (Cap::Irqchip, "in-kernel interrupt controllers (KVM_CAP_IRQCHIP)"),
        (Cap::UserMemory, "user memory slots (KVM_CAP_USER_MEMORY)"),
        (Cap::ReadonlyMem, "read-only memory slots (KVM_CAP_READONLY_MEM)"),
        (Cap::Irqfd, "irqfd (KVM_CAP_IRQFD)"),
        (Cap::IrqfdResample, "irqfd with resampling (KVM_CAP_IRQFD_RESAMPLE)"),
        (Cap::Ioeventfd, "ioeventfd (KVM_CAP_IOEVENTFD)"),
        (Cap::ImmediateExit, "immediate exits (KVM_CAP_IMMEDIATE_EXIT)"),
        (Cap::SetTssAddr, "a movable TSS (KVM_CAP_SET_TSS_ADDR)"),
        (
            Cap::SetIdentityMapAddr,
            "a movable identity map (KVM_CAP_SET_IDENTITY_MAP_ADDR)",
        ),
        (Cap::Pit2, "an in-kernel timer (KVM_CAP_PIT2)"),
    ];
    for (cap, name) in needed {
        if !kvm.check_extension(cap) {
            return Err(HostError::Lacks(name));
        }
    }
    Ok(kvm)
}

fn open_hint(errno: i32) -> &'static str {
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => {
            "KVM is not there: enable virtualisation (VT-x or SVM) in the firmware setup, then `modprobe kvm_intel` or `modprobe kvm_amd`"
        }
        libc::EACCES | libc::EPERM => "no permission: add the user to the `kvm` group, or run as root",
        _ => "see the cause",
    }
}

/// Makes a virtual machine with in-kernel PIC, IOAPIC, LAPIC and PIT.
///
/// KVM's own TSS and identity map go to `tss` and `identity_map`: their default places lie inside OVMF's flash.
///
/// # Errors
/// What KVM says, with what was asked of it.
pub fn create_vm(kvm: &Kvm, identity_map: u64, tss: u64) -> Result<Arc<VmFd>, HostError> {
    let vm = kvm.create_vm().map_err(refused("create a virtual machine"))?;
    // Both must come before the first vCPU, which is what allocates the pages.
    vm.set_identity_map_address(identity_map)
        .map_err(refused("place its identity map"))?;
    vm.set_tss_address(usize::try_from(tss).unwrap_or(usize::MAX))
        .map_err(refused("place its TSS"))?;
    vm.create_irq_chip()
        .map_err(refused("create the interrupt controllers"))?;
    // The dummy speaker answers port 0x61, which Linux's PIT calibration of the TSC reads.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit).map_err(refused("create the timer"))?;
    Ok(Arc::new(vm))
}
