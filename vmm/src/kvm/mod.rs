//! Everything that talks to KVM: the virtual machine, its memory slots, interrupt controllers and vCPUs, and what their CPUID answers.

pub mod cpuid;
pub mod feature;
pub mod host;
pub mod irq;
pub mod memory;
pub mod state;
pub mod topology;
pub mod vcpu;
