//! Small fw_cfg files and items: their names and contents.

/// The memory map, see [`crate::e820::to_bytes`].
pub const E820: &str = "etc/e820";
/// Size of the 64-bit PCI window, see [`pci_mmio64_mb`].
pub const PCI_MMIO64_MB: &str = "opt/ovmf/X-PciMmio64Mb";

/// Largest window OVMF takes from [`PCI_MMIO64_MB`], in MiB (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`).
pub const PCI_MMIO64_MB_MAX: u64 = 0x100_0000;

/// Contents of [`PCI_MMIO64_MB`] for a window of `size` bytes: decimal MiB.
///
/// A minimum up to edk2 202502, unconditional from 202505 on and in Debian 13.
#[must_use]
pub fn pci_mmio64_mb(size: u64) -> Vec<u8> {
    size.div_ceil(1 << 20).min(PCI_MMIO64_MB_MAX).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_decimal_mebibytes_rounded_up() {
        assert_eq!(pci_mmio64_mb(32 << 30), b"32768");
        assert_eq!(pci_mmio64_mb((1 << 20) + 1), b"2");
        assert_eq!(pci_mmio64_mb(1 << 50), b"16777216");
    }
}
