//! Registers and numbers of the PCI specifications. Nothing vendor-specific belongs here.

/// Bytes of a conventional config space (PCI 3.0 §6.1).
pub const CONFIG_SIZE: usize = 256;
/// Bytes of an extended config space (PCIe 6.0 §7.2.2).
pub const EXTENDED_CONFIG_SIZE: usize = 4096;

/// Vendor ID, 16 bits (PCIe 6.0 §7.5.1.1.1).
pub const VENDOR_ID: u16 = 0x00;
/// Device ID, 16 bits.
pub const DEVICE_ID: u16 = 0x02;
/// Command register, 16 bits (§7.5.1.1.3).
pub const COMMAND: u16 = 0x04;
/// Status register, 16 bits (§7.5.1.1.4).
pub const STATUS: u16 = 0x06;
/// Revision ID, 8 bits.
pub const REVISION: u16 = 0x08;
/// Programming interface, subclass and base class, 24 bits (§7.5.1.1.6).
pub const CLASS: u16 = 0x09;
/// Cache line size, 8 bits.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Header type, 8 bits (§7.5.1.1.9).
pub const HEADER_TYPE: u16 = 0x0e;
/// First base address register (§7.5.1.2.1).
pub const BAR0: u16 = 0x10;
/// Subsystem vendor ID, 16 bits.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem ID, 16 bits.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Expansion ROM base address of a type 0 header (§7.5.1.2.4).
pub const ROM_BAR: u16 = 0x30;
/// Pointer to the first capability, 8 bits.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, 8 bits.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, 8 bits: 0 none, 1 INTA .. 4 INTD.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// First extended capability.
pub const EXTENDED_CAPABILITIES: u16 = 0x100;

/// COMMAND: responds to I/O accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// COMMAND: responds to memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// COMMAND: may master the bus.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// COMMAND: INTx may not be asserted.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// STATUS: an interrupt is pending.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// STATUS: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Header type: the slot has further functions.
pub const HEADER_MULTIFUNCTION: u8 = 0x80;
/// Header type 1: a bridge.
pub const HEADER_BRIDGE: u8 = 0x01;

/// BAR: I/O space.
pub const BAR_IO: u32 = 0x1;
/// BAR: 64-bit memory.
pub const BAR_MEMORY_64: u32 = 0x4;
/// BAR: prefetchable memory.
pub const BAR_PREFETCH: u32 = 0x8;
/// Expansion ROM BAR: decode enabled.
pub const ROM_ENABLE: u32 = 0x1;

/// Capability: power management (PCI-PM 1.2 §3.2).
pub const CAP_PM: u8 = 0x01;
/// Capability: message-signalled interrupts (PCIe 6.0 §7.7.1).
pub const CAP_MSI: u8 = 0x05;
/// Capability: vendor-specific (§7.9.4).
pub const CAP_VENDOR: u8 = 0x09;
/// Capability: PCI Express (§7.5.3).
pub const CAP_EXPRESS: u8 = 0x10;
/// Capability: MSI-X (§7.7.2).
pub const CAP_MSIX: u8 = 0x11;
/// Capability: advanced features, conventional PCI's function level reset (PCI AF ECN).
pub const CAP_AF: u8 = 0x13;
