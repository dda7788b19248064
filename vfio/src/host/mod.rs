//! What this host offers: its PCI functions as `/sys` shows them, and the limits that stand in the way of assigning them.

pub mod capture;
pub mod limits;
pub mod sysfs;
pub mod tree;

pub use capture::{Capture, CaptureError};
pub use limits::{LimitError, MemoryLock};
pub use sysfs::{Bdf, BdfParseError, HostFunction, Sysfs, SysfsError};
pub use tree::HostTree;
