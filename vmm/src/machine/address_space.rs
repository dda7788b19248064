//! The guest's address space: carries out what devices say they decode, as bus tables, KVM memory slots and ioeventfds.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use devices::bus::BusEntry;
use devices::{Backing, IoEvent, Region, Space};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};

use crate::kvm::memory::{Slot, Slots};
use crate::kvm::vcpu::Buses;

/// What one part of the machine decodes now.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Address ranges, in order of precedence: an earlier claim wins over a later one that overlaps it.
    pub regions: Vec<Region>,
    /// Writes that signal in the kernel.
    pub io_events: Vec<IoEvent>,
}

/// Asks a part of the machine what it decodes.
pub type Source = Box<dyn Fn(&mut Decoded) + Send + Sync>;

/// The address space of one virtual machine.
pub struct AddressSpace {
    vm: Arc<VmFd>,
    buses: Arc<Buses>,
    sources: Vec<Source>,
    /// Guest-physical ranges no device may claim: RAM, and what KVM keeps for itself.
    reserved: Vec<(u64, u64)>,
    applied: Mutex<Applied>,
}

#[derive(Debug)]
struct Applied {
    slots: Slots,
    io_events: Vec<IoEvent>,
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace")
            .field("reserved", &self.reserved)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl AddressSpace {
    /// An address space over `slots`, decoded by `sources` in order of precedence. `reserved` are (base, size) ranges of memory that
    /// devices can never claim.
    pub fn new(vm: Arc<VmFd>, slots: Slots, sources: Vec<Source>, reserved: Vec<(u64, u64)>) -> Self {
        let applied = Mutex::new(Applied {
            slots,
            io_events: Vec::new(),
        });
        Self {
            vm,
            buses: Arc::default(),
            sources,
            reserved,
            applied,
        }
    }

    /// The buses that vCPUs dispatch their exits on.
    pub fn buses(&self) -> Arc<Buses> {
        Arc::clone(&self.buses)
    }

    /// Asks every source again and makes the guest see the answer.
    ///
    /// Old slots go first, then the buses change, then new slots come: an access in between exits and finds what is there now,
    /// rather than reaching device memory through an address that has just been given to something else.
    pub fn relayout(&self) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let mut decoded = Decoded::default();
        for source in &self.sources {
            source(&mut decoded);
        }
        let (ports, memory, slots) = self.resolve(decoded.regions);
        applied.slots.remove_all_but(&slots);
        self.buses.ports.replace(ports);
        self.buses.memory.replace(memory);
        applied.slots.add_missing(&slots);
        self.update_io_events(&mut applied.io_events, decoded.io_events);
    }

    /// Splits what is decoded by who answers it, dropping claims on what is taken.
    fn resolve(&self, regions: Vec<Region>) -> (Vec<BusEntry>, Vec<BusEntry>, Vec<Slot>) {
        let mut taken = self.reserved.clone();
        let (mut ports, mut memory, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for region in regions {
            let Region {
                space,
                base,
                size,
                backing,
            } = region;
            if space == Space::Memory && !claim(&mut taken, base, size) {
                tracing::debug!("{base:#x}+{size:#x} is taken: not mapped");
                continue;
            }
            match (space, backing) {
                (Space::Port, Backing::Device { device, offset }) => ports.push(BusEntry {
                    base,
                    size,
                    offset,
                    device,
                }),
                (Space::Memory, Backing::Device { device, offset }) => memory.push(BusEntry {
                    base,
                    size,
                    offset,
                    device,
                }),
                (
                    Space::Memory,
                    Backing::Host {
                        mapping,
                        offset,
                        writes,
                    },
                ) => {
                    slots.push(Slot {
                        gpa: base,
                        size,
                        mapping,
                        offset,
                        read_only: writes.is_some(),
                    });
                    if let Some(device) = writes {
                        memory.push(BusEntry {
                            base,
                            size,
                            offset,
                            device,
                        });
                    }
                }
                (Space::Port, Backing::Host { .. }) => tracing::error!("ports {base:#x}+{size:#x} cannot be memory"),
            }
        }
        (ports, memory, slots)
    }

    fn update_io_events(&self, current: &mut Vec<IoEvent>, wanted: Vec<IoEvent>) {
        let (keep, stale): (Vec<_>, Vec<_>) = current
            .drain(..)
            .partition(|old| wanted.iter().any(|new| same_event(old, new)));
        for event in stale {
            if let Err(error) = self.io_event(&event, false) {
                tracing::debug!(?event, %error, "KVM refused to remove an ioeventfd");
            }
        }
        *current = keep;
        for event in wanted {
            if current.iter().any(|old| same_event(old, &event)) {
                continue;
            }
            match self.io_event(&event, true) {
                Ok(()) => current.push(event),
                // The write then exits to the device, which signals the event itself.
                Err(error) => tracing::debug!(?event, %error, "KVM refused an ioeventfd"),
            }
        }
    }

    fn io_event(&self, event: &IoEvent, register: bool) -> Result<(), kvm_ioctls::Error> {
        let address = match event.space {
            Space::Port => IoEventAddress::Pio(event.address),
            Space::Memory => IoEventAddress::Mmio(event.address),
        };
        macro_rules! with {
            ($value:expr) => {
                if register {
                    self.vm.register_ioevent(&event.event, &address, $value)
                } else {
                    self.vm.unregister_ioevent(&event.event, &address, $value)
                }
            };
        }
        match (event.width, event.value) {
            (1, Some(value)) => with!(value as u8),
            (2, Some(value)) => with!(value as u16),
            (4, Some(value)) => with!(value as u32),
            (8, Some(value)) => with!(value),
            _ => with!(NoDatamatch),
        }
    }
}

/// Takes `base..base+size` unless some of it is taken.
fn claim(taken: &mut Vec<(u64, u64)>, base: u64, size: u64) -> bool {
    let Some(end) = base.checked_add(size) else {
        return false;
    };
    let free = size > 0
        && taken
            .iter()
            .all(|(other, len)| end <= *other || base >= other.saturating_add(*len));
    if free {
        taken.push((base, size));
    }
    free
}

fn same_event(a: &IoEvent, b: &IoEvent) -> bool {
    Arc::ptr_eq(&a.event, &b.event) && (a.space, a.address, a.width, a.value) == (b.space, b.address, b.width, b.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_claim_stands() {
        let mut taken = vec![(0, 0x1000)];
        assert!(claim(&mut taken, 0x1000, 0x1000));
        assert!(!claim(&mut taken, 0x1800, 0x1000));
        assert!(!claim(&mut taken, 0x800, 0x10));
        assert!(claim(&mut taken, 0x2000, 1));
        assert!(!claim(&mut taken, u64::MAX, 2), "a range that wraps");
        assert!(!claim(&mut taken, 0x3000, 0));
    }
}
