//! Guest RAM: one region below the 32-bit hole and one above it.
//!
//! Memory that devices reach is pinned whole before the guest starts, so what counts is how fast the kernel can zero and pin it: it is
//! anonymous, which gets 2 MiB pages on every distribution. Memory files get them only where `shmem_enabled` allows it, and Debian,
//! Fedora and Arch leave that at `never`. Without devices RAM is a memory file, which shows by its name in `/proc/PID/maps`.
#![expect(unsafe_code, reason = "vm-memory takes an aligned mapping only by its address")]

use std::io;
use std::sync::Arc;

use devices::HostMapping;
use firmware::RamSplit;
use firmware::e820::HIGH_RAM_BASE;
use thiserror::Error;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// Why there is no guest RAM.
#[derive(Debug, Error)]
pub enum RamError {
    /// The kernel gave no memory file.
    #[error("cannot make a memory file for {size} MiB of guest RAM; is that more than this host has?", size = size >> 20)]
    File {
        /// Bytes wanted.
        size: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be mapped.
    #[error("cannot map {size} MiB of guest RAM; is that more than this host has?", size = size >> 20)]
    Map {
        /// Bytes wanted.
        size: u64,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Host pages of this size can back guest pages of the same size only where both addresses are multiples of it.
const ALIGN: usize = 1 << 30;

/// A range of guest RAM and the host memory behind all of it.
#[derive(Debug, Clone)]
pub struct RamRange {
    /// First guest-physical address.
    pub gpa: u64,
    /// The mapping, as long as the range.
    pub mapping: Arc<HostMapping>,
}

/// All guest RAM.
#[derive(Debug, Clone)]
pub struct GuestRam {
    /// For accesses by guest-physical address.
    pub memory: GuestMemoryMmap,
    /// For lending it out, to KVM and to devices.
    pub ranges: Vec<RamRange>,
}

impl GuestRam {
    /// Makes guest RAM, `pinned` if devices are going to reach it. Pages are given by the kernel as they are first touched.
    ///
    /// # Errors
    /// The host has not got the memory.
    pub fn allocate(split: &RamSplit, pinned: bool) -> Result<Self, RamError> {
        let mut ranges = Vec::new();
        for (gpa, size) in [(0, split.low), (HIGH_RAM_BASE, split.high)] {
            if size > 0 {
                ranges.push(RamRange {
                    gpa,
                    mapping: map(size, pinned)?,
                });
            }
        }
        let regions = ranges.iter().map(region).collect::<Result<_, _>>()?;
        let size = split.low + split.high;
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|source| RamError::Map {
            size,
            source: Box::new(source),
        })?;
        Ok(Self { memory, ranges })
    }
}

fn map(size: u64, pinned: bool) -> Result<Arc<HostMapping>, RamError> {
    let len = usize::try_from(size).map_err(|error| RamError::Map {
        size,
        source: Box::new(error),
    })?;
    let align = if len >= ALIGN { ALIGN } else { 2 << 20 };
    let mapping = if pinned {
        HostMapping::anonymous_huge(len, align)
    } else {
        let file = devices::mapping::memory_file("guest-ram")
            .and_then(|file| file.set_len(size).map(|()| file))
            .map_err(|source| RamError::File { size, source })?;
        HostMapping::shared(&file, 0, len, align, true)
    };
    let mapping = mapping.map_err(|source| RamError::Map {
        size,
        source: Box::new(source),
    })?;
    Ok(Arc::new(mapping))
}

fn region(range: &RamRange) -> Result<GuestRegionMmap, RamError> {
    let size = range.mapping.len();
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RamError::Map {
        size: size as u64,
        source,
    };
    // vCPUs, I/O threads and devices all hold guest RAM, in an order that no type keeps: it stays until the process ends, which is
    // when the virtual machine does.
    std::mem::forget(Arc::clone(&range.mapping));
    // SAFETY: the mapping is `size` bytes long, readable and writable, and was just made immortal.
    let builder = unsafe { MmapRegionBuilder::new(size).with_raw_mmap_pointer(range.mapping.address() as *mut u8) };
    let region = builder
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|source| failed(Box::new(source)))?;
    GuestRegionMmap::new(region, GuestAddress(range.gpa)).ok_or_else(|| failed("its addresses wrap".into()))
}
