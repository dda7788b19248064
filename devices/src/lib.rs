//! Everything emulated: the bus that dispatches guest accesses, PCI, the Q35 chipset, flash, fw_cfg and virtio.
//!
//! A device here answers accesses and returns what it wants done as an [`Effect`]; it never touches the memory map, KVM or another
//! device. Nothing in this crate knows KVM or VFIO, so all of it is tested without either.

// The guest reaches most of this crate: nothing in it may panic, whatever the guest does.
#![warn(clippy::indexing_slicing, clippy::panic)]

pub mod bus;
pub mod chipset;
pub mod clock;
pub mod flash;
pub mod fw_cfg;
pub mod interrupt;
mod lock;
pub mod mapping;
pub mod pci;
pub mod region;
pub mod serial;
pub mod virtio;

pub use bus::{Bus, BusDevice, Effect};
pub use interrupt::{InterruptFabric, IrqLine, MsiMessage, MsiVector};
pub use mapping::HostMapping;
pub use region::{Backing, IoEvent, Region, Space};
