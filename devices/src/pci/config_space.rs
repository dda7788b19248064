//! The config space of an emulated function: bytes, and masks that say which bits the guest may write.

use super::function::ByteEnables;
use super::spec::{self, COMMAND_IO, COMMAND_MEMORY};
use crate::Space;

/// What an emulated function is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, subclass and programming interface: 0xBBSSPP.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID, type 0 headers only.
    pub subsystem_vendor: u16,
    /// Subsystem ID, type 0 headers only.
    pub subsystem: u16,
    /// Header type with the multifunction bit.
    pub header_type: u8,
    /// Interrupt pin: 0 none, 1 INTA .. 4 INTD.
    pub interrupt_pin: u8,
}

/// The kinds of base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetch: bool,
    },
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Reads have no side effects.
        prefetch: bool,
    },
}

/// A base address register: its kind and its size in bytes, a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Kind.
    pub kind: BarKind,
    /// Bytes, a power of two of at least 4 (I/O) or 16 (memory).
    pub size: u64,
}

/// A BAR that decodes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodedBar {
    /// 0 to 5.
    pub index: usize,
    /// Ports or memory.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// Config space with write masks.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Bits the guest may write.
    writable: Vec<u8>,
    /// Bits the guest clears by writing one.
    clearable: Vec<u8>,
    /// `bytes` at power-on.
    power_on: Vec<u8>,
    bars: [Option<Bar>; 6],
    last_capability: u16,
    next_capability: u16,
    last_extended: Option<u16>,
    next_extended: u16,
}

impl ConfigSpace {
    /// A config space of 4096 bytes with the header of `identity`, and no BARs or capabilities.
    pub fn new(identity: &Identity) -> Self {
        let size = spec::EXTENDED_CONFIG_SIZE;
        let mut space = Self {
            bytes: vec![0; size],
            writable: vec![0; size],
            clearable: vec![0; size],
            power_on: Vec::new(),
            bars: [None; 6],
            last_capability: spec::CAPABILITIES,
            next_capability: 0x40,
            last_extended: None,
            next_extended: spec::EXTENDED_CAPABILITIES,
        };
        space.set(spec::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.set(spec::DEVICE_ID, &identity.device.to_le_bytes());
        space.set(spec::REVISION, &[identity.revision]);
        space.set(spec::CLASS, &identity.class.to_le_bytes()[..3]);
        space.set(spec::HEADER_TYPE, &[identity.header_type]);
        space.set(spec::INTERRUPT_PIN, &[identity.interrupt_pin]);
        if identity.header_type & !spec::HEADER_MULTIFUNCTION == 0 {
            space.set(spec::SUBSYSTEM_VENDOR_ID, &identity.subsystem_vendor.to_le_bytes());
            space.set(spec::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        }
        // IO, memory, bus master, parity, SERR# and INTx disable; the rest of COMMAND is hard-wired in PCIe (§7.5.1.1.3).
        space.allow(spec::COMMAND, &0x0547u16.to_le_bytes());
        space.allow(spec::CACHE_LINE_SIZE, &[0xff]);
        space.allow(spec::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Gives BAR `index` its kind and size. A 64-bit BAR takes `index + 1` too. Ignored where it does not fit.
    pub fn set_bar(&mut self, index: usize, bar: Bar) {
        let Some(slot) = self.bars.get_mut(index) else { return };
        *slot = Some(bar);
        let register = spec::BAR0 + 4 * index as u16;
        let prefetch = |flag: bool| if flag { spec::BAR_PREFETCH } else { 0 };
        let (flags, low_bits) = match bar.kind {
            BarKind::Io => (spec::BAR_IO, 0x3),
            BarKind::Memory32 { prefetch: flag } => (prefetch(flag), 0xf),
            BarKind::Memory64 { prefetch: flag } => (spec::BAR_MEMORY_64 | prefetch(flag), 0xf),
        };
        let mask = !(bar.size.wrapping_sub(1));
        self.set(register, &flags.to_le_bytes());
        self.allow(register, &(mask as u32 & !low_bits).to_le_bytes());
        if matches!(bar.kind, BarKind::Memory64 { .. }) {
            self.allow(register + 4, &((mask >> 32) as u32).to_le_bytes());
        }
    }

    /// Appends a capability of which `body` is everything after the ID and next bytes; `writable` masks `body`. Returns its offset.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let offset = self.next_capability;
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        let link = if self.last_capability == spec::CAPABILITIES {
            spec::CAPABILITIES
        } else {
            self.last_capability + 1
        };
        self.set(link, &[offset as u8]);
        let status = self.get_u16(spec::STATUS) | spec::STATUS_CAPABILITIES;
        self.set(spec::STATUS, &status.to_le_bytes());
        self.last_capability = offset;
        self.next_capability = (offset + 2 + body.len() as u16).next_multiple_of(4);
        offset
    }

    /// Appends an extended capability of which `body` is everything after the 4-byte header; `writable` masks `body`.
    pub fn add_extended_capability(&mut self, id: u16, version: u8, body: &[u8], writable: &[u8]) -> u16 {
        let offset = self.next_extended;
        self.set(offset, &(u32::from(id) | u32::from(version & 0xf) << 16).to_le_bytes());
        self.set(offset + 4, body);
        self.allow(offset + 4, writable);
        if let Some(last) = self.last_extended {
            let header = self.read(last) & 0x000f_ffff;
            self.set(last, &(header | u32::from(offset) << 20).to_le_bytes());
        }
        self.last_extended = Some(offset);
        self.next_extended = (offset + 4 + body.len() as u16).next_multiple_of(4);
        offset
    }

    /// Lets the guest write the bits of `mask` from `offset` on.
    pub fn allow(&mut self, offset: u16, mask: &[u8]) {
        copy_at(&mut self.writable, offset, mask);
    }

    /// Lets the guest clear the bits of `mask` from `offset` on by writing ones.
    pub fn allow_clear(&mut self, offset: u16, mask: &[u8]) {
        copy_at(&mut self.clearable, offset, mask);
    }

    /// Sets bytes from the device's side, whatever the masks say.
    pub fn set(&mut self, offset: u16, bytes: &[u8]) {
        copy_at(&mut self.bytes, offset, bytes);
    }

    /// The state at power-on is what the space holds now; called once, when it is complete.
    pub fn seal(&mut self) {
        self.power_on = self.bytes.clone();
    }

    /// Back to the state at power-on.
    pub fn reset(&mut self) {
        if !self.power_on.is_empty() {
            self.bytes.copy_from_slice(&self.power_on);
        }
    }

    /// The dword at `register`; all-ones beyond the end.
    pub fn read(&self, register: u16) -> u32 {
        let at = usize::from(register & !3);
        self.bytes
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(u32::MAX, u32::from_le_bytes)
    }

    /// The 16 bits at `offset`; all-ones beyond the end.
    pub fn get_u16(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        self.bytes
            .get(at..at + 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(u16::MAX, u16::from_le_bytes)
    }

    /// The byte at `offset`; all-ones beyond the end.
    pub fn get_u8(&self, offset: u16) -> u8 {
        self.bytes.get(usize::from(offset)).copied().unwrap_or(0xff)
    }

    /// A guest's write. Returns whether what the function decodes may have changed (a BAR while its decode is on, or COMMAND).
    pub fn write(&mut self, register: u16, value: u32, enables: ByteEnables) -> bool {
        let before: [Option<DecodedBar>; 6] = self.decoded();
        let at = usize::from(register & !3);
        for (index, new) in value.to_le_bytes().into_iter().enumerate() {
            let (Some(byte), Some(writable), Some(clearable)) = (
                self.bytes.get_mut(at + index),
                self.writable.get(at + index),
                self.clearable.get(at + index),
            ) else {
                return false;
            };
            if enables.has(index) {
                *byte = ((*byte & !writable) | (new & writable)) & !(new & clearable);
            }
        }
        before != self.decoded()
    }

    /// The BARs that decode now.
    pub fn decoded_bars(&self) -> impl Iterator<Item = DecodedBar> {
        self.decoded().into_iter().flatten()
    }

    /// The BARs by index, decoding or not.
    pub fn bars(&self) -> &[Option<Bar>; 6] {
        &self.bars
    }

    fn decoded(&self) -> [Option<DecodedBar>; 6] {
        let command = self.get_u16(spec::COMMAND);
        std::array::from_fn(|index| {
            let bar = self.bars.get(index).copied().flatten()?;
            let register = spec::BAR0 + 4 * index as u16;
            let low = u64::from(self.read(register));
            let (space, enabled, base) = match bar.kind {
                BarKind::Io => (Space::Port, command & COMMAND_IO != 0, low & 0xfffc),
                BarKind::Memory32 { .. } => (Space::Memory, command & COMMAND_MEMORY != 0, low & !0xf),
                BarKind::Memory64 { .. } => (
                    Space::Memory,
                    command & COMMAND_MEMORY != 0,
                    u64::from(self.read(register + 4)) << 32 | low & !0xf,
                ),
            };
            // Address 0 is what an unassigned BAR holds; an end beyond the address space is what sizing leaves there.
            let fits = base != 0 && base.checked_add(bar.size).is_some();
            (enabled && fits).then_some(DecodedBar {
                index,
                space,
                base,
                size: bar.size,
            })
        })
    }
}

fn copy_at(target: &mut [u8], offset: u16, bytes: &[u8]) {
    let at = usize::from(offset);
    if let Some(target) = target.get_mut(at..at + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(&Identity {
            vendor: 0x1234,
            device: 0x5678,
            class: 0x01_00_00,
            ..Identity::default()
        });
        space.set_bar(
            0,
            Bar {
                kind: BarKind::Memory64 { prefetch: true },
                size: 1 << 33,
            },
        );
        space.set_bar(
            2,
            Bar {
                kind: BarKind::Io,
                size: 32,
            },
        );
        space.seal();
        space
    }

    #[test]
    fn sizing_reads_back_the_mask_and_the_flags() {
        let mut space = space();
        for register in [0x10, 0x14, 0x18] {
            space.write(register, u32::MAX, ByteEnables::ALL);
        }
        assert_eq!(space.read(0x10), 0xc);
        assert_eq!(space.read(0x14), 0xffff_fffe);
        assert_eq!(space.read(0x18), 0xffff_ffe1);
        assert_eq!(space.read(0x00), 0x5678_1234, "identity is read-only");
    }

    #[test]
    fn decodes_only_while_enabled() {
        let mut space = space();
        assert!(!space.write(0x14, 0x8, ByteEnables::ALL), "decode is off");
        assert!(space.write(0x04, 0x2, ByteEnables::of(0, 2)));
        let bars: Vec<_> = space.decoded_bars().collect();
        assert_eq!(
            bars,
            [DecodedBar {
                index: 0,
                space: Space::Memory,
                base: 0x8_0000_0000,
                size: 1 << 33
            }]
        );
        assert!(
            space.write(0x17, 0, ByteEnables::ALL),
            "moved to address 0: not decoded"
        );
        assert_eq!(space.decoded_bars().count(), 0);
        space.reset();
        assert_eq!(space.read(0x04) & 0xffff, 0);
    }

    #[test]
    fn capabilities_form_a_chain() {
        let mut space = space();
        assert_eq!(space.add_capability(spec::CAP_PM, &[3, 0, 0, 0, 0, 0], &[]), 0x40);
        assert_eq!(space.add_capability(spec::CAP_MSIX, &[0; 10], &[0, 0xc0]), 0x48);
        assert_eq!(space.get_u8(spec::CAPABILITIES), 0x40);
        assert_eq!(space.get_u8(0x41), 0x48);
        assert_eq!(
            space.get_u16(spec::STATUS) & spec::STATUS_CAPABILITIES,
            spec::STATUS_CAPABILITIES
        );
        space.write(0x48, u32::MAX, ByteEnables::ALL);
        assert_eq!(space.read(0x48), 0xc000_0011);
    }

    #[test]
    fn bytes_that_are_not_enabled_stay() {
        let mut space = space();
        space.write(0x3c, 0xffff_ff0b, ByteEnables::of(1, 3));
        assert_eq!(space.get_u8(spec::INTERRUPT_LINE), 0);
        space.write(0x3c, 0xffff_ff0b, ByteEnables::of(0, 1));
        assert_eq!(space.get_u8(spec::INTERRUPT_LINE), 0x0b);
    }
}
