//! The virtual machine monitor: machine, vCPUs, CPUID, memory, configuration and command line.
//!
//! `kvm` is the only module that talks to KVM, `boot` does a boot loader's work where there is no firmware, `machine` builds a computer
//! out of the other crates and runs it, `event` is the loop that waits for everything that is not a vCPU. What devices do lives in
//! `devices`, what is assigned in `vfio`.

pub mod boot;
pub mod check;
pub mod cli;
pub mod config;
pub mod event;
pub mod exit;
pub mod kvm;
pub mod machine;
