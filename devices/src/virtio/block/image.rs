//! The host's side of a disk: a file or a block device, opened and locked.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use vm_memory::VolatileSlice;
use vmm_sys_util::fallocate::{FallocateMode, fallocate};

use super::vectored;
use crate::virtio::spec::SECTOR;

/// How often and how long apart a lock is tried: udev holds a block device for a moment after it changed.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Physical block of a file: what file systems allocate by.
const FILE_BLOCK: u32 = 4096;
/// The largest block of a device that is believed.
const MAX_BLOCK: u32 = 1 << 20;
/// Zeros are written in pieces of this size where the file system cannot make them itself.
const ZEROS: usize = 64 << 10;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be opened or examined.
    #[error("disk {}", path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("disk {} is neither a regular file nor a block device", path.display())]
    Kind {
        /// The image.
        path: PathBuf,
    },
    /// Somebody else uses it.
    #[error(
        "disk {} is in use: {}",
        path.display(),
        if *.readonly { "somebody writes it" } else { "somebody has it open; a disk that is written belongs to one machine" }
    )]
    Busy {
        /// The image.
        path: PathBuf,
        /// How it was to be opened.
        readonly: bool,
    },
    /// Its size is no disk's.
    #[error("disk {} has {size} bytes: a raw image holds whole blocks of {block} bytes, at least one", path.display())]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The block size.
        block: u32,
    },
}

/// Block sizes in bytes, powers of two, `logical` no larger than `physical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// What the guest addresses.
    pub logical: u32,
    /// What is written at once.
    pub physical: u32,
}

/// An open image, locked as long as it lives.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    readonly: bool,
    sectors: u64,
    geometry: Geometry,
}

impl Image {
    /// Opens `path`: locked for itself, or shared with other readers if `readonly`.
    ///
    /// # Errors
    /// It cannot be opened, is in use (a mounted block device is, too), or its size is not whole blocks.
    pub fn open(path: &Path, readonly: bool) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Open {
            path: path.to_owned(),
            source,
        };
        let busy = || ImageError::Busy {
            path: path.to_owned(),
            readonly,
        };
        // Before opening: opening a pipe or a device that is no disk has effects.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(ImageError::Kind { path: path.to_owned() });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(!readonly);
        if kind.is_block_device() && !readonly {
            // Refused while the host has it mounted (open(2), O_EXCL).
            options.custom_flags(libc::O_EXCL);
        }
        let mut file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => busy(),
            _ => failed(error),
        })?;
        match lock(&file, readonly) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let geometry = geometry(&file.metadata().map_err(failed)?);
        // Block devices have no size in their metadata.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if size == 0 || size % u64::from(geometry.logical) != 0 {
            return Err(ImageError::Size {
                path: path.to_owned(),
                size,
                block: geometry.logical,
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            readonly,
            sectors: size / SECTOR,
            geometry,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is never written.
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// Size in sectors of 512 bytes, as it was when opened.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Block sizes.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Fills guest memory from byte `offset`.
    ///
    /// # Errors
    /// What the host says, or the file has become shorter.
    pub fn read(&self, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        vectored::read_exact_at(&self.file, slices, offset)
    }

    /// Writes guest memory at byte `offset`.
    ///
    /// # Errors
    /// What the host says.
    pub fn write(&self, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
        vectored::write_all_at(&self.file, slices, offset)
    }

    /// Returns when everything written is on stable storage.
    ///
    /// # Errors
    /// What the host says.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives bytes back to the host. A hint: a host that cannot is no failure.
    ///
    /// # Errors
    /// What the host says, other than that it cannot.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateMode::PunchHole, true, offset, len) {
            Err(error) if cannot(error.errno()) => Ok(()),
            result => result.map_err(Into::into),
        }
    }

    /// Makes bytes zero, and gives them back to the host if `unmap`.
    ///
    /// # Errors
    /// What the host says.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let mode = if unmap {
            FallocateMode::PunchHole
        } else {
            FallocateMode::ZeroRange
        };
        match fallocate(&self.file, mode, true, offset, len) {
            Err(error) if cannot(error.errno()) => self.write_zeroes_plainly(offset, len),
            result => result.map_err(Into::into),
        }
    }

    fn write_zeroes_plainly(&self, offset: u64, len: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let zeros = vec![0; ZEROS];
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let count = left.min(ZEROS as u64);
            let piece = zeros.get(..count as usize).unwrap_or(&zeros);
            self.file.write_all_at(piece, offset)?;
            offset += count;
            left -= count;
        }
        Ok(())
    }
}

/// flock, as what the host's own tools and other monitors take.
fn lock(file: &File, readonly: bool) -> Result<(), TryLockError> {
    let attempt = || {
        if readonly {
            file.try_lock_shared()
        } else {
            file.try_lock()
        }
    };
    for _ in 1..LOCK_TRIES {
        match attempt() {
            Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE),
            result => return result,
        }
    }
    attempt()
}

/// Whether `errno` says that the file system or device has no such operation.
fn cannot(errno: i32) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
}

fn geometry(metadata: &Metadata) -> Geometry {
    if !metadata.file_type().is_block_device() {
        return Geometry {
            logical: SECTOR as u32,
            physical: FILE_BLOCK,
        };
    }
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    let logical = queue_attribute(major, minor, "logical_block_size").unwrap_or(SECTOR as u32);
    let physical = queue_attribute(major, minor, "physical_block_size").unwrap_or(logical);
    Geometry {
        logical,
        physical: physical.max(logical),
    }
}

/// A block size from sysfs; a partition's lies with its disk.
fn queue_attribute(major: u32, minor: u32, name: &str) -> Option<u32> {
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let text = ["queue", "../queue"]
        .iter()
        .find_map(|queue| std::fs::read_to_string(device.join(queue).join(name)).ok())?;
    let value: u32 = text.trim().parse().ok()?;
    (value.is_power_of_two() && (SECTOR as u32..=MAX_BLOCK).contains(&value)).then_some(value)
}
