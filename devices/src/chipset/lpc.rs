//! 00:1f.0, the LPC bridge of an ICH9, which says where the power management block is.
//!
//! Registers: ICH9 datasheet (316972) §13.1, and edk2 OvmfPkg/Include/IndustryStandard/Q35MchIch9.h.

use std::sync::{Arc, Mutex};

use super::pm::{self, PowerManagement};
use crate::lock::lock;
use crate::pci::{ByteEnables, ConfigSpace, Identity, PciFunction};
use crate::{Backing, BusDevice, Effect, Region, Space};

/// OVMF finds serial ports and keyboard by this class (edk2 OvmfPkg/Library/PlatformBootManagerLib).
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x2918,
    class: 0x06_01_00,
    revision: 2,
    subsystem_vendor: 0,
    subsystem: 0,
    header_type: 0,
    interrupt_pin: 0,
};

/// ACPI base address, 32 bits: 15:7 are the port, bit 0 says that it is one.
const PMBASE: u16 = 0x40;
const PMBASE_IO: u32 = 1;
const PMBASE_WRITABLE: u32 = 0xff80;
/// ACPI control, 8 bits: bit 7 decodes PMBASE, 2:0 choose the SCI's interrupt, of which 0 is IRQ 9 and the only one in use.
const ACPI_CONTROL: u16 = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
const ACPI_CONTROL_WRITABLE: u8 = 0x87;
/// PIRQA to PIRQD and PIRQE to PIRQH routing: bit 7 disables, 3:0 are the ISA interrupt. Stored; interrupts go to the IOAPIC.
const PIRQ_ROUTES: [u16; 2] = [0x60, 0x68];
const PIRQ_POWER_ON: [u8; 4] = [0x80; 4];
const PIRQ_WRITABLE: [u8; 4] = [0x8f; 4];
/// Serial IRQ control and its value at power-on. Stored.
const SERIAL_IRQ: u16 = 0x64;
const SERIAL_IRQ_POWER_ON: u8 = 0x10;
const SERIAL_IRQ_WRITABLE: u8 = 0xfc;
/// Root complex base address: 31:14 and an enable bit. Stored; nothing answers there.
const RCBA: u16 = 0xf0;
const RCBA_WRITABLE: u32 = 0xffff_c001;

/// Where the power management block is when no firmware places it; OVMF chooses the same
/// (edk2 OvmfPkg/Include/IndustryStandard/Q35MchIch9.h, ICH9_PMBASE_VALUE).
pub const DEFAULT_PM_BASE: u16 = 0x600;

/// The LPC bridge. It owns the power management block: regions and reset of the one are those of the other.
#[derive(Debug)]
pub struct LpcBridge {
    space: Mutex<ConfigSpace>,
    pm: Arc<PowerManagement>,
}

impl LpcBridge {
    /// A bridge as at power-on: the firmware is to place the block.
    pub fn new(pm: Arc<PowerManagement>) -> Self {
        Self::with_pm_base(pm, None)
    }

    /// A bridge with the block at [`DEFAULT_PM_BASE`] from the start and after every reset, for a guest without firmware.
    pub fn preset(pm: Arc<PowerManagement>) -> Self {
        Self::with_pm_base(pm, Some(DEFAULT_PM_BASE))
    }

    fn with_pm_base(pm: Arc<PowerManagement>, base: Option<u16>) -> Self {
        let mut space = ConfigSpace::new(&IDENTITY);
        let pm_base = u32::from(base.unwrap_or(0)) & PMBASE_WRITABLE | PMBASE_IO;
        space.set(PMBASE, &pm_base.to_le_bytes());
        space.allow(PMBASE, &PMBASE_WRITABLE.to_le_bytes());
        space.set(ACPI_CONTROL, &[if base.is_some() { ACPI_ENABLE } else { 0 }]);
        space.allow(ACPI_CONTROL, &[ACPI_CONTROL_WRITABLE]);
        for register in PIRQ_ROUTES {
            space.set(register, &PIRQ_POWER_ON);
            space.allow(register, &PIRQ_WRITABLE);
        }
        space.set(SERIAL_IRQ, &[SERIAL_IRQ_POWER_ON]);
        space.allow(SERIAL_IRQ, &[SERIAL_IRQ_WRITABLE]);
        space.allow(RCBA, &RCBA_WRITABLE.to_le_bytes());
        space.seal();
        Self {
            space: Mutex::new(space),
            pm,
        }
    }

    /// The first port of the power management block, if it is decoded.
    pub fn pm_base(&self) -> Option<u16> {
        pm_base(&lock(&self.space))
    }
}

/// COMMAND has no say: OVMF clears it while it enumerates, and waits on the PM timer meanwhile. A base of 0 is one not yet set.
fn pm_base(space: &ConfigSpace) -> Option<u16> {
    let base = (space.read(PMBASE) & PMBASE_WRITABLE) as u16;
    (space.get_u8(ACPI_CONTROL) & ACPI_ENABLE != 0 && base != 0).then_some(base)
}

impl PciFunction for LpcBridge {
    fn config_read(&self, register: u16) -> u32 {
        lock(&self.space).read(register)
    }

    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        let mut space = lock(&self.space);
        let before = pm_base(&space);
        space.write(register, value, enables);
        if pm_base(&space) == before {
            Effect::None
        } else {
            Effect::Relayout
        }
    }

    fn regions(&self, regions: &mut Vec<Region>) {
        regions.extend(self.pm_base().map(|base| Region {
            space: Space::Port,
            base: u64::from(base),
            size: pm::SIZE,
            backing: Backing::Device {
                device: Arc::clone(&self.pm) as Arc<dyn BusDevice>,
                offset: 0,
            },
        }));
    }

    fn reset(&self) {
        lock(&self.space).reset();
        self.pm.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IrqLine;
    use crate::chipset::pm::PmConfig;
    use crate::clock::ManualClock;

    #[derive(Debug)]
    struct NoLine;
    impl IrqLine for NoLine {
        fn set(&self, _level: bool) {}
    }

    fn pm() -> Arc<PowerManagement> {
        Arc::new(PowerManagement::new(
            PmConfig::default(),
            Arc::new(ManualClock::new(0)),
            Arc::new(NoLine),
        ))
    }

    fn regions(lpc: &LpcBridge) -> Vec<(u64, u64)> {
        let mut regions = Vec::new();
        lpc.regions(&mut regions);
        regions.iter().map(|region| (region.base, region.size)).collect()
    }

    #[test]
    fn is_the_isa_bridge_ovmf_looks_for() {
        let lpc = LpcBridge::new(pm());
        assert_eq!(lpc.config_read(0x00), 0x2918_8086);
        assert_eq!(lpc.config_read(0x08) >> 8, 0x06_0100);
        assert_eq!(lpc.config_write(0x04, 7, ByteEnables::of(0, 2)), Effect::None);
        assert_eq!(lpc.config_read(0x04) & 7, 7);
    }

    #[test]
    fn firmware_places_the_pm_block() {
        let lpc = LpcBridge::new(pm());
        assert_eq!(lpc.config_read(0x40), 1);
        assert_eq!(
            lpc.config_write(0x40, 0x600, ByteEnables::ALL),
            Effect::None,
            "not enabled"
        );
        assert_eq!(lpc.config_read(0x40), 0x601);
        assert_eq!(lpc.config_write(0x44, 0x80, ByteEnables::of(0, 1)), Effect::Relayout);
        assert_eq!(lpc.pm_base(), Some(0x600));
        assert_eq!(regions(&lpc), [(0x600, 128)]);
        assert_eq!(lpc.config_write(0x04, 0, ByteEnables::ALL), Effect::None);
        assert_eq!(regions(&lpc), [(0x600, 128)], "COMMAND does not gate it");
        assert_eq!(lpc.config_write(0x40, u32::MAX, ByteEnables::ALL), Effect::Relayout);
        assert_eq!(regions(&lpc), [(0xff80, 128)]);
        lpc.reset();
        assert_eq!(lpc.pm_base(), None);
        assert_eq!(lpc.config_read(0x44), 0);
    }

    #[test]
    fn a_preset_block_survives_reset() {
        let lpc = LpcBridge::preset(pm());
        assert_eq!(lpc.pm_base(), Some(0x600));
        assert_eq!(lpc.config_write(0x44, 0, ByteEnables::of(0, 1)), Effect::Relayout);
        lpc.reset();
        assert_eq!(lpc.pm_base(), Some(0x600));
    }

    #[test]
    fn stores_routes_and_rcba() {
        let lpc = LpcBridge::new(pm());
        assert_eq!(lpc.config_read(0x60), 0x8080_8080);
        let _ = lpc.config_write(0x60, 0x0b0b_0a0a, ByteEnables::ALL);
        let _ = lpc.config_write(0x68, 0x0b0b_0a0a, ByteEnables::ALL);
        let _ = lpc.config_write(0xf0, 0xfed1_c001, ByteEnables::ALL);
        assert_eq!(lpc.config_read(0x60), 0x0b0b_0a0a);
        assert_eq!(lpc.config_read(0x68), 0x0b0b_0a0a);
        assert_eq!(lpc.config_read(0xf0), 0xfed1_c001);
    }
}
