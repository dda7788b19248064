//! The virtual machine monitor: machine, vCPUs, CPUID, memory, configuration and command line.

pub mod boot;
pub mod config;
pub mod kvm;
