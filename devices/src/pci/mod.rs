//! PCI Express as the guest sees it: functions, their config space, and the hierarchy they hang in.

mod config_space;
mod function;
pub mod spec;

pub use config_space::{Bar, BarKind, ConfigSpace, DecodedBar, Identity};
pub use function::{ByteEnables, PciFunction};
