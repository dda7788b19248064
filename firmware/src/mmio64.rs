//! The 64-bit PCI window: how large it must be, and where OVMF will put it.
//!
//! The size is asked for through fw_cfg; the place is OVMF's choice and changes from version to version. So the host
//! bridge's `_CRS` is made from what the firmware programmed, and the rules here only tell how far to extend it.

use crate::{AddressRange, E820Entry};

/// What OVMF opens when nobody asks (edk2 PcdPciMmio64Size).
pub const DEFAULT_SIZE: u64 = 32 << 30;

/// With four-level paging OVMF uses no more address bits than this.
const FOUR_LEVEL_BITS: u8 = 46;

/// Granularity of a bridge's memory windows (PCIe 6.0 §7.5.1.3.9).
const BRIDGE_UNIT: u64 = 1 << 20;

/// OVMF aligns RAM's end to this before placing the window.
const GIB: u64 = 1 << 30;

/// The window cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mmio64Error {
    /// It does not fit the address space.
    #[error(
        "a 64-bit PCI window of {size:#x} bytes above RAM (which ends at {ram_top:#x}) does not fit {bits} physical \
         address bits: give the guest less RAM, shrink the devices' BARs (Resizable BAR) or allow more address bits"
    )]
    DoesNotFit {
        /// Bytes wanted.
        size: u64,
        /// End of RAM.
        ram_top: u64,
        /// Guest physical address bits.
        bits: u8,
    },
    /// A BAR is no power of two, or their sum overflows.
    #[error("BARs that cannot be: {0:#x} bytes, which is not a power of two or makes the sum too large")]
    BadBar(u64),
}

/// The size to ask for.
///
/// `ports` lists the sizes of the 64-bit prefetchable BARs behind each root port (a list for the root bus as well; non-
/// prefetchable BARs behind a port live below 4 GiB). A port's window is aligned to its largest BAR, so its length is
/// rounded up to that; the sum becomes a power of two, as OVMF aligns the window to its size. Never less than
/// [`DEFAULT_SIZE`], unless only the smaller one fits the address space.
///
/// # Errors
/// What is needed does not fit above `ram_top` in `bits` address bits.
pub fn window_size(ports: &[Vec<u64>], ram_top: u64, bits: u8) -> Result<u64, Mmio64Error> {
    let mut needed = 0u64;
    for port in ports {
        let mut length = 0u64;
        for bar in port {
            let sum = length.checked_add(*bar).filter(|_| bar.is_power_of_two());
            length = sum.ok_or(Mmio64Error::BadBar(*bar))?;
        }
        let align = port.iter().copied().max().unwrap_or(0).max(BRIDGE_UNIT);
        let total = length
            .checked_next_multiple_of(align)
            .and_then(|length| needed.checked_add(length));
        needed = total.ok_or(Mmio64Error::BadBar(length))?;
    }
    let needed = needed
        .max(GIB)
        .checked_next_power_of_two()
        .ok_or(Mmio64Error::BadBar(needed))?;
    let fits = |size: &u64| {
        classic(*size, ram_top)
            .and_then(|w| w.end())
            .is_some_and(|end| end <= limit(bits))
    };
    let wanted = [needed.max(DEFAULT_SIZE), needed];
    wanted.into_iter().find(fits).ok_or(Mmio64Error::DoesNotFit {
        size: needed,
        ram_top,
        bits,
    })
}

/// First address beyond what OVMF uses with `bits` physical address bits.
fn limit(bits: u8) -> u64 {
    1 << bits.clamp(32, FOUR_LEVEL_BITS)
}

/// The window right above RAM, aligned to its size: edk2 from 202505 on and Debian 13, whenever a size was asked for.
/// `None` where that leaves the 64-bit space.
#[must_use]
pub fn classic(size: u64, ram_top: u64) -> Option<AddressRange> {
    let base = ram_top.checked_next_multiple_of(GIB)?;
    let base = base.checked_next_multiple_of(size.checked_next_power_of_two()?)?;
    base.checked_add(size)?;
    Some(AddressRange::new(base, size))
}

/// The window older versions open when `bits` is wide enough: the top `1 / 2^shift` of the address space (`shift` 3; 2
/// from August 2026 on), moved down below whatever the memory map has there. The classic one where that is not larger.
///
/// edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`, PlatformDynamicMmioWindow.
#[must_use]
pub fn dynamic(size: u64, ram_top: u64, bits: u8, shift: u8, map: &[E820Entry]) -> Option<AddressRange> {
    let classic = classic(size, ram_top)?;
    let top = limit(bits);
    let fraction = top.checked_shr(shift.into())?;
    let room = classic.base.checked_add(fraction).is_some_and(|end| end < top);
    if fraction <= size || !room {
        return Some(classic);
    }
    let mut window = AddressRange::new(top - fraction, fraction);
    while let Some(hit) = map.iter().find(|entry| entry.range.overlaps(&window)) {
        window.base = hit.range.base.checked_sub(fraction)?;
    }
    Some(window)
}

/// The window to publish, given the BARs and bridge windows the firmware placed (`seen`, those below 4 GiB are ignored):
/// the first of `predicted` that holds them all, else their extent rounded out to GiB. `None` when nothing lies there
/// and nothing was predicted.
#[must_use]
pub fn published(seen: &[AddressRange], predicted: &[AddressRange], ram_top: u64) -> Option<AddressRange> {
    let high = || seen.iter().filter(|range| range.base >= 1 << 32 && range.size != 0);
    let (Some(first), Some(end)) = (high().map(|r| r.base).min(), high().filter_map(AddressRange::end).max()) else {
        return predicted.first().copied();
    };
    let holds = |window: &&AddressRange| window.base <= first && window.end().is_some_and(|limit| end <= limit);
    if let Some(window) = predicted.iter().find(holds) {
        return Some(*window);
    }
    // Rounded down it must not reach into RAM.
    let base = (first & !(GIB - 1)).max(ram_top.min(first));
    let end = end.checked_next_multiple_of(GIB).unwrap_or(end);
    Some(AddressRange::new(base, end - base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RamSplit, e820};

    const TIB: u64 = 1 << 40;

    #[test]
    fn sizes_are_rounded_port_by_port() {
        let top = 12 * GIB;
        assert_eq!(window_size(&[], top, 39), Ok(DEFAULT_SIZE));
        assert_eq!(window_size(&[vec![256 << 20, 32 << 20]], top, 39), Ok(DEFAULT_SIZE));
        // 32 GiB and 32 MiB behind one port: its window is aligned to 32 GiB.
        assert_eq!(window_size(&[vec![32 * GIB, 32 << 20]], top, 46), Ok(64 * GIB));
        assert_eq!(
            window_size(&[vec![16 * GIB, 32 << 20], vec![16 * GIB]], top, 46),
            Ok(64 * GIB)
        );
        assert_eq!(window_size(&[vec![3]], top, 46), Err(Mmio64Error::BadBar(3)));
        assert!(matches!(
            window_size(&[vec![1 << 63, 1 << 63]], top, 46),
            Err(Mmio64Error::BadBar(_))
        ));
    }

    #[test]
    fn narrow_address_spaces_get_a_smaller_window_or_a_refusal() {
        // 36 bits: 64 GiB. 12 GiB of RAM leave the upper half, 40 GiB do not.
        assert_eq!(window_size(&[], 12 * GIB, 36), Ok(32 * GIB));
        assert_eq!(window_size(&[vec![256 << 20]], 40 * GIB, 36), Ok(GIB));
        assert!(matches!(
            window_size(&[vec![32 * GIB]], 40 * GIB, 36),
            Err(Mmio64Error::DoesNotFit { bits: 36, .. })
        ));
    }

    #[test]
    fn the_classic_window_is_above_ram_and_naturally_aligned() {
        assert_eq!(classic(32 * GIB, 12 * GIB), Some(AddressRange::new(32 * GIB, 32 * GIB)));
        assert_eq!(
            classic(64 * GIB, 65 * GIB),
            Some(AddressRange::new(128 * GIB, 64 * GIB))
        );
        assert_eq!(classic(1 << 63, 1 << 63), None);
    }

    #[test]
    fn the_dynamic_window_has_the_known_places() {
        let split = RamSplit::new(10 * GIB);
        let map = e820::for_ovmf(&split);
        let window = |bits| dynamic(DEFAULT_SIZE, split.top(), bits, 3, &map).unwrap();
        // 36 bits: an eighth is 8 GiB, less than asked for.
        assert_eq!(window(36), AddressRange::new(32 * GIB, 32 * GIB));
        assert_eq!(window(39), AddressRange::new(0x70_0000_0000, 64 * GIB));
        assert_eq!(window(40), AddressRange::new(0xe0_0000_0000, 128 * GIB));
        assert_eq!(window(46), AddressRange::new(0x3800_0000_0000, 8 * TIB));
        assert_eq!(window(52), window(46));
        let reserved = E820Entry {
            range: AddressRange::new(0xfd_0000_0000, 12 * GIB),
            kind: crate::E820Kind::Reserved,
        };
        let moved = dynamic(DEFAULT_SIZE, split.top(), 40, 3, &[reserved]).unwrap();
        assert_eq!(moved.end(), Some(0xfd_0000_0000));
    }

    #[test]
    fn what_the_firmware_did_beats_the_prediction() {
        let predicted = [
            AddressRange::new(32 * GIB, 32 * GIB),
            AddressRange::new(0x70_0000_0000, 64 * GIB),
        ];
        let low = AddressRange::new(0x8000_0000, 0x1000);
        let bar = |base| [low, AddressRange::new(base, 0x1000_0000)];
        assert_eq!(published(&bar(40 * GIB), &predicted, 12 * GIB), Some(predicted[0]));
        assert_eq!(
            published(&bar(0x70_0000_0000), &predicted, 12 * GIB),
            Some(predicted[1])
        );
        let own = published(&bar(0x50_1000_0000), &predicted, 12 * GIB);
        assert_eq!(own, Some(AddressRange::new(0x50_0000_0000, GIB)));
        assert_eq!(published(&[low], &predicted, 12 * GIB), Some(predicted[0]));
        assert_eq!(published(&[low], &[], 12 * GIB), None);
    }
}
