//! Address ranges to devices. Readers never lock: a lookup reads one immutable table, which is replaced whole when the layout changes.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// What a device wants done after a write. The machine carries it out once the device's lock is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub enum Effect {
    /// Nothing beyond the device's own state.
    #[default]
    None,
    /// The device now decodes other addresses: the machine asks every device for its regions again.
    Relayout,
    /// The platform is to be reset.
    Reset,
    /// The platform is to be powered off.
    PowerOff,
}

impl Effect {
    /// The more drastic of two effects.
    pub fn or(self, other: Effect) -> Effect {
        let rank = |effect: Effect| match effect {
            Effect::None => 0,
            Effect::Relayout => 1,
            Effect::Reset => 2,
            Effect::PowerOff => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// A device on the port or the memory bus.
///
/// Both calls come from any vCPU at any time; a device keeps its own small lock. `data` is 1, 2, 4 or 8 bytes long and never crosses
/// the end of the region, but a device must answer any length without panicking.
pub trait BusDevice: Send + Sync + fmt::Debug {
    /// Fills `data` with what the guest reads at `offset` bytes from the region's start.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes what the guest wrote at `offset` bytes from the region's start.
    fn write(&self, offset: u64, data: &[u8]) -> Effect;
}

/// One range of a bus table: `size` bytes at `base`, answered by `device`, to which `base` is `offset`.
#[derive(Debug, Clone)]
pub struct BusEntry {
    /// First address, in bytes.
    pub base: u64,
    /// Length in bytes, at least one.
    pub size: u64,
    /// What the device sees as the offset of `base`.
    pub offset: u64,
    /// Who answers.
    pub device: Arc<dyn BusDevice>,
}

/// An address space: ports or memory.
#[derive(Debug, Default)]
pub struct Bus {
    /// Sorted by base, without overlaps.
    table: ArcSwap<Vec<BusEntry>>,
}

impl Bus {
    /// An empty bus, on which every read floats high.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the table. An entry that overlaps an earlier one of `entries` is left out: the earlier claim stands.
    pub fn replace(&self, entries: Vec<BusEntry>) {
        let mut table: Vec<BusEntry> = Vec::with_capacity(entries.len());
        for entry in entries {
            let at = table.partition_point(|other| other.base < entry.base);
            let end = entry.base.saturating_add(entry.size);
            let before_free = at == 0
                || table
                    .get(at - 1)
                    .is_none_or(|other| other.base + other.size <= entry.base);
            let after_free = table.get(at).is_none_or(|other| end <= other.base);
            if entry.size > 0 && before_free && after_free {
                table.insert(at, entry);
            }
        }
        self.table.store(Arc::new(table));
    }

    /// Reads; what nobody claims floats high (all-ones), as on real hardware. OVMF depends on it (zeros at ports 0xCD8.. stop it).
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let table = self.table.load();
        match find(&table, address, data.len()) {
            Some((entry, offset)) => entry.device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes; what nobody claims is dropped.
    pub fn write(&self, address: u64, data: &[u8]) -> Effect {
        let table = self.table.load();
        match find(&table, address, data.len()) {
            Some((entry, offset)) => entry.device.write(offset, data),
            None => Effect::None,
        }
    }
}

fn find(table: &[BusEntry], address: u64, len: usize) -> Option<(&BusEntry, u64)> {
    let after = table.partition_point(|entry| entry.base <= address);
    let entry = table.get(after.checked_sub(1)?)?;
    let within = address - entry.base;
    (within.checked_add(len as u64)? <= entry.size).then(|| (entry, entry.offset.wrapping_add(within)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Echo(u8);
    impl BusDevice for Echo {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }
        fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
            Effect::Reset
        }
    }

    fn entry(base: u64, size: u64, tag: u8) -> BusEntry {
        BusEntry {
            base,
            size,
            offset: 0,
            device: Arc::new(Echo(tag)),
        }
    }

    fn byte(bus: &Bus, address: u64) -> u8 {
        let mut data = [0];
        bus.read(address, &mut data);
        data[0]
    }

    #[test]
    fn finds_the_device_and_its_offset() {
        let bus = Bus::new();
        bus.replace(vec![entry(0x20, 2, 0x40), entry(0x10, 4, 0x10)]);
        assert_eq!(byte(&bus, 0x13), 0x13);
        assert_eq!(byte(&bus, 0x21), 0x41);
        assert_eq!(bus.write(0x10, &[0]), Effect::Reset);
    }

    #[test]
    fn what_nobody_claims_floats_high() {
        let bus = Bus::new();
        bus.replace(vec![entry(0x10, 4, 0)]);
        assert_eq!(byte(&bus, 0x0f), 0xff);
        assert_eq!(byte(&bus, 0x14), 0xff);
        assert_eq!(bus.write(0x14, &[1]), Effect::None);
        let mut straddling = [0; 4];
        bus.read(0x12, &mut straddling);
        assert_eq!(straddling, [0xff; 4], "an access that leaves the region is nobody's");
    }

    #[test]
    fn the_earlier_claim_stands() {
        let bus = Bus::new();
        bus.replace(vec![entry(0x10, 4, 0x50), entry(0x12, 8, 0x70), entry(0x0e, 3, 0x60)]);
        assert_eq!(byte(&bus, 0x12), 0x52);
        assert_eq!(byte(&bus, 0x15), 0xff);
        assert_eq!(byte(&bus, 0x0e), 0xff);
    }
}
