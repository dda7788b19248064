//! Everything that talks to KVM: the virtual machine, its memory slots, interrupt controllers and vCPUs.

pub mod host;
pub mod irq;
pub mod memory;
pub mod state;
pub mod vcpu;
