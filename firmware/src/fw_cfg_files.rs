//! Small fw_cfg files and items: their names and contents.

/// Item 0x0005, `NB_CPUS`: processors that answer INIT-SIPI, exactly. More would make OVMF wait for over an hour.
pub const ITEM_NB_CPUS: u16 = 0x0005;
/// Item 0x000E, `BOOT_MENU`: not zero shows the boot menu prompt.
pub const ITEM_BOOT_MENU: u16 = 0x000e;

/// The memory map, see [`crate::e820::to_bytes`].
pub const E820: &str = "etc/e820";
/// Size of the 64-bit PCI window, see [`pci_mmio64_mb`].
pub const PCI_MMIO64_MB: &str = "opt/ovmf/X-PciMmio64Mb";
/// How long the boot menu waits, see [`boot_menu_wait`].
pub const BOOT_MENU_WAIT: &str = "etc/boot-menu-wait";
/// Sleep states, see [`system_states`].
pub const SYSTEM_STATES: &str = "etc/system-states";
/// First address above everything that will ever be RAM: `u64`. The 64-bit PCI window goes above.
pub const RESERVED_MEMORY_END: &str = "etc/reserved-memory-end";

/// The switches for network boot. Set to [`NO`] they save about a minute each when nothing else boots.
pub const NETWORK_BOOT: [&str; 2] = ["opt/org.tianocore/IPv4PXESupport", "opt/org.tianocore/IPv6PXESupport"];
/// The switch for the built-in shell.
pub const SHELL: &str = "opt/org.tianocore/EFIShellSupport";

/// A switch turned on.
pub const YES: &[u8] = b"yes";
/// A switch turned off.
pub const NO: &[u8] = b"no";

/// Largest window OVMF takes from [`PCI_MMIO64_MB`], in MiB (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`).
pub const PCI_MMIO64_MB_MAX: u64 = 0x100_0000;

/// Contents of [`PCI_MMIO64_MB`] for a window of `size` bytes: decimal MiB.
///
/// A minimum up to edk2 202502, unconditional from 202505 on and in Debian 13.
#[must_use]
pub fn pci_mmio64_mb(size: u64) -> Vec<u8> {
    size.div_ceil(1 << 20).min(PCI_MMIO64_MB_MAX).to_string().into_bytes()
}

/// Contents of [`BOOT_MENU_WAIT`]; OVMF rounds up to seconds.
#[must_use]
pub const fn boot_menu_wait(milliseconds: u16) -> [u8; 2] {
    milliseconds.to_le_bytes()
}

/// Contents of [`SYSTEM_STATES`] for a machine that can only be on or off: a byte a state, bit 7 for "available", S0 and
/// S5 having it. To leave the file out means the same.
#[must_use]
pub const fn system_states() -> [u8; 6] {
    [0x80, 0, 0, 0, 0, 0x80]
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
