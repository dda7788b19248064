//! A computer built out of the other crates, and run.

pub mod address_space;
pub mod control;
pub mod ram;
pub mod vcpus;
