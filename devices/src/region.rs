//! What a device decodes at this moment: the vocabulary in which devices tell the machine where they are.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::{BusDevice, HostMapping};

/// The two x86 address spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// IN and OUT, 64 KiB.
    Port,
    /// Guest-physical memory.
    Memory,
}

/// Who answers in a region.
#[derive(Debug, Clone)]
pub enum Backing {
    /// Every access exits to this device; the region's first byte is `offset` bytes into it.
    Device {
        /// The device.
        device: Arc<dyn BusDevice>,
        /// Offset of the region's base within the device.
        offset: u64,
    },
    /// The guest accesses host memory directly, without exits. `Space::Memory` only; base and size are multiples of 4 KiB.
    Host {
        /// The mapping that holds the bytes.
        mapping: Arc<HostMapping>,
        /// Offset of the region's base within the mapping, a multiple of 4 KiB.
        offset: u64,
        /// Where writes to a read-only region go. Present means read-only.
        writes: Option<Arc<dyn BusDevice>>,
    },
}

/// A range of addresses that something decodes.
#[derive(Debug, Clone)]
pub struct Region {
    /// Ports or memory.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Who answers.
    pub backing: Backing,
}

/// A write that signals an event in the kernel instead of exiting (KVM_IOEVENTFD).
#[derive(Debug, Clone)]
pub struct IoEvent {
    /// Ports or memory.
    pub space: Space,
    /// Address of the write.
    pub address: u64,
    /// Width of the write in bytes (1, 2, 4, 8), or 0 for any.
    pub width: u32,
    /// Only this value, or any.
    pub value: Option<u64>,
    /// What is signalled.
    pub event: Arc<EventFd>,
}
