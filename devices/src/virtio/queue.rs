//! The device's end of a split virtqueue: chains come out checked, so that devices see only buffers.
//!
//! virtio-queue walks the rings. What a hostile driver can do to a ring ends in a [`QueueError`], and the queue is then broken.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use super::spec::{self, F_EVENT_IDX};

/// Buffers of one chain. The specification forbids chains longer than the queue (virtio 1.2 §2.7.5.3.1), but drivers with indirect
/// tables are known to stretch it; this is also the most that one vectored read takes (IOV_MAX).
const MAX_SEGMENTS: usize = 1024;

/// Why a queue stopped.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are not where a queue of this size can be.
    #[error("queue {index}: size {size} or rings at {desc:#x}, {avail:#x}, {used:#x} are not valid")]
    Layout {
        /// The queue.
        index: u16,
        /// Its size.
        size: u16,
        /// Address of the descriptor table.
        desc: u64,
        /// Address of the available ring.
        avail: u64,
        /// Address of the used ring.
        used: u64,
    },
    /// A ring could not be accessed or its index is impossible.
    #[error("ring: {0}")]
    Ring(#[from] virtio_queue::Error),
    /// A chain loops, ends in the void, mixes directions or is too long.
    #[error("descriptor chain {head}: {problem}")]
    Chain {
        /// Index of its first descriptor.
        head: u16,
        /// What is wrong.
        problem: &'static str,
    },
}

/// What a driver programs for one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries.
    pub size: u16,
    /// Whether the driver enabled it.
    pub enabled: bool,
    /// Guest-physical address of the descriptor table.
    pub desc: u64,
    /// Guest-physical address of the available ring (driver area).
    pub avail: u64,
    /// Guest-physical address of the used ring (device area).
    pub used: u64,
}

/// A buffer in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where.
    pub address: GuestAddress,
    /// Bytes.
    pub len: u32,
}

/// The buffers of one request: first those the device reads, then those it writes.
#[derive(Debug, Default)]
pub struct Chain {
    /// Index of the first descriptor.
    pub head: u16,
    /// Buffers the device reads.
    pub readable: Vec<Segment>,
    /// Buffers the device writes.
    pub writable: Vec<Segment>,
}

/// A queue at work. Owned by the device's I/O thread.
pub struct ActiveQueue {
    index: u16,
    queue: Queue,
    avail: GuestAddress,
    kick: Arc<EventFd>,
}

impl ActiveQueue {
    /// Takes queue `index` into use as the driver programmed it; `kick` is signalled by the driver's notifications.
    ///
    /// # Errors
    /// The size is no power of two of at most `max_size`, or the rings are misaligned or outside guest memory.
    pub fn new(
        index: u16,
        max_size: u16,
        config: &QueueConfig,
        features: u64,
        kick: Arc<EventFd>,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, QueueError> {
        let layout = || QueueError::Layout {
            index,
            size: config.size,
            desc: config.desc,
            avail: config.avail,
            used: config.used,
        };
        if !in_memory(config, memory) {
            return Err(layout());
        }
        let mut queue = Queue::new(max_size)?;
        queue.try_set_size(config.size).map_err(|_| layout())?;
        queue
            .try_set_desc_table_address(GuestAddress(config.desc))
            .map_err(|_| layout())?;
        queue
            .try_set_avail_ring_address(GuestAddress(config.avail))
            .map_err(|_| layout())?;
        queue
            .try_set_used_ring_address(GuestAddress(config.used))
            .map_err(|_| layout())?;
        queue.set_event_idx(features & F_EVENT_IDX != 0);
        queue.set_ready(true);
        Ok(Self {
            index,
            queue,
            avail: GuestAddress(config.avail),
            kick,
        })
    }

    /// The queue's number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Signalled when the driver made buffers available.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Takes the next available chain into `chain`; false when there is none.
    ///
    /// # Errors
    /// The ring or the chain is malformed.
    pub fn pop(&mut self, memory: &GuestMemoryMmap, chain: &mut Chain) -> Result<bool, QueueError> {
        let size = self.queue.size();
        let Some(found) = self.queue.iter(memory)?.next() else {
            return Ok(false);
        };
        let head = found.head_index();
        let broken = |problem| QueueError::Chain { head, problem };
        if head >= size {
            return Err(broken("starts outside the table"));
        }
        chain.head = head;
        chain.readable.clear();
        chain.writable.clear();
        // The iterator ends silently where a chain is broken: its last descriptor then still announces another.
        let mut complete = false;
        for descriptor in found {
            if chain.readable.len() + chain.writable.len() >= MAX_SEGMENTS {
                return Err(broken("too long"));
            }
            let segment = Segment {
                address: descriptor.addr(),
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                chain.writable.push(segment);
            } else if chain.writable.is_empty() {
                chain.readable.push(segment);
            } else {
                return Err(broken("a readable buffer follows a writable one"));
            }
            complete = !descriptor.has_next();
        }
        if complete {
            Ok(true)
        } else {
            Err(broken("does not end"))
        }
    }

    /// Gives the chain that starts at `head` back, with the number of bytes written into it.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn complete(&mut self, memory: &GuestMemoryMmap, head: u16, written: u32) -> Result<(), QueueError> {
        Ok(self.queue.add_used(memory, head, written)?)
    }

    /// Whether the driver wants to hear of what was completed since the last call.
    ///
    /// # Errors
    /// The available ring cannot be read.
    pub fn interrupt_wanted(&mut self, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
        if self.queue.event_idx_enabled() {
            return Ok(self.queue.needs_notification(memory)?);
        }
        // virtio-queue does not look at the flag. Firmware that polls depends on it: nobody would ever deassert a shared INTx line.
        fence(Ordering::SeqCst);
        let flags: u16 = memory
            .load(self.avail, Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u16::from_le(flags) & spec::AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver for notifications. True when buffers came meanwhile, for which none will arrive.
    ///
    /// # Errors
    /// The rings cannot be accessed.
    pub fn enable_kicks(&mut self, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(memory)?)
    }

    /// Asks the driver to save its notifications.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn disable_kicks(&mut self, memory: &GuestMemoryMmap) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(memory)?)
    }
}

impl fmt::Debug for ActiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveQueue")
            .field("index", &self.index)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Whether the rings lie in guest memory (sizes: virtio 1.2 §2.7).
fn in_memory(config: &QueueConfig, memory: &GuestMemoryMmap) -> bool {
    let size = usize::from(config.size);
    let inside =
        |address, bytes, access| address != 0 && GuestMemory::check_range(memory, GuestAddress(address), bytes, access);
    size > 0
        && inside(config.desc, 16 * size, Permissions::Read)
        && inside(config.avail, 6 + 2 * size, Permissions::Read)
        && inside(config.used, 6 + 8 * size, Permissions::ReadWrite)
}

/// A run of bytes within the buffers of a chain, wherever their boundaries are (virtio 1.2 §2.7.4: framing means nothing).
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    segments: &'a [Segment],
    start: u64,
    len: u64,
}

impl<'a> Span<'a> {
    /// All of `segments`.
    pub fn of(segments: &'a [Segment]) -> Self {
        Self {
            segments,
            start: 0,
            len: segments.iter().map(|segment| u64::from(segment.len)).sum(),
        }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `at` bytes and the rest; `None` when there are fewer.
    pub fn split(self, at: u64) -> Option<(Self, Self)> {
        let rest = self.len.checked_sub(at)?;
        let first = Self { len: at, ..self };
        let second = Self {
            start: self.start + at,
            len: rest,
            ..self
        };
        Some((first, second))
    }

    /// The host memory behind the bytes.
    ///
    /// # Errors
    /// Some of them are not guest memory.
    pub fn slices<'m>(&self, memory: &'m GuestMemoryMmap, access: Permissions) -> io::Result<Vec<VolatileSlice<'m>>> {
        let mut slices = Vec::with_capacity(self.segments.len());
        let (mut skip, mut left) = (self.start, self.len);
        for segment in self.segments {
            let len = u64::from(segment.len);
            if skip >= len {
                skip -= len;
                continue;
            }
            let take = (len - skip).min(left);
            if take == 0 {
                break;
            }
            let address = segment
                .address
                .0
                .checked_add(skip)
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let count = usize::try_from(take).map_err(io::Error::other)?;
            for slice in
                GuestMemory::get_slices(memory, GuestAddress(address), count, access).map_err(io::Error::other)?
            {
                slices.push(slice.map_err(io::Error::other)?);
            }
            skip = 0;
            left -= take;
        }
        Ok(slices)
    }

    /// Copies the first bytes into `data`, which must not be longer than the span.
    ///
    /// # Errors
    /// Some of the bytes are not guest memory, or there are too few.
    pub fn read(&self, memory: &GuestMemoryMmap, data: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        for slice in self.slices(memory, Permissions::Read)? {
            let Some(target) = data.get_mut(done..) else { break };
            done += slice.copy_to(target);
        }
        enough(done, data.len())
    }

    /// Copies `data` to the first bytes; `data` must not be longer than the span.
    ///
    /// # Errors
    /// Some of the bytes are not guest memory, or there are too few.
    pub fn write(&self, memory: &GuestMemoryMmap, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        for slice in self.slices(memory, Permissions::Write)? {
            let Some(source) = data.get(done..) else { break };
            let count = source.len().min(slice.len());
            slice.copy_from(source);
            done += count;
        }
        enough(done, data.len())
    }
}

fn enough(done: usize, wanted: usize) -> io::Result<()> {
    if done == wanted {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
