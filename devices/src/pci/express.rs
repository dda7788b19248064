//! The PCI Express capability of a root port (PCIe 6.0 §7.5.3).

use super::ConfigSpace;
use super::spec;

/// How fast a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkSpeed {
    /// 2.5 GT/s, PCIe 1.
    Gt2_5 = 1,
    /// 5 GT/s, PCIe 2.
    Gt5 = 2,
    /// 8 GT/s, PCIe 3.
    Gt8 = 3,
    /// 16 GT/s, PCIe 4.
    Gt16 = 4,
    /// 32 GT/s, PCIe 5.
    Gt32 = 5,
    /// 64 GT/s, PCIe 6.
    Gt64 = 6,
}

/// The link below a port, as the port reports it. Nothing runs at this speed; drivers read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Supported and current speed.
    pub speed: LinkSpeed,
    /// Supported and current width: 1, 2, 4, 8, 16 or 32 lanes.
    pub width: u8,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            speed: LinkSpeed::Gt16,
            width: 16,
        }
    }
}

/// Link Control and Link Status, one dword (§7.5.3.7, §7.5.3.8).
pub(super) const LINK_CONTROL: u16 = 0x10;
/// Slot Control and Slot Status, one dword (§7.5.3.10, §7.5.3.11).
pub(super) const SLOT_CONTROL: u16 = 0x18;
/// Link Control: the link is down (bit 4).
pub(super) const LINK_DISABLE: u32 = 1 << 4;
/// Link Status: the data link layer is active (bit 13), here in its dword.
pub(super) const LINK_ACTIVE: u32 = 1 << (16 + 13);
/// Link Status: current speed and negotiated width (bits 9:0), here in their dword.
pub(super) const LINK_RATE: u32 = 0x3ff << 16;
/// Slot Status: something is in the slot (bit 6), here in its dword.
pub(super) const SLOT_PRESENCE: u32 = 1 << (16 + 6);

/// Bytes of the capability in version 2 (§7.5.3).
const SIZE: usize = 0x3c;

const CAPABILITIES: u16 = 0x02;
const VERSION_2: u16 = 2;
/// Device/port type 4: root port of a root complex (§7.5.3.2).
const ROOT_PORT: u16 = 4 << 4;
const SLOT_IMPLEMENTED: u16 = 1 << 8;

const DEVICE_CAPABILITIES: u16 = 0x04;
/// Payloads up to 256 bytes (bits 2:0) and role-based error reporting, which every function since PCIe 1.1 has (bit 15) (§7.5.3.3).
const DEVICE_CAPABILITIES_VALUE: u32 = 0x8001;
const DEVICE_CONTROL: u16 = 0x08;
/// Relaxed ordering, no snoop and reads of 512 bytes, the values at reset (§7.5.3.4).
const DEVICE_CONTROL_VALUE: u16 = 0x2810;
/// Error reporting, relaxed ordering, payload size, no snoop, read size.
const DEVICE_CONTROL_WRITABLE: u16 = 0x78ff;
/// The four error bits of Device Status (§7.5.3.5).
const DEVICE_STATUS: u16 = 0x0a;
const DEVICE_STATUS_CLEARABLE: u16 = 0x000f;

const LINK_CAPABILITIES: u16 = 0x0c;
/// Reports whether the data link layer is active (bit 20); knows that ASPM is optional, which all do since PCIe 3 (bit 22). Without
/// ASPM: there is no link to save power on (§7.5.3.6).
const LINK_CAPABILITIES_FLAGS: u32 = 1 << 20 | 1 << 22;
/// ASPM, link disable, common clock, extended synch. Retraining (bit 5) reads as zero: it is over at once.
const LINK_CONTROL_WRITABLE: u16 = 0x00d3;
/// Link Status: both ends use the slot's reference clock (bit 12).
const SLOT_CLOCK: u16 = 1 << 12;

/// Slot Capabilities: only the slot's number, bits 31:19. Neither hot-plug nor a power controller, so that firmware reserves nothing
/// and operating systems poll nothing (§7.5.3.9).
const SLOT_CAPABILITIES: u16 = 0x14;
const SLOT_NUMBER_SHIFT: u32 = 19;
const SLOT_NUMBER_MAX: u16 = 0x1fff;

const ROOT_CONTROL: u16 = 0x1c;
/// System errors, PME interrupt, RRS visibility (§7.5.3.12); the last is not offered.
const ROOT_CONTROL_WRITABLE: u16 = 0x000f;

const LINK_CAPABILITIES_2: u16 = 0x2c;
const LINK_CONTROL_2: u16 = 0x30;
/// Target speed, compliance, speed disable, de-emphasis, margin: all stored (§7.5.3.19).
const LINK_CONTROL_2_WRITABLE: u16 = 0xffff;
const LINK_STATUS_2: u16 = 0x32;
/// Equalization at 8 GT/s complete, all three phases (§7.5.3.20).
const EQUALIZED: u16 = 0x001e;

/// Adds the capability. `slot` is the number of the slot below the port, if it is one; `port` the port's number on its root complex.
/// Returns the capability's offset.
pub(super) fn add(space: &mut ConfigSpace, link: Link, slot: Option<u16>, port: u8) -> u16 {
    let at = space.add_capability(spec::CAP_EXPRESS, &[0; SIZE - 2], &[]);
    let implemented = if slot.is_some() { SLOT_IMPLEMENTED } else { 0 };
    space.set(at + CAPABILITIES, &(VERSION_2 | ROOT_PORT | implemented).to_le_bytes());
    space.set(at + DEVICE_CAPABILITIES, &DEVICE_CAPABILITIES_VALUE.to_le_bytes());
    space.set(at + DEVICE_CONTROL, &DEVICE_CONTROL_VALUE.to_le_bytes());
    space.allow(at + DEVICE_CONTROL, &DEVICE_CONTROL_WRITABLE.to_le_bytes());
    space.allow_clear(at + DEVICE_STATUS, &DEVICE_STATUS_CLEARABLE.to_le_bytes());
    if let Some(number) = slot {
        let number = u32::from(number.min(SLOT_NUMBER_MAX)) << SLOT_NUMBER_SHIFT;
        space.set(at + SLOT_CAPABILITIES, &number.to_le_bytes());
        space.set(at + SLOT_CONTROL, &SLOT_PRESENCE.to_le_bytes());
    }
    space.allow(at + ROOT_CONTROL, &ROOT_CONTROL_WRITABLE.to_le_bytes());
    add_link(space, at, link, port);
    at
}

fn add_link(space: &mut ConfigSpace, at: u16, link: Link, port: u8) {
    let speed = link.speed as u16;
    let width = u16::from(link.width & 0x3f);
    let rate = speed | width << 4;
    let capabilities = u32::from(rate) | LINK_CAPABILITIES_FLAGS | u32::from(port) << 24;
    space.set(at + LINK_CAPABILITIES, &capabilities.to_le_bytes());
    space.allow(at + LINK_CONTROL, &LINK_CONTROL_WRITABLE.to_le_bytes());
    let control_and_status = LINK_ACTIVE | u32::from(rate | SLOT_CLOCK) << 16;
    space.set(at + LINK_CONTROL, &control_and_status.to_le_bytes());
    // Supported speeds, bit 1 for 2.5 GT/s and so on (§7.5.3.18).
    let speeds = ((1u32 << speed) - 1) << 1;
    space.set(at + LINK_CAPABILITIES_2, &speeds.to_le_bytes());
    space.set(at + LINK_CONTROL_2, &speed.to_le_bytes());
    space.allow(at + LINK_CONTROL_2, &LINK_CONTROL_2_WRITABLE.to_le_bytes());
    if link.speed >= LinkSpeed::Gt8 {
        space.set(at + LINK_STATUS_2, &EQUALIZED.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{ByteEnables, Identity};

    #[test]
    fn describes_a_root_port_with_a_slot() {
        let mut space = ConfigSpace::new(&Identity::default());
        let at = add(&mut space, Link::default(), Some(3), 2);
        assert_eq!(space.get_u16(at + 2), 0x0142, "version 2, root port, slot");
        assert_eq!(space.read(at + 0x0c), 0x0250_0104, "port 2, x16, 16 GT/s");
        assert_eq!(space.read(at + 0x10), 0x3104_0000);
        assert_eq!(space.read(at + 0x14), 3 << 19, "neither surprise nor hot-plug");
        assert_eq!(space.read(at + 0x18), 1 << 22);
        assert_eq!(space.read(at + 0x2c), 0x1e);
        assert_eq!(space.read(at + 0x30), 0x001e_0004);
    }

    #[test]
    fn retraining_is_over_at_once() {
        let mut space = ConfigSpace::new(&Identity::default());
        let link = Link {
            speed: LinkSpeed::Gt5,
            width: 4,
        };
        let at = add(&mut space, link, None, 0);
        assert_eq!(space.get_u16(at + 2), 0x0042);
        assert_eq!(space.read(at + 0x18), 0, "no slot");
        space.write(at + 0x10, u32::MAX, ByteEnables::ALL);
        assert_eq!(space.read(at + 0x10), 0x3042_00d3);
    }
}
