//! What the firmware reads: OVMF images, the memory map, ACPI, SMBIOS and fw_cfg files. Pure: imports nothing of ours.
//!
//! Everything here turns a description of the machine into bytes. Nothing here touches KVM, a device or guest memory;
//! the only input from outside is the firmware images and their descriptors, read in [`ovmf`].

pub mod acpi;
pub mod bootorder;
pub mod e820;
pub mod fw_cfg_files;
pub mod mmio64;
pub mod ovmf;
pub mod smbios;
pub mod table_loader;

pub use acpi::{AcpiError, AcpiTables, CpuEntry, Ecam, OemIds, Platform, PortRange};
pub use e820::{E820Entry, E820Kind, RamSplit};
pub use ovmf::{FirmwareImage, FirmwareSearch, FlashLayout, LoadedFirmware, OvmfError};

/// A range of guest physical addresses, `[base, base + size)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    /// First guest physical address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

impl AddressRange {
    /// The range of `size` bytes at `base`.
    #[must_use]
    pub const fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }

    /// The first address after the range, or `None` where that is beyond 2⁶⁴ − 1.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.base.checked_add(self.size)
    }

    /// Whether the two ranges share an address. An empty range shares none.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.size != 0
            && other.size != 0
            && self.base <= other.base.saturating_add(other.size - 1)
            && other.base <= self.base.saturating_add(self.size - 1)
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.base, self.size)
    }
}

/// The byte that makes the eight-bit sum of `bytes` zero once it is added.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}
