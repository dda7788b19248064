//! KVM memory slots: which guest-physical ranges the guest reaches without an exit.
#![expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION lends host memory to the guest")]

use std::fmt;
use std::sync::Arc;

use devices::HostMapping;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// A range that is to be reachable without an exit.
#[derive(Clone)]
pub struct Slot {
    /// First guest-physical address, a multiple of 4 KiB.
    pub gpa: u64,
    /// Bytes, a multiple of 4 KiB.
    pub size: u64,
    /// What the guest reaches.
    pub mapping: Arc<HostMapping>,
    /// Where in the mapping the range starts, a multiple of 4 KiB.
    pub offset: u64,
    /// Writes exit.
    pub read_only: bool,
}

impl Slot {
    fn hva(&self) -> u64 {
        self.mapping.address().wrapping_add(self.offset)
    }

    fn same(&self, other: &Slot) -> bool {
        (self.gpa, self.size, self.hva(), self.read_only) == (other.gpa, other.size, other.hva(), other.read_only)
    }

    /// KVM wants whole pages that lie inside the mapping; anything else cannot be a slot.
    fn is_mappable(&self) -> bool {
        let aligned = |value: u64| value.is_multiple_of(4096);
        let end = self.offset.checked_add(self.size);
        self.size > 0
            && aligned(self.gpa)
            && aligned(self.size)
            && aligned(self.hva())
            && self.gpa.checked_add(self.size).is_some()
            && end.is_some_and(|end| end <= self.mapping.len() as u64)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.read_only { "ro" } else { "rw" };
        write!(f, "{:#x}+{:#x} {kind}", self.gpa, self.size)
    }
}

/// The slots of one virtual machine: guest RAM, which stays, and what devices map, which comes and goes.
#[derive(Debug)]
pub struct Slots {
    vm: Arc<VmFd>,
    /// Keeps guest RAM mapped for as long as KVM may reach it.
    _ram: GuestMemoryMmap,
    first_free: u32,
    /// Indexed by slot number minus `first_free`.
    devices: Vec<Option<Slot>>,
}

impl Slots {
    /// Gives the guest its RAM.
    ///
    /// # Errors
    /// What KVM says.
    pub fn with_ram(vm: Arc<VmFd>, ram: &GuestMemoryMmap) -> Result<Self, kvm_ioctls::Error> {
        let mut number = 0;
        for region in ram.iter() {
            let hva = region
                .as_volatile_slice()
                .map_or(0, |slice| slice.ptr_guard_mut().as_ptr() as u64);
            let slot = kvm_userspace_memory_region {
                slot: number,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: hva,
                flags: 0,
            };
            // SAFETY: the region is owned mapped memory, kept alive by `_ram` until after the virtual machine stops using it.
            unsafe { vm.set_user_memory_region(slot)? };
            number += 1;
        }
        Ok(Self {
            vm,
            _ram: ram.clone(),
            first_free: number,
            devices: Vec::new(),
        })
    }

    /// Removes every device slot that is not in `wanted`. Done before anything new is added: a BAR that moves onto another's old place
    /// must find it free.
    pub fn remove_all_but(&mut self, wanted: &[Slot]) {
        for index in 0..self.devices.len() {
            let stale = self
                .devices
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(|slot| !wanted.iter().any(|want| want.same(slot)));
            if stale {
                self.remove(index);
            }
        }
    }

    /// Adds every slot of `wanted` that is not there yet. What KVM refuses is not mapped, and said so: the guest chose the address.
    pub fn add_missing(&mut self, wanted: &[Slot]) {
        for want in wanted {
            if !self.devices.iter().flatten().any(|slot| slot.same(want)) {
                self.add(want);
            }
        }
    }

    fn add(&mut self, slot: &Slot) {
        if !slot.is_mappable() {
            tracing::warn!(?slot, "cannot be a memory slot: left unmapped");
            return;
        }
        let index = self.devices.iter().position(Option::is_none).unwrap_or_else(|| {
            self.devices.push(None);
            self.devices.len() - 1
        });
        let flags = if slot.read_only { KVM_MEM_READONLY } else { 0 };
        match self.set(index, slot.gpa, slot.size, slot.hva(), flags) {
            Ok(()) => {
                tracing::debug!(?slot, "memory slot added");
                if let Some(entry) = self.devices.get_mut(index) {
                    *entry = Some(slot.clone());
                }
            }
            Err(error) => tracing::warn!(?slot, %error, "KVM refused the memory slot: left unmapped"),
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(slot) = self.devices.get_mut(index).and_then(Option::take) else {
            return;
        };
        tracing::debug!(?slot, "memory slot removed");
        // A size of zero deletes the slot (Linux Documentation/virt/kvm/api.rst 4.35).
        if let Err(error) = self.set(index, slot.gpa, 0, slot.hva(), 0) {
            tracing::error!(?slot, %error, "KVM refused to remove a memory slot");
        }
    }

    fn set(&self, index: usize, gpa: u64, size: u64, hva: u64, flags: u32) -> Result<(), kvm_ioctls::Error> {
        let slot = kvm_userspace_memory_region {
            slot: self.first_free + u32::try_from(index).unwrap_or(u32::MAX / 2),
            guest_phys_addr: gpa,
            memory_size: size,
            userspace_addr: hva,
            flags,
        };
        // SAFETY: the range lies in a mapping (`is_mappable`) whose Arc stays in `devices` until the slot is removed.
        unsafe { self.vm.set_user_memory_region(slot) }
    }
}
