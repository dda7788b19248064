//! Everything assigned: the host's PCI functions, opened through VFIO, given to a guest. Discovery of what a function's
//! config space holds, the mapping of guest memory through the IOMMU, the guest's view of config space, BARs,
//! interrupts and resets live here. Nothing here knows KVM beyond the handle that pairs it with VFIO, and nothing here
//! emulates a device.

pub mod discover;
pub mod host;
pub mod selection;

pub use host::{Bdf, HostFunction, MemoryLock, Sysfs};
pub use selection::{Selection, SelectionError};

#[cfg(test)]
mod fixtures;
