//! The virtual machine monitor: machine, vCPUs, CPUID, memory, configuration and command line.

pub mod boot;
pub mod cli;
pub mod config;
pub mod exit;
pub mod kvm;
pub mod machine;
