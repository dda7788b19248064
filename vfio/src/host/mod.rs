//! What this host offers: its PCI functions as `/sys` shows them, and the limits that stand in the way of assigning them.

pub mod bind;
pub mod kernel_log;
pub mod limits;
pub mod sysfs;
pub mod tree;

pub use kernel_log::KernelLog;
pub use limits::{LimitError, MemoryLock};
pub use sysfs::{Bdf, BdfParseError, HostFunction, Sysfs, SysfsError};
pub use tree::HostTree;
