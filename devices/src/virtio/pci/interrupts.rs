//! How a function interrupts: by MSI-X while that is enabled, else by its pin and the ISR register.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use super::Placement;
use super::msix::{self, Msix};
use crate::virtio::spec::{ISR_CONFIG, ISR_QUEUE, NO_VECTOR};
use crate::virtio::{Notifier, lock};
use crate::{InterruptFabric, IrqLine, MsiVector};

/// The pin. One lock for both, as a line raised after its cause was read would stay up.
#[derive(Debug, Default)]
struct Intx {
    isr: u8,
    disabled: bool,
    level: bool,
}

/// Interrupt state, shared with the I/O thread.
#[derive(Debug)]
pub(super) struct Interrupts {
    msix: Mutex<Msix>,
    /// The vectors of `msix`, for signalling without its lock.
    vectors: Vec<Arc<dyn MsiVector>>,
    msix_enabled: AtomicBool,
    /// One a queue.
    queue_vectors: Vec<AtomicU16>,
    config_vector: AtomicU16,
    intx: Mutex<Intx>,
    line: Arc<dyn IrqLine>,
    needs_reset: AtomicBool,
}

impl Interrupts {
    pub(super) fn new(fabric: &dyn InterruptFabric, placement: Placement, queues: usize) -> io::Result<Self> {
        let msix = Msix::new(fabric, placement.requester, queues + 1)?;
        Ok(Self {
            vectors: msix.vectors(),
            msix: Mutex::new(msix),
            msix_enabled: AtomicBool::new(false),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            config_vector: AtomicU16::new(NO_VECTOR),
            intx: Mutex::new(Intx::default()),
            line: placement.line,
            needs_reset: AtomicBool::new(false),
        })
    }

    pub(super) fn set_msix_control(&self, control: u16) {
        let mut msix = lock(&self.msix);
        let enabled = control & msix::ENABLE != 0;
        msix.set_control(control);
        self.msix_enabled.store(enabled, Ordering::Release);
        drop(msix);
        // With messages on, the pin is silent (PCIe 6.0 §7.7.2.2).
        self.update_pin(|_| {});
    }

    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        lock(&self.msix).read_table(offset, data);
    }

    pub(super) fn write_table(&self, offset: u64, data: &[u8]) {
        lock(&self.msix).write_table(offset, data);
    }

    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        lock(&self.msix).read_pending(offset, data);
    }

    /// The vector of a queue.
    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        self.queue_vectors
            .get(usize::from(queue))
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed))
    }

    /// Maps a queue to a vector; one that does not exist reads back as none (virtio 1.2 §4.1.5.1.2).
    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(usize::from(queue)) {
            slot.store(self.existing(vector), Ordering::Relaxed);
        }
    }

    /// The vector of config changes.
    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Relaxed)
    }

    /// Maps config changes to a vector.
    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.existing(vector), Ordering::Relaxed);
    }

    fn existing(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.vectors.len() {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// Reads ISR, which clears it and lowers the pin.
    pub(super) fn take_isr(&self) -> u8 {
        let mut isr = 0;
        self.update_pin(|intx| isr = std::mem::take(&mut intx.isr));
        isr
    }

    /// What the status register shows, whether or not the pin may be used.
    pub(super) fn intx_pending(&self) -> bool {
        lock(&self.intx).isr != 0 && !self.msix_enabled.load(Ordering::Acquire)
    }

    pub(super) fn set_intx_disabled(&self, disabled: bool) {
        self.update_pin(|intx| intx.disabled = disabled);
    }

    /// Whether the device gave up.
    pub(super) fn needs_reset_seen(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Device reset: what virtio mapped goes, the MSI-X table stays.
    pub(super) fn device_reset(&self) {
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Relaxed);
        }
        self.config_vector.store(NO_VECTOR, Ordering::Relaxed);
        self.needs_reset.store(false, Ordering::Release);
        lock(&self.msix).discard();
        self.update_pin(|intx| intx.isr = 0);
    }

    /// Platform reset. The device has been reset before.
    pub(super) fn power_on(&self) {
        self.msix_enabled.store(false, Ordering::Release);
        lock(&self.msix).power_on();
    }

    fn signal(&self, vector: u16, cause: u8) {
        if self.msix_enabled.load(Ordering::Acquire) {
            if let Some(vector) = self.vectors.get(usize::from(vector)) {
                // It fails when the counter is full: the event is signalled then.
                let _ = vector.event().write(1);
            }
        } else {
            self.update_pin(|intx| intx.isr |= cause);
        }
    }

    fn update_pin(&self, change: impl FnOnce(&mut Intx)) {
        let mut intx = lock(&self.intx);
        change(&mut intx);
        let level = intx.isr != 0 && !intx.disabled && !self.msix_enabled.load(Ordering::Acquire);
        if level != intx.level {
            intx.level = level;
            self.line.set(level);
        }
    }
}

impl Notifier for Interrupts {
    fn queue_used(&self, queue: u16) {
        self.signal(self.queue_vector(queue), ISR_QUEUE);
    }

    fn config_changed(&self) {
        self.signal(self.config_vector(), ISR_CONFIG);
    }

    fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.config_changed();
    }
}
