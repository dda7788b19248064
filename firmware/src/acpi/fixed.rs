//! The tables without AML: FADT, FACS, MADT, MCFG, WAET.

use acpi_tables::{
    facs::FACS,
    fadt::{FADTBuilder, Flags, PmProfile},
    gas::{AccessSize, AddressSpace, GAS},
    mcfg::MCFG,
    sdt::Sdt,
};

use super::{Ecam, OemIds, Platform, bytes_of};
use crate::AddressRange;

const IOAPIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;

/// IOAPIC to local APIC (and the HPET, TPM and chipset registers between them): no PCI window there.
pub(super) const INTERRUPT_CONTROLLERS: AddressRange = AddressRange::new(0xfec0_0000, 0x30_0000);

/// Reset control register of the chipset (ICH9 datasheet §13.7.5), and "hard reset, full power cycle off".
const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 0x0f;

/// A logical flat-model destination addresses eight local APICs (Intel SDM vol. 3 §11.6.2.2).
const FLAT_MODEL_CPUS: usize = 8;

/// Above this id a processor needs the x2APIC structure (ACPI 6.5 §5.2.12.12).
const XAPIC_ID_MAX: u32 = 254;

/// IA-PC boot architecture flags (ACPI 6.5 §5.2.9.3).
mod boot_arch {
    pub const LEGACY_DEVICES: u16 = 1 << 0;
    pub const I8042: u16 = 1 << 1;
    pub const VGA_NOT_PRESENT: u16 = 1 << 2;
    /// Keeps the operating system off ASPM: the links of assigned devices are the host's business.
    pub const NO_PCIE_ASPM: u16 = 1 << 4;
}

/// Firmware ACPI control structure: 64 bytes, no checksum (ACPI 6.5 §5.2.10).
pub(super) fn facs() -> Vec<u8> {
    bytes_of(&FACS::new())
}

/// Fixed ACPI description table, revision 6, with fixed hardware (ACPI 6.5 §5.2.9). `facs` and `dsdt` are offsets into
/// the blob.
pub(super) fn fadt(platform: &Platform<'_>, facs: u32, dsdt: u32) -> Vec<u8> {
    let oem = &platform.oem;
    let mut fadt = FADTBuilder::new(oem.oem_id, oem.oem_table_id, oem.oem_revision)
        .preferred_pm_profile(PmProfile::Desktop)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // There is no fixed sleep button; the power button is one (PWR_BUTTON clear).
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::UsePlatformClock);
    if platform.pm_timer_32bit {
        fadt = fadt.flag(Flags::TmrValExt);
    }
    if platform.cpus.len() > FLAT_MODEL_CPUS {
        fadt = fadt.flag(Flags::ForceApicClusterModel);
    }
    // One of the two FACS fields, as both set is reserved for a wide one; both DSDT fields, the same.
    fadt.firmware_ctrl = facs.into();
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();

    // SMI_CMD stays 0: without SMM the firmware sets SCI_EN itself (edk2 PlatformBootManagerLib).
    fadt.sci_int = u16::from(platform.sci).into();
    // Above these C2 and C3 are unsupported (ACPI 6.5 table 5.9).
    fadt.p_lvl2_lat = 0xfff.into();
    fadt.p_lvl3_lat = 0xfff.into();
    fadt.century = platform.century;
    fadt.iapc_boot_arch = iapc_boot_arch(platform).into();
    fadt.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    pm_blocks(&mut fadt, platform);
    bytes_of(&fadt.finalize())
}

fn iapc_boot_arch(platform: &Platform<'_>) -> u16 {
    let mut flags = boot_arch::VGA_NOT_PRESENT | boot_arch::NO_PCIE_ASPM;
    if platform.serial || platform.i8042 {
        flags |= boot_arch::LEGACY_DEVICES;
    }
    if platform.i8042 {
        flags |= boot_arch::I8042;
    }
    flags
}

/// The register blocks, each in its old field and in its GAS (Windows' nested hypervisor loader insists on the latter).
fn pm_blocks(fadt: &mut FADTBuilder, platform: &Platform<'_>) {
    let port = |offset: u16| platform.pm_base.wrapping_add(offset);
    let gas = |port: u16, bits: u8, access| GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port));
    // ICH9 datasheet §13.8.3: event block at 0, control at 4, timer at 8.
    (fadt.pm1a_evt_blk, fadt.pm1_evt_len) = (u32::from(port(0)).into(), 4);
    (fadt.pm1a_cnt_blk, fadt.pm1_cnt_len) = (u32::from(port(4)).into(), 2);
    (fadt.pm_tmr_blk, fadt.pm_tmr_len) = (u32::from(port(8)).into(), 4);
    fadt.x_pm1a_evt_blk = gas(port(0), 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = gas(port(4), 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = gas(port(8), 32, AccessSize::DwordAccess);
    if let Some(gpe0) = platform.gpe0 {
        let length = gpe0.last.saturating_sub(gpe0.first).saturating_add(1).min(31) as u8;
        (fadt.gpe0_blk, fadt.gpe0_blk_len) = (u32::from(gpe0.first).into(), length);
        fadt.x_gpe0_blk = gas(gpe0.first, length * 8, AccessSize::ByteAccess);
    }
}

/// Multiple APIC description table (ACPI 6.5 §5.2.12).
pub(super) fn madt(platform: &Platform<'_>) -> Vec<u8> {
    let mut madt = table(*b"APIC", 44, 5, &platform.oem);
    madt.write_u32(36, LOCAL_APIC);
    // PCAT_COMPAT: there are 8259s as well.
    madt.write_u32(40, 1);
    for (uid, cpu) in (0u32..).zip(platform.cpus) {
        madt.append_slice(&processor(uid, cpu.apic_id));
    }
    madt.append_slice(&[&[1, 12, 0, 0][..], &IOAPIC.to_le_bytes(), &[0; 4]].concat());
    if platform.irq0_is_gsi2 {
        madt.append_slice(&interrupt_override(0, 2, 0));
    }
    // Level-triggered (0b11 << 2), active high (0b01): table 5.26.
    madt.append_slice(&interrupt_override(platform.sci, u32::from(platform.sci), 0x000d));
    // NMI at LINT1 of every processor (§5.2.12.7, §5.2.12.13).
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    if platform
        .cpus
        .iter()
        .zip(0..)
        .any(|(cpu, uid)| needs_x2apic(uid, cpu.apic_id))
    {
        madt.append_slice(&[0xa, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
    madt.as_slice().to_vec()
}

/// Also for a high UID: its field in the older structure is a byte, and 0xFF means all processors elsewhere.
const fn needs_x2apic(uid: u32, apic_id: u32) -> bool {
    apic_id > XAPIC_ID_MAX || uid > XAPIC_ID_MAX
}

/// A processor, enabled: local APIC (type 0) or local x2APIC structure (type 9).
fn processor(uid: u32, apic_id: u32) -> Vec<u8> {
    const ENABLED: [u8; 4] = 1u32.to_le_bytes();
    if needs_x2apic(uid, apic_id) {
        [&[9, 16, 0, 0][..], &apic_id.to_le_bytes(), &ENABLED, &uid.to_le_bytes()].concat()
    } else {
        [&[0, 8, uid as u8, apic_id as u8][..], &ENABLED].concat()
    }
}

/// Interrupt source override, bus ISA (§5.2.12.5).
fn interrupt_override(irq: u8, gsi: u32, flags: u16) -> Vec<u8> {
    [&[2, 10, 0, irq][..], &gsi.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// Where PCI configuration space is (PCI Firmware 3.3 §4.1.2).
pub(super) fn mcfg(oem: &OemIds, ecam: Ecam) -> Vec<u8> {
    let mut mcfg = MCFG::new(oem.oem_id, oem.oem_table_id, oem.oem_revision);
    let last_bus = ecam.buses.saturating_sub(1).min(255) as u8;
    mcfg.add_ecam(ecam.base, 0, 0, last_bus);
    bytes_of(&mcfg)
}

/// Windows ACPI emulated devices table: one read of the power-management timer suffices (bit 1). The RTC needs its
/// register C read as on hardware, so bit 0 stays clear.
pub(super) fn waet(oem: &OemIds) -> Vec<u8> {
    let mut waet = table(*b"WAET", 40, 1, oem);
    waet.write_u32(36, 1 << 1);
    waet.as_slice().to_vec()
}

/// An empty table of `length` bytes.
pub(super) fn table(signature: [u8; 4], length: u32, revision: u8, oem: &OemIds) -> Sdt {
    Sdt::new(
        signature,
        length,
        revision,
        oem.oem_id,
        oem.oem_table_id,
        oem.oem_revision,
    )
}
