//! The functions of the south bridge: what an ICH9 has beside PCI.

pub mod lpc;
pub mod pm;
