//! Guest RAM: memfd-backed, one region below the 32-bit hole and one above it.

use std::fs::File;
use std::io;

use firmware::RamSplit;
use firmware::e820::HIGH_RAM_BASE;
use thiserror::Error;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

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

/// A range of guest RAM and where it lies in this process.
#[derive(Debug, Clone, Copy)]
pub struct RamRange {
    /// First guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub size: u64,
    /// Host virtual address of the first byte.
    pub hva: u64,
}

/// Makes guest RAM. Pages are given by the kernel as they are first touched.
///
/// # Errors
/// The host has not got the memory.
pub fn allocate(split: &RamSplit) -> Result<GuestMemoryMmap, RamError> {
    let mut regions = Vec::new();
    for (base, size) in [(0, split.low), (HIGH_RAM_BASE, split.high)] {
        if size > 0 {
            regions.push(region(base, size)?);
        }
    }
    let size = split.low + split.high;
    GuestMemoryMmap::from_regions(regions).map_err(|source| RamError::Map {
        size,
        source: Box::new(source),
    })
}

fn region(base: u64, size: u64) -> Result<GuestRegionMmap, RamError> {
    let file = memory_file(size).map_err(|source| RamError::File { size, source })?;
    let len = usize::try_from(size).map_err(|error| RamError::Map {
        size,
        source: Box::new(error),
    })?;
    let mapping = MmapRegionBuilder::new(len)
        .with_file_offset(FileOffset::new(file, 0))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        // Without a reservation, RAM that the guest never touches costs nothing, however much is configured.
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|source| RamError::Map {
            size,
            source: Box::new(source),
        })?;
    GuestRegionMmap::new(mapping, GuestAddress(base)).ok_or_else(|| RamError::Map {
        size,
        source: "address space wraps".into(),
    })
}

fn memory_file(size: u64) -> io::Result<File> {
    let file = devices::mapping::memory_file("guest-ram")?;
    file.set_len(size)?;
    Ok(file)
}

/// Where guest RAM lies in this process.
pub fn ranges(memory: &GuestMemoryMmap) -> Vec<RamRange> {
    memory
        .iter()
        .map(|region| RamRange {
            gpa: region.start_addr().0,
            size: region.len(),
            hva: region
                .as_volatile_slice()
                .map_or(0, |slice| slice.ptr_guard().as_ptr() as u64),
        })
        .collect()
}
