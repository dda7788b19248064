//! Everything assigned: the host's PCI functions, opened through VFIO, given to a guest. Discovery of what a function's
//! config space holds, the mapping of guest memory through the IOMMU, the guest's view of config space, BARs,
//! interrupts and resets live here. Nothing here knows KVM beyond the handle that pairs it with VFIO, and nothing here
//! emulates a device.
//!
//! The machine goes through it in this order: [`Selection::new`] (what was named is whole and on vfio-pci),
//! [`Assignment::open`] (container, groups, functions), [`GuestDma::map`] (all guest RAM), [`Assignment::fit`] (places
//! on the guest's bus, and the first reset). Teardown is the reverse: the machine lets go of regions, then devices,
//! then [`GuestDma`], then the container.

// The guest reaches most of this crate: nothing in it may panic, whatever the guest does.
#![warn(clippy::indexing_slicing, clippy::panic)]

mod assignment;
mod bar;
mod config_space;
pub mod container;
mod device;
pub mod discover;
pub mod dma;
mod group;
pub mod host;
mod interrupt;
pub mod io;
mod ioctl;
mod map;
mod request;
mod reset;
pub mod rom;
pub mod selection;

pub use assignment::{AssignError, Assignment, OpenFunction, Placement};
pub use container::{Container, OpenError};
pub use device::VfioPciDevice;
pub use dma::{DmaError, DmaMap, DmaRange, GuestDma};
pub use host::{Bdf, HostFunction, HostTree, MemoryLock, Sysfs};
pub use ioctl::IommuInfo;
pub use request::HostNotices;
pub use reset::ResetMethod;
pub use rom::RomSource;
pub use selection::{Selection, SelectionError};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fixtures;
