//! Virtio 1.2 devices: what a device is to its transport, and the queues between them and the driver.
//!
//! The transport ([`pci`]) owns the registers and answers vCPUs. A device owns its I/O thread, which gets the queues in an
//! [`Activation`] once the driver is ready and which never outlives a reset: after [`VirtioDevice::reset`] returns, nothing touches
//! guest memory.

pub mod block;
pub mod pci;
mod queue;
pub mod spec;
#[cfg(test)]
mod testing;
mod worker;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::GuestMemoryMmap;

pub use queue::{ActiveQueue, Chain, QueueConfig, QueueError, Segment, Span};
pub use worker::{Outcome, Stop, Worker};

/// How a device reaches its driver. Called from I/O threads; takes no lock that a reset holds.
pub trait Notifier: Send + Sync + fmt::Debug {
    /// Buffers of `queue` were used.
    fn queue_used(&self, queue: u16);

    /// The device's config changed.
    fn config_changed(&self);

    /// The device cannot go on until it is reset (DEVICE_NEEDS_RESET, virtio 1.2 §2.1.2).
    fn needs_reset(&self);
}

/// All that a device needs to run, handed over when the driver sets DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    /// Guest memory.
    pub memory: GuestMemoryMmap,
    /// The features negotiated.
    pub features: u64,
    /// The queues the driver enabled.
    pub queues: Vec<ActiveQueue>,
    /// How the driver is told.
    pub notifier: Arc<dyn Notifier>,
}

/// A virtio device without its transport.
pub trait VirtioDevice: Send + Sync + fmt::Debug {
    /// The device ID (virtio 1.2 §5).
    fn device_type(&self) -> u16;

    /// The PCI class code, 0xBBSSPP.
    fn pci_class(&self) -> u32;

    /// The device's own feature bits; the transport adds those of rings and version.
    fn features(&self) -> u64;

    /// The largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Bytes of the device's config.
    fn config_size(&self) -> u32;

    /// Fills `data` from the device's config at `offset`; zeros beyond its end.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// The driver writes the device's config. Most have nothing writable.
    fn config_write(&self, _offset: u64, _data: &[u8]) {}

    /// Starts work on the queues.
    ///
    /// # Errors
    /// The device's thread is gone.
    fn activate(&self, activation: Activation) -> io::Result<()>;

    /// Lets the device work or holds it. When this returns from `false`, the device touches guest memory no more; `true` continues.
    fn set_running(&self, running: bool);

    /// Ends the work and drops the queues. When this returns, the device touches guest memory no more.
    fn reset(&self);
}

/// Fills `data` from `image` at `offset`; zeros beyond its end.
fn read_image(image: &[u8], offset: u64, data: &mut [u8]) {
    let tail = usize::try_from(offset).ok().and_then(|offset| image.get(offset..));
    let bytes = tail.unwrap_or(&[]).iter().copied().chain(std::iter::repeat(0));
    for (target, byte) in data.iter_mut().zip(bytes) {
        *target = byte;
    }
}

/// Locks, also when a thread panicked with the lock held: registers have no invariant that a half-done write breaks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
