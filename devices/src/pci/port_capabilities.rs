//! The capabilities a root port has beside PCI Express: power management, MSI, access control and error reporting.

use super::ConfigSpace;
use super::spec;

/// Power Management Control/Status, from the capability's start (PCI-PM 1.2 §3.2.4).
pub(super) const PM_CONTROL: u16 = 0x04;
/// PMCSR: the power state, 0 for D0 and 3 for D3hot.
pub(super) const PM_STATE: u8 = 0x3;

/// PMC: version 3; PME# from D0, D3hot and D3cold, which a port sets to say that it forwards PME messages (PCIe 6.0 §7.5.2.1).
const PM_CAPABILITIES: u16 = 0xc803;
/// PMCSR: the function keeps its state on the way from D3hot to D0 (§7.5.2.2).
const PM_NO_SOFT_RESET: u16 = 1 << 3;
/// PMCSR: power state and PME enable.
const PM_WRITABLE: u16 = 0x0103;
/// PMCSR: PME status.
const PM_CLEARABLE: u16 = 1 << 15;

/// Adds power management; returns its offset.
pub(super) fn add_power_management(space: &mut ConfigSpace) -> u16 {
    let at = space.add_capability(spec::CAP_PM, &[0; 6], &[]);
    space.set(at + 2, &PM_CAPABILITIES.to_le_bytes());
    space.set(at + PM_CONTROL, &PM_NO_SOFT_RESET.to_le_bytes());
    space.allow(at + PM_CONTROL, &PM_WRITABLE.to_le_bytes());
    space.allow_clear(at + PM_CONTROL, &PM_CLEARABLE.to_le_bytes());
    at
}

/// Message Control: 64-bit addresses, one vector (PCIe 6.0 §7.7.1.2).
const MSI_CONTROL: u16 = 1 << 7;
/// Message Control: enable.
const MSI_ENABLE: u16 = 1;

/// Adds MSI with one vector, which the guest may program and the port, having nothing to report, never sends.
pub(super) fn add_msi(space: &mut ConfigSpace) {
    let at = space.add_capability(spec::CAP_MSI, &[0; 12], &[]);
    space.set(at + 2, &MSI_CONTROL.to_le_bytes());
    space.allow(at + 2, &MSI_ENABLE.to_le_bytes());
    space.allow(at + 4, &0xffff_fffcu32.to_le_bytes());
    space.allow(at + 8, &u32::MAX.to_le_bytes());
    space.allow(at + 12, &u16::MAX.to_le_bytes());
}

/// Access Control Services (PCIe 6.0 §7.7.11).
const CAP_ACS: u16 = 0x000d;
/// Source validation, translation blocking, request and completion redirect, upstream forwarding, direct translated.
const ACS_ALL: u16 = 0x005f;

/// Adds ACS, with which operating systems see each port's devices isolated from the others'.
pub(super) fn add_acs(space: &mut ConfigSpace) {
    let at = space.add_extended_capability(CAP_ACS, 1, &[0; 4], &[]);
    space.set(at + 4, &ACS_ALL.to_le_bytes());
    space.allow(at + 6, &ACS_ALL.to_le_bytes());
}

/// Advanced Error Reporting (PCIe 6.0 §7.8.4).
const CAP_AER: u16 = 0x0001;
/// Bytes after the header: up to the error source identification, without the TLP prefix log.
const AER_SIZE: usize = 0x34;
/// The uncorrectable errors a root port knows (§7.8.4.2).
const AER_UNCORRECTABLE: u32 = 0x007f_f030;
/// Those that are fatal at reset (§7.8.4.4).
const AER_SEVERITY: u32 = 0x0046_2030;
/// Those that are masked at reset: internal errors (§7.8.4.3).
const AER_UNCORRECTABLE_MASK: u32 = 1 << 22;
/// The correctable errors (§7.8.4.5).
const AER_CORRECTABLE: u32 = 0x0000_f1c1;
/// Those that are masked at reset: advisory, internal, header log overflow (§7.8.4.6).
const AER_CORRECTABLE_MASK: u32 = 0x0000_e000;

/// Adds AER in which no error ever shows.
pub(super) fn add_aer(space: &mut ConfigSpace) {
    let at = space.add_extended_capability(CAP_AER, 2, &[0; AER_SIZE], &[]);
    space.allow_clear(at + 0x04, &AER_UNCORRECTABLE.to_le_bytes());
    space.set(at + 0x08, &AER_UNCORRECTABLE_MASK.to_le_bytes());
    space.allow(at + 0x08, &AER_UNCORRECTABLE.to_le_bytes());
    space.set(at + 0x0c, &AER_SEVERITY.to_le_bytes());
    space.allow(at + 0x0c, &AER_UNCORRECTABLE.to_le_bytes());
    space.allow_clear(at + 0x10, &AER_CORRECTABLE.to_le_bytes());
    space.set(at + 0x14, &AER_CORRECTABLE_MASK.to_le_bytes());
    space.allow(at + 0x14, &AER_CORRECTABLE.to_le_bytes());
    // Root Error Command: an interrupt for correctable, non-fatal and fatal errors (§7.8.4.9).
    space.allow(at + 0x2c, &[0x07]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{ByteEnables, Identity};

    #[test]
    fn msi_is_stored_and_unused() {
        let mut space = ConfigSpace::new(&Identity::default());
        add_msi(&mut space);
        for register in [0x40, 0x44, 0x48, 0x4c] {
            space.write(register, u32::MAX, ByteEnables::ALL);
        }
        assert_eq!(space.read(0x40), 0x0081_0005);
        assert_eq!(space.read(0x44), 0xffff_fffc);
        assert_eq!(space.read(0x48), 0xffff_ffff);
        assert_eq!(space.read(0x4c), 0x0000_ffff);
    }

    #[test]
    fn extended_capabilities_form_a_chain() {
        let mut space = ConfigSpace::new(&Identity::default());
        add_acs(&mut space);
        add_aer(&mut space);
        assert_eq!(space.read(0x100), 0x1081_000d);
        assert_eq!(space.read(0x104), 0x5f);
        assert_eq!(space.read(0x108), 0x0002_0001);
        space.write(0x104, u32::MAX, ByteEnables::ALL);
        assert_eq!(space.read(0x104), 0x005f_005f);
        space.write(0x10c, u32::MAX, ByteEnables::ALL);
        assert_eq!(space.read(0x10c), 0, "no error is pending");
    }
}
