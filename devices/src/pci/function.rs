//! What every PCI function is to the bus above it, emulated or assigned.

use std::fmt;

use crate::{Effect, IoEvent, Region};

/// Which bytes of a dword a config write carries, bit 0 the lowest (PCIe 6.0 §2.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteEnables(u8);

impl ByteEnables {
    /// All four bytes.
    pub const ALL: ByteEnables = ByteEnables(0xf);

    /// The bytes of an access of `len` bytes at `offset` within its dword; what would leave the dword is cut off.
    pub fn of(offset: usize, len: usize) -> Self {
        let mut bits = 0;
        for byte in offset..offset.saturating_add(len).min(4) {
            bits |= 1 << byte;
        }
        ByteEnables(bits)
    }

    /// Whether byte `index` (0..4) is carried.
    pub fn has(self, index: usize) -> bool {
        index < 4 && self.0 & (1 << index) != 0
    }

    /// A mask with 0xff for each byte carried.
    pub fn mask(self) -> u32 {
        (0..4)
            .filter(|index| self.has(*index))
            .fold(0, |mask, index| mask | 0xff << (8 * index))
    }

    /// `old` with the carried bytes of `new`.
    pub fn merge(self, old: u32, new: u32) -> u32 {
        (old & !self.mask()) | (new & self.mask())
    }
}

/// A function on a PCI bus.
///
/// Config accesses are whole dwords with byte enables. A guest may write anything at any time: nothing is refused, and what cannot be
/// decoded is simply not among [`PciFunction::regions`].
pub trait PciFunction: Send + Sync + fmt::Debug {
    /// The dword at `register`, a multiple of 4 below 4096.
    fn config_read(&self, register: u16) -> u32;

    /// Writes the enabled bytes of the dword at `register`.
    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect;

    /// Appends what the function decodes now: BARs whose decode is enabled in COMMAND, at the addresses the guest gave them.
    fn regions(&self, regions: &mut Vec<Region>);

    /// Appends the writes that signal events in the kernel now.
    fn io_events(&self, _events: &mut Vec<IoEvent>) {}

    /// Back to the state at power-on.
    fn reset(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_enables_follow_the_access() {
        assert_eq!(ByteEnables::of(0, 4), ByteEnables::ALL);
        assert_eq!(ByteEnables::of(2, 2).mask(), 0xffff_0000);
        assert_eq!(ByteEnables::of(3, 4).mask(), 0xff00_0000);
        assert_eq!(ByteEnables::of(1, 1).merge(0x1122_3344, 0xaabb_ccdd), 0x1122_cc44);
        assert_eq!(ByteEnables::of(4, 1).mask(), 0);
    }
}
