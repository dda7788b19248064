//! One request: header, data, status (virtio 1.2 §5.2.6).

use std::io;
use std::sync::Arc;

use tracing::warn;
use vm_memory::{GuestMemoryMmap, Permissions};

use super::image::Image;
use super::statistics::{Statistics, count};
use crate::virtio::spec::{self, BLK_ID_BYTES, SECTOR};
use crate::virtio::{Chain, QueueError, Span};

/// The most sectors that one range discards: the host's work is the same for any number.
pub(super) const MAX_DISCARD_SECTORS: u32 = u32::MAX / SECTOR as u32;
/// The most sectors that one range makes zero; 32 MiB, in case the host has to write them.
pub(super) const MAX_ZERO_SECTORS: u32 = 64 << 10;
/// Ranges of a discard or write-zeroes request.
pub(super) const MAX_RANGES: u32 = 1;

/// Bytes of the header, and of a range.
const HEADER: usize = 16;
/// A range's flag: the blocks may be given back.
const RANGE_UNMAP: u32 = 1;
/// Failures that are logged; the rest is only counted, as a guest can cause any number.
const LOGGED: u64 = 8;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("no request of this device")]
    Unsupported,
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("beyond the end of the disk")]
    Range,
    #[error("the disk is read-only")]
    ReadOnly,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl RequestError {
    fn status(&self) -> u8 {
        match self {
            RequestError::Unsupported => spec::BLK_S_UNSUPP,
            _ => spec::BLK_S_IOERR,
        }
    }
}

/// The I/O thread's view of a disk.
#[derive(Debug)]
pub(super) struct Disk {
    image: Arc<Image>,
    serial: [u8; BLK_ID_BYTES],
    statistics: Arc<Statistics>,
}

impl Disk {
    pub(super) fn new(image: Arc<Image>, serial: [u8; BLK_ID_BYTES], statistics: Arc<Statistics>) -> Self {
        Self {
            image,
            serial,
            statistics,
        }
    }

    /// The counters.
    pub(super) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Carries out the request in `chain` and writes its status. Returns the number of bytes written to guest memory.
    ///
    /// # Errors
    /// There is no room for a status: the driver cannot be told, and the queue is broken.
    pub(super) fn execute(&self, memory: &GuestMemoryMmap, chain: &Chain, features: u64) -> Result<u32, QueueError> {
        let broken = |problem| QueueError::Chain {
            head: chain.head,
            problem,
        };
        let writable = Span::of(&chain.writable);
        let (data_in, status) = writable
            .len()
            .checked_sub(1)
            .and_then(|len| writable.split(len))
            .ok_or_else(|| broken("no room for a status"))?;
        let (written, code) = match self.carry_out(memory, Span::of(&chain.readable), data_in, features) {
            Ok(written) => (written, spec::BLK_S_OK),
            Err(error) => {
                self.failed(&error);
                (0, error.status())
            }
        };
        status
            .write(memory, &[code])
            .map_err(|_| broken("its status is not in memory"))?;
        Ok(u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Notes a failure.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) {
        let before = count(&self.statistics.errors, 1);
        if before < LOGGED {
            let hint = if before + 1 == LOGGED {
                "; further failures are only counted"
            } else {
                ""
            };
            warn!(disk = %self.image.path().display(), "disk request failed: {error}{hint}");
        }
    }

    fn carry_out(
        &self,
        memory: &GuestMemoryMmap,
        readable: Span<'_>,
        data_in: Span<'_>,
        features: u64,
    ) -> Result<u64, RequestError> {
        let (head, data_out) = readable
            .split(HEADER as u64)
            .ok_or(RequestError::Malformed("no header"))?;
        let mut header = [0; HEADER];
        head.read(memory, &mut header)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let kind = u32::from_le_bytes([a, b, c, d]);
        let written = match kind {
            spec::BLK_T_IN => self.read(memory, data_in, sector)?,
            spec::BLK_T_OUT => self.write(memory, data_out, sector)?,
            spec::BLK_T_FLUSH => {
                self.image.flush()?;
                count(&self.statistics.flushes, 1);
                0
            }
            spec::BLK_T_GET_ID => self.identify(memory, data_in)?,
            spec::BLK_T_DISCARD if features & spec::BLK_F_DISCARD != 0 => self.ranges(memory, data_out, true)?,
            spec::BLK_T_WRITE_ZEROES if features & spec::BLK_F_WRITE_ZEROES != 0 => {
                self.ranges(memory, data_out, false)?
            }
            _ => return Err(RequestError::Unsupported),
        };
        // A driver that did not agree to flush takes what completed for stable (§5.2.6.2).
        let changes = !matches!(kind, spec::BLK_T_IN | spec::BLK_T_FLUSH | spec::BLK_T_GET_ID);
        if changes && features & spec::BLK_F_FLUSH == 0 {
            self.image.flush()?;
        }
        Ok(written)
    }

    fn read(&self, memory: &GuestMemoryMmap, data: Span<'_>, sector: u64) -> Result<u64, RequestError> {
        let offset = self.offset(sector, data.len())?;
        let slices = data.slices(memory, Permissions::Write)?;
        self.image.read(&slices, offset)?;
        count(&self.statistics.reads, 1);
        count(&self.statistics.bytes_read, data.len());
        Ok(data.len())
    }

    fn write(&self, memory: &GuestMemoryMmap, data: Span<'_>, sector: u64) -> Result<u64, RequestError> {
        self.check_writable()?;
        let offset = self.offset(sector, data.len())?;
        let slices = data.slices(memory, Permissions::Read)?;
        self.image.write(&slices, offset)?;
        count(&self.statistics.writes, 1);
        count(&self.statistics.bytes_written, data.len());
        Ok(0)
    }

    fn identify(&self, memory: &GuestMemoryMmap, data: Span<'_>) -> Result<u64, RequestError> {
        let len = data.len().min(BLK_ID_BYTES as u64);
        let serial = self.serial.get(..len as usize).unwrap_or(&self.serial);
        data.write(memory, serial)?;
        Ok(len)
    }

    /// Discards or makes zero what the one range in `data` names: sector, number of sectors, flags.
    fn ranges(&self, memory: &GuestMemoryMmap, data: Span<'_>, discard: bool) -> Result<u64, RequestError> {
        self.check_writable()?;
        if data.len() != HEADER as u64 * u64::from(MAX_RANGES) {
            return Err(RequestError::Malformed("not one range"));
        }
        let mut range = [0; HEADER];
        data.read(memory, &mut range)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        // Discarding knows no flag, not even that of write-zeroes (§5.2.6.2).
        let (known, max) = if discard {
            (0, MAX_DISCARD_SECTORS)
        } else {
            (RANGE_UNMAP, MAX_ZERO_SECTORS)
        };
        if flags & !known != 0 {
            return Err(RequestError::Unsupported);
        }
        if sectors > max {
            return Err(RequestError::Malformed("range too long"));
        }
        let len = u64::from(sectors) * SECTOR;
        let offset = self.offset(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), len)?;
        if len > 0 && discard {
            self.image.discard(offset, len)?;
        } else if len > 0 {
            self.image.write_zeroes(offset, len, flags & RANGE_UNMAP != 0)?;
        }
        count(&self.statistics.discards, 1);
        Ok(0)
    }

    fn check_writable(&self) -> Result<(), RequestError> {
        if self.image.readonly() {
            Err(RequestError::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// The byte at which `len` bytes from `sector` on begin, all of which are on the disk.
    fn offset(&self, sector: u64, len: u64) -> Result<u64, RequestError> {
        if !len.is_multiple_of(SECTOR) {
            return Err(RequestError::Malformed("not whole sectors"));
        }
        let end = sector.checked_add(len / SECTOR).ok_or(RequestError::Range)?;
        if end > self.image.sectors() {
            return Err(RequestError::Range);
        }
        sector.checked_mul(SECTOR).ok_or(RequestError::Range)
    }
}
