//! What the machine asks of KVM.

pub mod cpuid;
pub mod topology;
