//! The lab host: a software-emulated AMD machine with SVM and an IOMMU, running a stock Debian kernel.

pub mod command;
pub mod store;

pub use store::{Root, Set, Store, StoreError};
