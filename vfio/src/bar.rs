//! BARs: what they are, which of their pages the guest reaches directly, and which it only reaches through us.

use std::sync::Arc;

use devices::pci::{Bar, BarKind, spec};
use devices::{Backing, BusDevice, HostMapping, Region, Space};

use crate::discover::{Config, Layout};
use crate::host::Bdf;
use crate::io::{Area, DeviceIo, RegionInfo};

/// Bytes of a page: what KVM and the IOMMU can map.
pub(crate) const PAGE: u64 = 4096;
/// The largest page the kernel maps device memory with (1 GiB, Linux 6.12 and later).
const LARGEST_PAGE: u64 = 1 << 30;
/// No guest-physical address is wider (Intel SDM volume 3 §5.5.4: MAXPHYADDR is at most 52).
const ADDRESS_END: u64 = 1 << 52;

/// The BARs of a function, from the type bits in its registers and the sizes VFIO gives. `size` is asked for each index.
pub(crate) fn bars(config: Config<'_>, size: impl Fn(u32) -> u64) -> [Option<Bar>; 6] {
    let mut found = [None; 6];
    let mut index = 0u16;
    while let Some(place) = found.get_mut(usize::from(index)) {
        let register = config.u32(spec::BAR0 + 4 * index);
        let wide = register & spec::BAR_IO == 0 && register & 0x6 == spec::BAR_MEMORY_64;
        *place = bar(register, size(index.into()), index);
        index += if wide { 2 } else { 1 };
    }
    found
}

fn bar(register: u32, size: u64, index: u16) -> Option<Bar> {
    // All three type bits are kept: a driver that finds a wide BAR without its prefetch bit takes the upper half for a
    // BAR of its own and gives up (NVIDIA: `BAR2 is 0M @ 0x0`).
    let prefetch = register & spec::BAR_PREFETCH != 0;
    let (kind, smallest, largest) = match register & 0x7 {
        low if low & spec::BAR_IO != 0 => (BarKind::Io, 4, 0x1_0000),
        spec::BAR_MEMORY_64 if index < 5 => (BarKind::Memory64 { prefetch }, 16, ADDRESS_END >> 1),
        spec::BAR_MEMORY_64 => return None,
        _ => (BarKind::Memory32 { prefetch }, 16, 1 << 31),
    };
    // A BAR decodes a power of two; VFIO's sizes are, and the rest of one that is not reads as all ones.
    let size = size.checked_next_power_of_two().filter(|_| size > 0)?.max(smallest);
    (size <= largest).then_some(Bar { kind, size })
}

/// A BAR as it is given to the guest.
#[derive(Debug)]
pub(crate) struct AssignedBar {
    /// VFIO region and BAR number.
    pub index: u32,
    /// Kind and size.
    pub bar: Bar,
    /// The parts without exits, in order and apart from one another, on page boundaries.
    direct: Vec<Direct>,
}

#[derive(Debug)]
struct Direct {
    area: Area,
    mapping: Arc<HostMapping>,
    /// Offset of the area in the mapping.
    offset: u64,
}

impl AssignedBar {
    /// Maps what may be mapped of BAR `index`. What cannot be is trapped, which is slow and right.
    pub(crate) fn new(io: &dyn DeviceIo, bdf: Bdf, index: u32, bar: Bar, layout: &Layout) -> Self {
        let mut direct = Vec::new();
        if bar.kind != BarKind::Io {
            let region = io.region(index);
            let trapped = trapped_pages(layout, index);
            for area in mappable(&region, &trapped) {
                match io.map(index, area, alignment(area)) {
                    Ok(mapping) => direct.extend(slices(area, &trapped, &Arc::new(mapping))),
                    Err(error) => tracing::warn!(
                        "{bdf}: BAR {index} cannot be mapped at {:#x} ({:#x} bytes), so accesses there are slow: {error}",
                        area.offset,
                        area.size
                    ),
                }
            }
            direct.sort_by_key(|direct| direct.area.offset);
        }
        Self { index, bar, direct }
    }

    /// The address the BAR decodes at, if the register's value is one it can decode at.
    ///
    /// 0 is where an unassigned BAR points, and the highest address is what sizing leaves in the register: firmware and
    /// kernels write both in passing, some with decode on, and neither is where they want the BAR.
    pub(crate) fn valid(&self, base: u64) -> Option<u64> {
        let limit = match self.bar.kind {
            BarKind::Io => 0x1_0000,
            BarKind::Memory32 { .. } => 1 << 32,
            BarKind::Memory64 { .. } => ADDRESS_END,
        };
        let end = base.checked_add(self.bar.size)?;
        let sizing = match self.bar.kind {
            BarKind::Memory64 { .. } => u64::MAX - (self.bar.size - 1),
            _ => limit - self.bar.size,
        };
        (base != 0 && base != sizing && end <= limit).then_some(base)
    }

    /// Appends the regions of the BAR at `base`: mapped pages, and `device` for the rest.
    pub(crate) fn regions(&self, base: u64, device: &Arc<dyn BusDevice>, regions: &mut Vec<Region>) {
        let space = if self.bar.kind == BarKind::Io {
            Space::Port
        } else {
            Space::Memory
        };
        let mut trap = |from: u64, to: u64| {
            if from < to {
                let backing = Backing::Device {
                    device: device.clone(),
                    offset: from,
                };
                regions.push(Region {
                    space,
                    base: base + from,
                    size: to - from,
                    backing,
                });
            }
        };
        let mut at = 0;
        for direct in &self.direct {
            trap(at, direct.area.offset);
            at = direct.area.offset + direct.area.size;
        }
        trap(at, self.bar.size);
        regions.extend(self.direct.iter().map(|direct| Region {
            space,
            base: base + direct.area.offset,
            size: direct.area.size,
            backing: Backing::Host {
                mapping: direct.mapping.clone(),
                offset: direct.offset,
                writes: None,
            },
        }));
    }

    /// Bytes the guest reaches without exits.
    pub(crate) fn direct_size(&self) -> u64 {
        self.direct.iter().map(|direct| direct.area.size).sum()
    }
}

/// The pages of BAR `index` that hold the MSI-X table or its pending bits: the table is ours, not the device's.
fn trapped_pages(layout: &Layout, index: u32) -> Vec<Area> {
    let Some(msix) = layout.msix else { return Vec::new() };
    [
        (msix.table_bar, msix.table_offset, msix.table_size()),
        (msix.pba_bar, msix.pba_offset, msix.pba_size()),
    ]
    .into_iter()
    .filter(|(bar, ..)| u32::from(*bar) == index)
    .map(|(_, offset, size)| {
        let start = offset / PAGE * PAGE;
        Area {
            offset: start,
            size: (offset + size).next_multiple_of(PAGE) - start,
        }
    })
    .collect()
}

/// The parts of a region that `mmap` will take.
fn mappable(region: &RegionInfo, trapped: &[Area]) -> Vec<Area> {
    if !region.mappable {
        return Vec::new();
    }
    let whole = [Area {
        offset: 0,
        size: region.size,
    }];
    let areas = region.sparse.as_deref().unwrap_or(&whole);
    let areas = areas.iter().filter_map(|area| {
        // Pages only, and only those within the region, whatever the list says.
        let start = area.offset.checked_next_multiple_of(PAGE)?;
        let end = area.offset.checked_add(area.size)?.min(region.size) / PAGE * PAGE;
        (start < end).then(|| Area {
            offset: start,
            size: end - start,
        })
    });
    // Kernels before 4.16 refuse a mapping that covers the table, so it is left out before mapping there; where they do
    // not, one mapping for the whole BAR keeps host and device addresses aligned, which large pages need.
    if region.msix_mappable {
        areas.collect()
    } else {
        areas.flat_map(|area| without(area, trapped)).collect()
    }
}

/// `area` without the pages of `holes`.
fn without(area: Area, holes: &[Area]) -> Vec<Area> {
    let mut left = vec![area];
    for hole in holes {
        let hole_end = hole.offset + hole.size;
        left = left
            .into_iter()
            .flat_map(|part| {
                let end = part.offset + part.size;
                [(part.offset, end.min(hole.offset)), (part.offset.max(hole_end), end)]
            })
            .filter(|(start, end)| start < end)
            .map(|(start, end)| Area {
                offset: start,
                size: end - start,
            })
            .collect();
    }
    left
}

fn slices(area: Area, trapped: &[Area], mapping: &Arc<HostMapping>) -> Vec<Direct> {
    without(area, trapped)
        .into_iter()
        .map(|part| Direct {
            area: part,
            mapping: mapping.clone(),
            offset: part.offset - area.offset,
        })
        .collect()
}

/// The kernel maps device memory with large pages only where the host address agrees with the device's modulo the page
/// size, so the mapping begins at the alignment that the area itself has in the BAR, at most that of the largest page.
fn alignment(area: Area) -> u64 {
    let size = (area.size + 1).next_power_of_two() >> 1;
    let own = if area.offset == 0 {
        LARGEST_PAGE
    } else {
        1 << area.offset.trailing_zeros()
    };
    own.min(size).clamp(PAGE, LARGEST_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::discover;
    use crate::fixtures;

    fn mib(count: u64) -> u64 {
        count << 20
    }

    #[test]
    fn kinds_and_flags_are_kept() {
        let bytes = fixtures::gtx_960();
        let sizes = [mib(16), mib(256), 0, mib(32), 0, 128];
        let found = bars(Config(&bytes), |index| sizes[index as usize]);
        let expect = |kind, size| Some(Bar { kind, size });
        assert_eq!(
            found,
            [
                expect(BarKind::Memory32 { prefetch: false }, mib(16)),
                expect(BarKind::Memory64 { prefetch: true }, mib(256)),
                None,
                expect(BarKind::Memory64 { prefetch: true }, mib(32)),
                None,
                expect(BarKind::Io, 128),
            ]
        );
    }

    #[test]
    fn odd_bars_are_rounded_or_left_out() {
        let memory32 = |size| bar(0, size, 0);
        assert_eq!(memory32(0), None);
        assert_eq!(memory32(3000).unwrap().size, 4096);
        assert_eq!(memory32(1 << 33), None);
        assert_eq!(memory32(u64::MAX), None);
        assert_eq!(
            bar(spec::BAR_MEMORY_64, 4096, 5),
            None,
            "no register is left for the upper half"
        );
    }

    #[test]
    fn the_table_is_cut_out_of_the_mapping() {
        let layout = discover(Config(&fixtures::nvme())).unwrap();
        let trapped = trapped_pages(&layout, 0);
        let region = RegionInfo {
            size: 0x8000,
            mappable: true,
            msix_mappable: false,
            ..RegionInfo::default()
        };
        assert_eq!(
            mappable(&region, &trapped),
            [
                Area {
                    offset: 0,
                    size: 0x2000
                },
                Area {
                    offset: 0x4000,
                    size: 0x4000
                }
            ]
        );
        let modern = RegionInfo {
            msix_mappable: true,
            ..region.clone()
        };
        assert_eq!(
            mappable(&modern, &trapped),
            [Area {
                offset: 0,
                size: 0x8000
            }]
        );
        assert!(trapped_pages(&layout, 1).is_empty());
        let sub_page = RegionInfo { size: 0x800, ..modern };
        assert!(mappable(&sub_page, &[]).is_empty());
    }

    #[test]
    fn sparse_areas_are_honoured_and_bounded() {
        let sparse = vec![
            Area {
                offset: 0x800,
                size: 0x2000,
            },
            Area {
                offset: 0x4000,
                size: u64::MAX - 0x4000,
            },
        ];
        let region = RegionInfo {
            size: 0x6000,
            mappable: true,
            msix_mappable: true,
            sparse: Some(sparse),
            ..RegionInfo::default()
        };
        let expected = [
            Area {
                offset: 0x1000,
                size: 0x1000,
            },
            Area {
                offset: 0x4000,
                size: 0x2000,
            },
        ];
        assert_eq!(mappable(&region, &[]), expected);
    }

    #[test]
    fn alignment_is_the_largest_useful_one() {
        for (offset, size, expected) in [
            (0, mib(16), mib(16)),
            (0, 1 << 33, 1 << 30),
            (0, 4096, 4096),
            (0x4000, mib(1), 0x4000),
            (0, mib(3), mib(2)),
        ] {
            assert_eq!(alignment(Area { offset, size }), expected);
        }
    }
}
