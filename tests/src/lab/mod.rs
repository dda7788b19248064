//! The lab host: a software-emulated AMD machine with SVM and an IOMMU, running a stock Debian kernel.

pub mod channel;
pub mod command;
pub mod cpio;
pub mod host;
pub mod initramfs;
pub mod layout;
pub mod product;
pub mod qmp;
mod scratch;
pub mod store;
mod watch;
pub mod wire;

pub use channel::{ChannelError, Event, Job, Output};
pub use host::{Config, HostError, LabHost};
pub use layout::{Hardware, bdf};
pub use store::{Root, Set, Store, StoreError};
