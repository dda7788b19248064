//! Power-on and reset: what the machine goes back to.

use std::sync::Arc;

use firmware::e820;
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{Bytes, GuestAddress};

use super::address_space::AddressSpace;
use super::board::Chipset;
use super::error::Error;
use super::layout::{DIRECT_ECAM, DIRECT_ECAM_SIZE};
use super::ram::GuestRam;
use super::tables::Description;
use super::vcpus::Vcpus;
use crate::boot::{DirectKernel, E820Entry, EntryState};
use crate::kvm::state::{ChipState, VcpuState};
use crate::kvm::vcpu::Vcpu;

/// The state of a machine at power-on.
#[derive(Debug)]
pub struct PowerOn {
    vm: Arc<VmFd>,
    chips: ChipState,
    vcpus: Vec<VcpuState>,
    direct: Option<(DirectKernel, Description)>,
    ram: GuestRam,
}

impl PowerOn {
    /// Takes the state of a machine that has never run.
    ///
    /// # Errors
    /// What KVM says.
    pub fn new(
        kvm: &Kvm,
        vm: Arc<VmFd>,
        vcpus: &[Vcpu],
        direct: Option<(DirectKernel, Description)>,
        ram: GuestRam,
    ) -> Result<Self, Error> {
        let chips = ChipState::save(&vm)?;
        let vcpus = vcpus
            .iter()
            .map(|vcpu| VcpuState::save(kvm, vcpu.fd()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            vm,
            chips,
            vcpus,
            direct,
            ram,
        })
    }

    /// Lays the machine out for the first time and, without firmware, does the firmware's and the boot loader's work.
    ///
    /// # Errors
    /// The kernel does not fit, or what KVM says.
    pub fn first(&self, space: &AddressSpace, vcpus: &Vcpus) -> Result<(), Error> {
        space.relayout();
        self.boot_directly(vcpus)
    }

    /// Brings everything back to power-on. All vCPUs are parked.
    ///
    /// # Errors
    /// What KVM says.
    pub fn reset(&self, chipset: &Chipset, space: &AddressSpace, vcpus: &Vcpus) -> Result<(), Error> {
        chipset.reset();
        space.relayout();
        self.chips.restore(&self.vm)?;
        for (vcpu, state) in vcpus.each().zip(&self.vcpus) {
            state.restore(vcpu.fd())?;
        }
        self.boot_directly(vcpus)
    }

    fn boot_directly(&self, vcpus: &Vcpus) -> Result<(), Error> {
        let Some((kernel, description)) = &self.direct else {
            return Ok(());
        };
        let placed = description.build()?.place_for_kernel()?;
        for (address, bytes) in &placed.pieces {
            let written = self.ram.memory.write_slice(bytes, GuestAddress(*address));
            written.map_err(|error| Error::Guest(format!("the ACPI tables do not fit guest RAM: {error}")))?;
        }
        let ecam = firmware::AddressRange::new(DIRECT_ECAM, DIRECT_ECAM_SIZE);
        let map: Vec<_> = e820::for_kernel(&description.ram, Some(ecam))
            .into_iter()
            .map(|entry| E820Entry {
                base: entry.range.base,
                len: entry.range.size,
                kind: entry.kind as u32,
            })
            .collect();
        let entry = kernel.load(&self.ram.memory, &map, placed.rsdp)?;
        self.enter(&entry, vcpus)
    }

    /// Sets up the boot processor; the others wait for it as after any power-on.
    fn enter(&self, entry: &EntryState, vcpus: &Vcpus) -> Result<(), Error> {
        let (Some(vcpu), Some(state)) = (vcpus.each().next(), self.vcpus.first()) else {
            return Ok(());
        };
        let (mut regs, mut sregs) = (state.regs, state.sregs);
        entry.apply(&mut regs, &mut sregs);
        let refused = |what| move |source| Error::KvmCall { what, source };
        vcpu.fd().set_sregs(&sregs).map_err(refused("the kernel's segments"))?;
        vcpu.fd().set_regs(&regs).map_err(refused("the kernel's entry"))
    }
}
