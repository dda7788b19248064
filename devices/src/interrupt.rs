//! How devices interrupt the guest: traits that the machine implements with KVM's irqfds and routes.

use std::fmt;
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// A message-signalled interrupt as the guest programmed it (PCI 3.0 §6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// The 64-bit address.
    pub address: u64,
    /// The data.
    pub data: u32,
    /// The function that sends it, bus << 8 | device << 3 | function, for interrupt remapping.
    pub requester: u16,
}

/// One message-signalled vector: an eventfd that KVM turns into the message without user space.
pub trait MsiVector: Send + Sync + fmt::Debug {
    /// The event whose signal sends the message. Handed to VFIO, or written by an emulated device.
    fn event(&self) -> &EventFd;

    /// Routes the event to `message` from now on. Signals that came while there was no route are delivered once.
    ///
    /// # Errors
    /// What KVM says.
    fn route(&self, message: MsiMessage) -> io::Result<()>;

    /// Cuts the event off from the guest. Signals stay pending in the event, where [`MsiVector::pending`] finds them.
    ///
    /// # Errors
    /// What KVM says.
    fn unroute(&self) -> io::Result<()>;

    /// Whether a signal waits while there is no route; what a Pending Bit Array shows. Does not consume it.
    fn pending(&self) -> bool;
}

/// A level-triggered line of an emulated device. Lines that share a GSI are OR-ed.
pub trait IrqLine: Send + Sync + fmt::Debug {
    /// Asserts or deasserts this device's share of the line.
    fn set(&self, level: bool);

    /// Raises and lowers the line: one edge (ISA devices).
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// The interrupt controllers of the machine.
pub trait InterruptFabric: Send + Sync + fmt::Debug {
    /// A new message vector; given back when dropped.
    ///
    /// # Errors
    /// No GSI is left, or what KVM says.
    fn msi_vector(&self) -> io::Result<Arc<dyn MsiVector>>;

    /// A new share of the line `gsi`.
    fn line(&self, gsi: u32) -> Arc<dyn IrqLine>;

    /// Makes `trigger` assert the level-triggered `gsi` in the kernel; the guest's end of interrupt deasserts it and signals `resample`.
    ///
    /// # Errors
    /// What KVM says.
    fn connect_level(&self, gsi: u32, trigger: &EventFd, resample: &EventFd) -> io::Result<()>;

    /// Undoes [`InterruptFabric::connect_level`].
    ///
    /// # Errors
    /// What KVM says.
    fn disconnect_level(&self, gsi: u32, trigger: &EventFd) -> io::Result<()>;
}
