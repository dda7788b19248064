//! The power-on state of vCPUs and interrupt controllers, taken once and put back at every reset.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_debugregs, kvm_fpu, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::host::{HostError, refused};

/// IA32_TIME_STAMP_COUNTER runs on through a reset: stopping it would let the vCPUs' counters drift apart as they are restored one by one.
const MSR_TSC: u32 = 0x10;

/// A vCPU as it comes out of power-on (or as the boot code set it up).
#[derive(Debug, Clone)]
pub struct VcpuState {
    /// General registers.
    pub regs: kvm_regs,
    /// Segment and control registers.
    pub sregs: kvm_sregs,
    fpu: kvm_fpu,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp: kvm_mp_state,
    msrs: Vec<kvm_msr_entry>,
}

impl VcpuState {
    /// Takes the state of `vcpu`.
    ///
    /// # Errors
    /// What KVM says.
    pub fn save(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self, HostError> {
        Ok(Self {
            regs: vcpu.get_regs().map_err(refused("read a vCPU's registers"))?,
            sregs: vcpu.get_sregs().map_err(refused("read a vCPU's system registers"))?,
            fpu: vcpu.get_fpu().map_err(refused("read a vCPU's FPU"))?,
            xcrs: vcpu.get_xcrs().unwrap_or_default(),
            debug: vcpu
                .get_debug_regs()
                .map_err(refused("read a vCPU's debug registers"))?,
            lapic: vcpu.get_lapic().map_err(refused("read a vCPU's local APIC"))?,
            events: vcpu.get_vcpu_events().map_err(refused("read a vCPU's events"))?,
            mp: vcpu.get_mp_state().map_err(refused("read a vCPU's run state"))?,
            msrs: readable_msrs(kvm, vcpu)?,
        })
    }

    /// Puts the state back.
    ///
    /// # Errors
    /// What KVM says.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<(), HostError> {
        // The run state first: KVM refuses some of the rest for a vCPU that waits for SIPI. System registers come before the local
        // APIC, whose mode is in the APIC base, and before the MSRs, which depend on EFER; events after all that could raise some.
        vcpu.set_mp_state(self.mp).map_err(refused("set a vCPU's run state"))?;
        vcpu.set_sregs(&self.sregs)
            .map_err(refused("set a vCPU's system registers"))?;
        vcpu.set_fpu(&self.fpu).map_err(refused("set a vCPU's FPU"))?;
        if self.xcrs.nr_xcrs > 0 {
            vcpu.set_xcrs(&self.xcrs).map_err(refused("set a vCPU's XCRs"))?;
        }
        vcpu.set_debug_regs(&self.debug)
            .map_err(refused("set a vCPU's debug registers"))?;
        set_msrs(vcpu, &self.msrs);
        vcpu.set_lapic(&self.lapic)
            .map_err(refused("set a vCPU's local APIC"))?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(refused("set a vCPU's events"))?;
        vcpu.set_regs(&self.regs).map_err(refused("set a vCPU's registers"))?;
        vcpu.set_mp_state(self.mp).map_err(refused("set a vCPU's run state"))
    }
}

/// Every MSR that KVM saves and that this vCPU has.
fn readable_msrs(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, HostError> {
    let list = kvm.get_msr_index_list().map_err(refused("list its MSRs"))?;
    let mut wanted: Vec<u32> = list
        .as_slice()
        .iter()
        .copied()
        .filter(|index| *index != MSR_TSC)
        .collect();
    let mut found = Vec::new();
    while !wanted.is_empty() {
        let entries: Vec<kvm_msr_entry> = wanted
            .iter()
            .map(|index| kvm_msr_entry {
                index: *index,
                ..Default::default()
            })
            .collect();
        let Ok(mut msrs) = Msrs::from_entries(&entries) else {
            break;
        };
        let read = vcpu.get_msrs(&mut msrs).unwrap_or(0);
        found.extend(msrs.as_slice().iter().take(read).copied());
        // KVM stops at the first MSR this vCPU does not have: leave that one out and go on behind it.
        wanted.drain(..(read + 1).min(wanted.len()));
    }
    Ok(found)
}

fn set_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) {
    let mut rest = entries;
    while !rest.is_empty() {
        let Ok(msrs) = Msrs::from_entries(rest) else { return };
        let written = vcpu.set_msrs(&msrs).unwrap_or(0);
        if let Some(refused) = rest.get(written) {
            // Read-only or dependent on a feature the guest does not have: its value cannot have changed.
            tracing::trace!(msr = format_args!("{:#x}", refused.index), "MSR not restored");
        }
        rest = rest.get(written + 1..).unwrap_or_default();
    }
}

/// PIC, IOAPIC and PIT as they come out of power-on.
#[derive(Clone)]
pub struct ChipState {
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

impl std::fmt::Debug for ChipState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChipState")
            .field("chips", &self.chips.len())
            .finish_non_exhaustive()
    }
}

impl ChipState {
    /// Takes the state of the controllers of `vm`.
    ///
    /// # Errors
    /// What KVM says.
    pub fn save(vm: &VmFd) -> Result<Self, HostError> {
        let mut chips = Vec::new();
        for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(refused("read an interrupt controller"))?;
            chips.push(chip);
        }
        Ok(Self {
            chips,
            pit: vm.get_pit2().map_err(refused("read the timer"))?,
        })
    }

    /// Puts the state back.
    ///
    /// # Errors
    /// What KVM says.
    pub fn restore(&self, vm: &VmFd) -> Result<(), HostError> {
        for chip in &self.chips {
            vm.set_irqchip(chip).map_err(refused("set an interrupt controller"))?;
        }
        vm.set_pit2(&self.pit).map_err(refused("set the timer"))
    }
}
