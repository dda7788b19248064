//! What the host tells us about a device while the guest has it: that it failed, or that it is wanted back.

use devices::pci::spec;
use vfio_bindings::bindings::vfio::{VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::host::Bdf;
use crate::io::{DeviceIo, IrqRequest};

/// Events of one device for the machine's event loop.
#[derive(Debug)]
pub struct HostNotices {
    /// The device reported an error it cannot recover from; the guest's state is not to be trusted.
    pub error: Option<EventFd>,
    /// The host wants the device back (a driver unbind, an unplug) and waits, uninterruptibly, until it is closed.
    pub request: Option<EventFd>,
}

impl HostNotices {
    /// Arms both notices, as far as the device has them.
    pub(crate) fn arm(io: &dyn DeviceIo, bdf: Bdf) -> Self {
        let arm = |index: u32, what: &str| -> Option<EventFd> {
            if io.irq(index).count == 0 {
                return None;
            }
            let armed = EventFd::new(EFD_NONBLOCK).and_then(|event| {
                io.set_irqs(&IrqRequest::trigger(index, 0, &[Some(&event)]))
                    .map(|_| event)
            });
            armed
                .inspect_err(|error| tracing::warn!("{bdf}: no notice of {what}: {error}"))
                .ok()
        };
        Self {
            error: arm(VFIO_PCI_ERR_IRQ_INDEX, "errors"),
            request: arm(VFIO_PCI_REQ_IRQ_INDEX, "the host's requests"),
        }
    }

    /// Disarms what is armed.
    pub(crate) fn disarm(&self, io: &dyn DeviceIo) {
        for (event, index) in [
            (&self.error, VFIO_PCI_ERR_IRQ_INDEX),
            (&self.request, VFIO_PCI_REQ_IRQ_INDEX),
        ] {
            if event.is_some() {
                // The descriptor is closed right after this, which disarms what is left.
                let _ = io.set_irqs(&IrqRequest::disable(index));
            }
        }
    }
}

/// A device that answers config reads with all ones has gone; worth knowing when an error notice comes.
pub(crate) fn answers(io: &dyn DeviceIo) -> bool {
    let mut vendor = [0xff; 2];
    io.read(crate::io::CONFIG_REGION, spec::VENDOR_ID.into(), &mut vendor)
        .is_ok()
        && vendor != [0xff; 2]
}
