//! What this host offers: its PCI functions as `/sys` shows them, and the limits that stand in the way of assigning them.

pub mod bind;
pub mod boot_args;
pub mod capture;
pub mod check;
pub mod function;
pub mod interrupts;
pub mod kernel_log;
pub mod limits;
pub mod survey;
pub mod symptom;
pub mod sysfs;
pub mod tree;

pub use capture::{Capture, CaptureError};
pub use function::{HostFunction, Link, Resource, Sriov};
pub use interrupts::Interrupts;
pub use kernel_log::KernelLog;
pub use limits::{LimitError, MemoryLock};
pub use survey::Survey;
pub use sysfs::{Bdf, BdfParseError, Sysfs, SysfsError};
pub use tree::HostTree;
