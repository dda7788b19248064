//! Where a function is, and which of its registers is meant.

use std::fmt;

/// A place on the root bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Slot {
    /// Function `function` of device `device`.
    pub const fn new(device: u8, function: u8) -> Self {
        Self { device, function }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.device, self.function)
    }
}

/// A byte of the machine's config space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Offset in the function's config space in bytes, 0 to 4095.
    pub register: u16,
}

impl ConfigAddress {
    /// What an offset into an ECAM window means: bus in bits 27:20, device in 19:15, function in 14:12, register in 11:0
    /// (PCIe 6.0 §7.2.2).
    pub const fn from_ecam(offset: u64) -> Self {
        Self {
            bus: (offset >> 20 & 0xff) as u8,
            device: (offset >> 15 & 0x1f) as u8,
            function: (offset >> 12 & 0x7) as u8,
            register: (offset & 0xfff) as u16,
        }
    }

    /// What CONFIG_ADDRESS means: bus in bits 23:16, device in 15:11, function in 10:8, the register's dword in 7:2
    /// (PCI 3.0 §3.2.2.3.2).
    pub const fn from_mechanism_1(address: u32) -> Self {
        Self {
            bus: (address >> 16 & 0xff) as u8,
            device: (address >> 11 & 0x1f) as u8,
            function: (address >> 8 & 0x7) as u8,
            register: (address & 0xfc) as u16,
        }
    }

    /// Function `slot` of bus 0 at `register`.
    pub const fn on_root_bus(slot: Slot, register: u16) -> Self {
        Self {
            bus: 0,
            device: slot.device,
            function: slot.function,
            register,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mechanisms_name_the_same_register() {
        let expected = ConfigAddress {
            bus: 0x12,
            device: 0x1f,
            function: 3,
            register: 0x44,
        };
        assert_eq!(
            ConfigAddress::from_ecam(0x12 << 20 | 0x1f << 15 | 3 << 12 | 0x44),
            expected
        );
        assert_eq!(
            ConfigAddress::from_mechanism_1(0x8000_0000 | 0x12 << 16 | 0x1f << 11 | 3 << 8 | 0x44),
            expected
        );
        assert_eq!(ConfigAddress::from_ecam(0xfff).register, 0xfff);
    }
}
