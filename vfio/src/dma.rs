//! Guest memory as the devices see it: every byte of guest RAM at the IOVA that is its guest-physical address.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use devices::HostMapping;

use crate::container::Container;
use crate::host::limits::{LimitError, MemoryLock, Size};

/// A range of guest RAM for devices.
#[derive(Debug, Clone)]
pub struct DmaRange {
    /// Guest-physical address, a multiple of 4 KiB.
    pub gpa: u64,
    /// The host memory that is all of it.
    pub mapping: Arc<HostMapping>,
}

impl DmaRange {
    fn size(&self) -> u64 {
        self.mapping.len() as u64
    }
}

/// Something that maps host memory for devices: the type1 container, or a fake.
pub trait DmaMap: Send + Sync + fmt::Debug {
    /// Lets devices reach `ram` at IOVA `ram.gpa`.
    ///
    /// # Errors
    /// What the kernel says.
    fn map(&self, ram: &DmaRange) -> io::Result<()>;

    /// Undoes [`DmaMap::map`].
    ///
    /// # Errors
    /// What the kernel says; the range must then be taken as still reachable.
    fn unmap(&self, iova: u64, size: u64) -> io::Result<()>;

    /// IOVA that can be mapped; empty where that is not known.
    ///
    /// # Errors
    /// What the kernel says.
    fn ranges(&self) -> io::Result<Vec<RangeInclusive<u64>>>;
}

/// Why guest memory could not be given to devices.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// The IOMMU could not be asked.
    #[error("cannot ask the IOMMU which addresses it can map: {0}")]
    Ranges(#[source] io::Error),
    /// RAM at an address the IOMMU cannot map.
    #[error(
        "guest RAM at {gpa:#x}..{end:#x} is not wholly within the addresses this IOMMU can map ({}); give the guest less \
         memory",
        show(ranges)
    )]
    OutOfRange {
        /// First address of the RAM.
        gpa: u64,
        /// First address after it.
        end: u64,
        /// What can be mapped.
        ranges: Vec<RangeInclusive<u64>>,
    },
    /// The limit on locked memory is too low.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The kernel refused a mapping. All earlier ones have been undone.
    #[error("cannot map guest RAM at {gpa:#x} ({}) for the devices: {source}{}", Size(*size), map_hint(source))]
    Map {
        /// Guest-physical address.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

fn show(ranges: &[RangeInclusive<u64>]) -> String {
    ranges
        .iter()
        .map(|range| format!("{:#x}-{:#x}", range.start(), range.end()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn map_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; raise RLIMIT_MEMLOCK (`ulimit -l`), or free memory: guest RAM with devices stays in RAM"
        }
        Some(libc::ENOSPC) => "; the limit on mappings is reached: raise vfio_iommu_type1.dma_entry_limit",
        _ => "",
    }
}

/// Guest RAM mapped for devices. Dropping it takes the RAM away from them again.
#[derive(Debug)]
pub struct GuestDma {
    io: Arc<dyn DmaMap>,
    mapped: Vec<DmaRange>,
}

impl GuestDma {
    /// Checks addresses and the locked-memory limit, then maps all of `ram`, or nothing.
    ///
    /// # Errors
    /// See [`DmaError`].
    pub fn map(io: Arc<dyn DmaMap>, ram: &[DmaRange], lock: &MemoryLock) -> Result<Self, DmaError> {
        let ranges = io.ranges().map_err(DmaError::Ranges)?;
        for region in ram {
            check(region, &ranges)?;
        }
        lock.check(ram.iter().map(DmaRange::size).sum())?;
        // From here on an error drops `dma`, which unmaps what was mapped before.
        let mut dma = Self {
            io,
            mapped: Vec::with_capacity(ram.len()),
        };
        for region in ram {
            dma.io.map(region).map_err(|source| DmaError::Map {
                gpa: region.gpa,
                size: region.size(),
                source,
            })?;
            dma.mapped.push(region.clone());
        }
        Ok(dma)
    }

    /// Bytes mapped.
    pub fn size(&self) -> u64 {
        self.mapped.iter().map(DmaRange::size).sum()
    }
}

impl Drop for GuestDma {
    fn drop(&mut self) {
        for region in self.mapped.drain(..).rev() {
            if let Err(error) = self.io.unmap(region.gpa, region.size()) {
                tracing::error!("guest RAM at {:#x} stays mapped for devices: {error}", region.gpa);
                // A device may still write there: the memory must never be used for anything else.
                std::mem::forget(region.mapping);
            }
        }
    }
}

fn check(region: &DmaRange, ranges: &[RangeInclusive<u64>]) -> Result<(), DmaError> {
    let last = region.gpa.checked_add(region.size().saturating_sub(1));
    let inside = |last: u64| {
        ranges
            .iter()
            .any(|range| range.contains(&region.gpa) && range.contains(&last))
    };
    if last.is_some_and(|last| ranges.is_empty() || inside(last)) {
        return Ok(());
    }
    let end = region.gpa.saturating_add(region.size());
    Err(DmaError::OutOfRange {
        gpa: region.gpa,
        end,
        ranges: ranges.to_vec(),
    })
}

impl DmaMap for Container {
    fn map(&self, ram: &DmaRange) -> io::Result<()> {
        crate::map::dma_map(self.vfio(), ram)
    }

    fn unmap(&self, iova: u64, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        self.vfio().vfio_dma_unmap(iova, size).map_err(io::Error::other)
    }

    fn ranges(&self) -> io::Result<Vec<RangeInclusive<u64>>> {
        Ok(self.iommu_info()?.ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Debug, Default)]
    struct Fake {
        mapped: Mutex<Vec<u64>>,
        refuse: Option<u64>,
        ranges: Vec<RangeInclusive<u64>>,
    }

    impl DmaMap for Fake {
        fn map(&self, ram: &DmaRange) -> io::Result<()> {
            if self.refuse == Some(ram.gpa) {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            self.mapped.lock().unwrap().push(ram.gpa);
            Ok(())
        }
        fn unmap(&self, iova: u64, _size: u64) -> io::Result<()> {
            self.mapped.lock().unwrap().retain(|gpa| *gpa != iova);
            Ok(())
        }
        fn ranges(&self) -> io::Result<Vec<RangeInclusive<u64>>> {
            Ok(self.ranges.clone())
        }
    }

    fn ram(gpa: u64) -> DmaRange {
        DmaRange {
            gpa,
            mapping: Arc::new(HostMapping::anonymous(4096).unwrap()),
        }
    }

    const FREE: MemoryLock = MemoryLock { limit: None, locked: 0 };

    #[test]
    fn all_is_mapped_and_given_back() {
        let fake = Arc::new(Fake {
            ranges: vec![0..=0xfedf_ffff, 0xfef0_0000..=u64::MAX],
            ..Fake::default()
        });
        let dma = GuestDma::map(fake.clone(), &[ram(0), ram(1 << 32)], &FREE).unwrap();
        assert_eq!(
            (fake.mapped.lock().unwrap().clone(), dma.size()),
            (vec![0, 1 << 32], 8192)
        );
        drop(dma);
        assert!(fake.mapped.lock().unwrap().is_empty());
    }

    #[test]
    fn a_refused_mapping_undoes_the_others() {
        let fake = Arc::new(Fake {
            refuse: Some(1 << 32),
            ..Fake::default()
        });
        let message = GuestDma::map(fake.clone(), &[ram(0), ram(1 << 32)], &FREE)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("0x100000000") && message.contains("RLIMIT_MEMLOCK"),
            "{message}"
        );
        assert!(fake.mapped.lock().unwrap().is_empty());
    }

    #[test]
    fn nothing_is_mapped_before_all_is_checked() {
        let fake = Arc::new(Fake {
            ranges: vec![0..=0xfedf_ffff],
            ..Fake::default()
        });
        let message = GuestDma::map(fake.clone(), &[ram(0), ram(0xfee0_0000)], &FREE)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("0xfee00000..0xfee01000") && message.contains("0x0-0xfedfffff"),
            "{message}"
        );
        let low = MemoryLock {
            limit: Some(4096),
            locked: 0,
        };
        assert!(matches!(
            GuestDma::map(fake.clone(), &[ram(0), ram(8192)], &low),
            Err(DmaError::Limit(_))
        ));
        assert!(matches!(
            GuestDma::map(fake.clone(), &[ram(u64::MAX - 0xffe)], &FREE),
            Err(DmaError::OutOfRange { .. })
        ));
        assert!(fake.mapped.lock().unwrap().is_empty());
    }
}
