//! The memory map: where guest RAM lies and what is reserved, for OVMF (`etc/e820`) and for a directly booted kernel.

use crate::AddressRange;

/// Where RAM continues above the 32-bit hole.
pub const HIGH_RAM_BASE: u64 = 1 << 32;

/// The most RAM put below the 32-bit hole, see [`RamSplit::new`].
pub const LOW_RAM_MAX: u64 = 2 << 30;

/// Below this OVMF is not worth starting: its PEI heap, page tables and the unpacked DXE volume fill it.
pub const OVMF_RAM_MIN: u64 = 128 << 20;

/// The page of `KVM_SET_IDENTITY_MAP_ADDR`. KVM's own default lies inside the flash.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;

/// The three pages of `KVM_SET_TSS_ADDR`, right after the identity map.
pub const KVM_TSS: u64 = 0xfeff_d000;

/// Both of KVM's special areas: never RAM, never MMIO.
pub const KVM_PAGES: AddressRange = AddressRange::new(KVM_IDENTITY_MAP, 0x4000);

/// Start of the hole below 1 MiB: video memory, option ROMs, the BIOS segments.
const LEGACY_HOLE: u64 = 0xa_0000;
/// End of the hole below 1 MiB.
const LEGACY_HOLE_END: u64 = 0x10_0000;

/// What an entry describes (ACPI 6.5 §15.1, "address range types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Memory the guest may use.
    Ram = 1,
    /// Addresses the guest must leave alone.
    Reserved = 2,
}

/// One range of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// Guest physical addresses covered.
    pub range: AddressRange,
    /// What is there.
    pub kind: E820Kind,
}

impl E820Entry {
    const fn ram(base: u64, size: u64) -> Self {
        Self {
            range: AddressRange::new(base, size),
            kind: E820Kind::Ram,
        }
    }

    const fn reserved(range: AddressRange) -> Self {
        Self {
            range,
            kind: E820Kind::Reserved,
        }
    }
}

/// Guest RAM cut in two by the 32-bit MMIO hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamSplit {
    /// Bytes of RAM from address 0.
    pub low: u64,
    /// Bytes of RAM from 4 GiB; 0 when all RAM is low.
    pub high: u64,
}

impl RamSplit {
    /// Splits `ram` bytes: at most 2 GiB stay low.
    ///
    /// OVMF opens its 32-bit PCI window at `4 GiB − 2^⌊log2(4 GiB − low)⌋` (edk2 `OvmfPkg/Library/PlatformInitLib`,
    /// Uc32Base), so one byte of low RAM beyond 2 GiB halves that window twice over: 1.5 GiB up to the ECAM window at
    /// 0xE0000000 becomes 512 MiB. Non-prefetchable BARs of assigned devices behind root ports live nowhere else,
    /// hence QEMU's exception (all RAM low up to 2.75 GiB) is not followed. The limit suits older OVMF with ECAM at
    /// 0xB0000000 (2.75 GiB) as well.
    #[must_use]
    pub const fn new(ram: u64) -> Self {
        if ram <= LOW_RAM_MAX {
            Self { low: ram, high: 0 }
        } else {
            Self {
                low: LOW_RAM_MAX,
                high: ram - LOW_RAM_MAX,
            }
        }
    }

    /// RAM below 4 GiB.
    #[must_use]
    pub const fn low_range(&self) -> AddressRange {
        AddressRange::new(0, self.low)
    }

    /// RAM above 4 GiB, if there is any.
    #[must_use]
    pub const fn high_range(&self) -> Option<AddressRange> {
        if self.high == 0 {
            None
        } else {
            Some(AddressRange::new(HIGH_RAM_BASE, self.high))
        }
    }

    /// The first address above all RAM and above the 32-bit hole.
    #[must_use]
    pub const fn top(&self) -> u64 {
        HIGH_RAM_BASE + self.high
    }

    /// The 32-bit addresses left for PCI below `ecam`: what OVMF with its ECAM window above them (0xE0000000) uses.
    #[must_use]
    pub fn mmio32_below(&self, ecam: u64) -> AddressRange {
        let hole = (HIGH_RAM_BASE - self.low.min(LOW_RAM_MAX)).max(1);
        let uc32_base = HIGH_RAM_BASE - (1 << hole.ilog2().min(31));
        AddressRange::new(uc32_base, ecam.saturating_sub(uc32_base))
    }
}

/// The map for OVMF.
///
/// Low RAM is one entry from address 0 and comes first: OVMF before 202605 takes the highest end below 4 GiB, later
/// ones add up what is contiguous from 0 in file order, so a split at 640 KiB would shrink the machine. OVMF carves out
/// 0xA0000–0xFFFFF by itself.
#[must_use]
pub fn for_ovmf(ram: &RamSplit) -> Vec<E820Entry> {
    let mut map = vec![E820Entry::ram(0, ram.low)];
    map.extend(ram.high_range().map(|range| E820Entry::ram(range.base, range.size)));
    map.push(E820Entry::reserved(KVM_PAGES));
    map
}

/// The map for a kernel started without firmware, in ascending order.
///
/// Unlike OVMF's it shows the hole below 1 MiB, where the ACPI tables go. `ecam` is reserved: Linux uses MCFG only if
/// the map (or a motherboard device) says so.
#[must_use]
pub fn for_kernel(ram: &RamSplit, ecam: Option<AddressRange>) -> Vec<E820Entry> {
    let mut map = vec![
        E820Entry::ram(0, ram.low.min(LEGACY_HOLE)),
        E820Entry::reserved(AddressRange::new(LEGACY_HOLE, LEGACY_HOLE_END - LEGACY_HOLE)),
    ];
    if ram.low > LEGACY_HOLE_END {
        map.push(E820Entry::ram(LEGACY_HOLE_END, ram.low - LEGACY_HOLE_END));
    }
    map.extend(ecam.map(E820Entry::reserved));
    map.push(E820Entry::reserved(KVM_PAGES));
    map.extend(ram.high_range().map(|range| E820Entry::ram(range.base, range.size)));
    map.sort_by_key(|entry| entry.range);
    map
}

/// The contents of fw_cfg's `etc/e820`: packed `{u64 base, u64 length, u32 type}`, little-endian.
#[must_use]
pub fn to_bytes(map: &[E820Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(map.len() * 20);
    for entry in map {
        bytes.extend_from_slice(&entry.range.base.to_le_bytes());
        bytes.extend_from_slice(&entry.range.size.to_le_bytes());
        bytes.extend_from_slice(&(entry.kind as u32).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// OVMF 202502's reading: the highest end below 4 GiB of any RAM entry.
    fn low_memory_202502(bytes: &[u8]) -> u64 {
        entries(bytes)
            .filter(|(base, size, kind)| *kind == 1 && base + size <= 1 << 32)
            .map(|(base, size, _)| base + size)
            .max()
            .unwrap()
    }

    /// OVMF 202605's reading: entries chained from 0 in file order.
    fn low_memory_202605(bytes: &[u8]) -> u64 {
        entries(bytes)
            .filter(|entry| entry.2 == 1)
            .fold(0, |end, (base, size, _)| if base == end { end + size } else { end })
    }

    fn entries(bytes: &[u8]) -> impl Iterator<Item = (u64, u64, u32)> {
        assert_eq!(bytes.len() % 20, 0);
        bytes.chunks(20).map(|e| {
            (
                u64::from_le_bytes(e[0..8].try_into().unwrap()),
                u64::from_le_bytes(e[8..16].try_into().unwrap()),
                u32::from_le_bytes(e[16..20].try_into().unwrap()),
            )
        })
    }

    #[test]
    fn both_readings_of_low_memory_agree() {
        for ram in [
            128 << 20,
            GIB,
            2 * GIB,
            2 * GIB + 4096,
            5 * GIB / 2,
            3 * GIB,
            10 * GIB,
            1024 * GIB,
        ] {
            let split = RamSplit::new(ram);
            assert_eq!(split.low + split.high, ram);
            let bytes = to_bytes(&for_ovmf(&split));
            assert_eq!(low_memory_202502(&bytes), split.low, "{ram:#x}");
            assert_eq!(low_memory_202605(&bytes), split.low, "{ram:#x}");
            let total: u64 = entries(&bytes).filter(|e| e.2 == 1).map(|e| e.1).sum();
            assert_eq!(total, ram);
        }
    }

    #[test]
    fn the_32_bit_window_is_a_gib_and_a_half_whatever_the_ram() {
        for ram in [512 << 20, 2 * GIB, 5 * GIB / 2, 10 * GIB] {
            let window = RamSplit::new(ram).mmio32_below(0xe000_0000);
            assert_eq!(window, AddressRange::new(0x8000_0000, 0x6000_0000), "{ram:#x}");
        }
    }

    #[test]
    fn the_kernel_map_is_sorted_without_overlap_and_hides_the_legacy_hole() {
        let ecam = AddressRange::new(0xe000_0000, 0x1000_0000);
        let map = for_kernel(&RamSplit::new(10 * GIB), Some(ecam));
        for pair in map.windows(2) {
            assert!(pair[0].range.end().unwrap() <= pair[1].range.base, "{pair:?}");
        }
        let ram: u64 = map
            .iter()
            .filter(|e| e.kind == E820Kind::Ram)
            .map(|e| e.range.size)
            .sum();
        assert_eq!(ram, 10 * GIB - 0x6_0000);
        assert!(map.iter().any(|e| e.range == ecam && e.kind == E820Kind::Reserved));
        assert!(map.iter().any(|e| e.range == KVM_PAGES && e.kind == E820Kind::Reserved));
    }
}
