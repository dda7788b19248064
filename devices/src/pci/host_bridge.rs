//! 00:00.0, the memory controller hub of a Q35.
//!
//! Registers: Intel 3 Series Express Chipset Family datasheet (316966) §5.1, and edk2 OvmfPkg/Include/IndustryStandard/Q35MchIch9.h.

use std::sync::Mutex;

use super::{ByteEnables, ConfigSpace, Identity, PciFunction};
use crate::lock::lock;
use crate::{Effect, Region};

/// The device ID by which OVMF knows the platform (edk2 OvmfPkg/Include/OvmfPlatforms.h).
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x29c0,
    class: 0x06_00_00,
    revision: 2,
    subsystem_vendor: 0,
    subsystem: 0,
    header_type: 0,
    interrupt_pin: 0,
};

/// PCIEXBAR, 64 bits: where the ECAM window is.
const PCIEXBAR: u16 = 0x60;
/// PCIEXBAR: the window is decoded.
const PCIEXBAR_ENABLE: u64 = 1;
/// PCIEXBAR: bits 35:26 are the base, of which 27:26 count only in shorter windows; 2:1 the length; 0 enables.
const PCIEXBAR_WRITABLE: u64 = 0xf_fc00_0007;
/// PCIEXBAR: the base, as far as it is aligned to the shortest window.
const PCIEXBAR_BASE: u64 = 0xf_fc00_0000;

/// PAM0 to PAM6: who answers for the BIOS areas below 1 MiB. Stored; the areas are always RAM.
const PAM0: u16 = 0x90;
const PAM_WRITABLE: [u8; 7] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];
/// SMRAM control and its value at power-on. Stored; there is no system management mode.
const SMRAM: u16 = 0x9d;
const SMRAM_POWER_ON: u8 = 0x02;
const SMRAM_WRITABLE: u8 = 0x78;
/// Extended SMRAM control and its value at power-on. Stored.
const ESMRAMC: u16 = 0x9e;
const ESMRAMC_POWER_ON: u8 = 0x38;
const ESMRAMC_WRITABLE: u8 = 0x87;

/// The host bridge.
#[derive(Debug)]
pub struct HostBridge {
    space: Mutex<ConfigSpace>,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// A bridge as at power-on: no ECAM window until the firmware places it.
    pub fn new() -> Self {
        Self::with_pciexbar(0)
    }

    /// A bridge whose ECAM window of 256 MiB is at `base` from the start and after every reset, for a guest without firmware.
    /// `base` is a multiple of 256 MiB below 64 GiB; other bits are dropped.
    pub fn with_ecam_at(base: u64) -> Self {
        Self::with_pciexbar(base & 0xf_f000_0000 | PCIEXBAR_ENABLE)
    }

    fn with_pciexbar(pciexbar: u64) -> Self {
        let mut space = ConfigSpace::new(&IDENTITY);
        space.set(PCIEXBAR, &pciexbar.to_le_bytes());
        space.allow(PCIEXBAR, &PCIEXBAR_WRITABLE.to_le_bytes());
        space.allow(PAM0, &PAM_WRITABLE);
        space.set(SMRAM, &[SMRAM_POWER_ON]);
        space.allow(SMRAM, &[SMRAM_WRITABLE]);
        space.set(ESMRAMC, &[ESMRAMC_POWER_ON]);
        space.allow(ESMRAMC, &[ESMRAMC_WRITABLE]);
        space.seal();
        Self {
            space: Mutex::new(space),
        }
    }

    /// Base and size in bytes of the ECAM window as the guest placed it.
    pub fn ecam(&self) -> Option<(u64, u64)> {
        ecam(&lock(&self.space))
    }
}

fn ecam(space: &ConfigSpace) -> Option<(u64, u64)> {
    let pciexbar = u64::from(space.read(PCIEXBAR + 4)) << 32 | u64::from(space.read(PCIEXBAR));
    let size: u64 = match pciexbar >> 1 & 3 {
        0 => 256 << 20,
        1 => 128 << 20,
        2 => 64 << 20,
        _ => return None,
    };
    let base = pciexbar & PCIEXBAR_BASE & !(size - 1);
    (pciexbar & PCIEXBAR_ENABLE != 0).then_some((base, size))
}

impl PciFunction for HostBridge {
    fn config_read(&self, register: u16) -> u32 {
        lock(&self.space).read(register)
    }

    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        let mut space = lock(&self.space);
        let before = ecam(&space);
        space.write(register, value, enables);
        if ecam(&space) == before {
            Effect::None
        } else {
            Effect::Relayout
        }
    }

    /// None: the ECAM window is [`super::Ecam::region`].
    fn regions(&self, _regions: &mut Vec<Region>) {}

    fn reset(&self) {
        lock(&self.space).reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_ovmf_looks_for() {
        let bridge = HostBridge::new();
        assert_eq!(bridge.config_read(0x00), 0x29c0_8086);
        assert_eq!(bridge.config_read(0x08) >> 8, 0x06_0000);
        assert_eq!(bridge.config_read(0x3c), 0, "no interrupt pin");
    }

    #[test]
    fn the_window_follows_pciexbar() {
        let bridge = HostBridge::new();
        assert_eq!(bridge.ecam(), None);
        assert_eq!(bridge.config_write(0x64, 0, ByteEnables::ALL), Effect::None);
        assert_eq!(
            bridge.config_write(0x60, 0xb000_0001, ByteEnables::ALL),
            Effect::Relayout
        );
        assert_eq!(bridge.ecam(), Some((0xb000_0000, 256 << 20)));
        assert_eq!(bridge.config_write(0x60, 0xb000_0001, ByteEnables::ALL), Effect::None);
        assert_eq!(
            bridge.config_write(0x60, 0xbc00_0005, ByteEnables::ALL),
            Effect::Relayout
        );
        assert_eq!(bridge.ecam(), Some((0xbc00_0000, 64 << 20)));
        assert_eq!(
            bridge.config_write(0x60, 0xbc00_0003, ByteEnables::ALL),
            Effect::Relayout
        );
        assert_eq!(bridge.ecam(), Some((0xb800_0000, 128 << 20)));
        assert_eq!(bridge.config_write(0x64, u32::MAX, ByteEnables::ALL), Effect::Relayout);
        assert_eq!(bridge.ecam(), Some((0xf_b800_0000, 128 << 20)));
        assert_eq!(bridge.config_write(0x60, 7, ByteEnables::of(0, 1)), Effect::Relayout);
        assert_eq!(bridge.ecam(), None, "a reserved length");
        bridge.reset();
        assert_eq!(bridge.config_read(0x60), 0);
    }

    #[test]
    fn a_preset_window_survives_reset() {
        let bridge = HostBridge::with_ecam_at(0xe000_0000);
        assert_eq!(bridge.config_write(0x60, 0, ByteEnables::ALL), Effect::Relayout);
        bridge.reset();
        assert_eq!(bridge.ecam(), Some((0xe000_0000, 256 << 20)));
    }

    #[test]
    fn stores_pam_and_smram() {
        let bridge = HostBridge::new();
        let _ = bridge.config_write(0x90, u32::MAX, ByteEnables::ALL);
        assert_eq!(bridge.config_read(0x90), 0x3333_3330);
        assert_eq!(bridge.config_read(0x9c), 0x0038_0200);
        let _ = bridge.config_write(0x9c, u32::MAX, ByteEnables::ALL);
        assert_eq!(
            bridge.config_read(0x9c),
            0x00bf_7a00,
            "the SMM handshake at 0x9c stays unsupported"
        );
    }
}
