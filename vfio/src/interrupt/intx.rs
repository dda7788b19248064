//! The interrupt pin: level-triggered, so the end of interrupt has to travel back.
//!
//! The kernel masks the host's line when it fires and signals `trigger`, with which KVM raises the guest's line. The
//! guest's end of interrupt makes KVM lower the line and signal `resample`, with which VFIO unmasks the host's line. If
//! the device still asserts it, it fires again. None of it comes by here.

use std::io;

use vfio_bindings::bindings::vfio::VFIO_PCI_INTX_IRQ_INDEX;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Wiring, disable};
use crate::io::{IrqAction, IrqData, IrqRequest};

#[derive(Debug)]
pub(super) struct Intx {
    gsi: u32,
    trigger: EventFd,
    resample: EventFd,
}

impl Intx {
    pub(super) fn new(gsi: u32) -> io::Result<Self> {
        Ok(Self {
            gsi,
            trigger: EventFd::new(EFD_NONBLOCK)?,
            resample: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    pub(super) fn enter(&mut self, wiring: &Wiring) -> io::Result<()> {
        // KVM listens before VFIO speaks: an interrupt that found nobody would leave the host's line masked for good.
        wiring.fabric.connect_level(self.gsi, &self.trigger, &self.resample)?;
        let result = self.attach(wiring);
        if result.is_err() {
            self.leave(wiring);
        }
        result
    }

    fn attach(&self, wiring: &Wiring) -> io::Result<()> {
        let index = VFIO_PCI_INTX_IRQ_INDEX;
        wiring
            .io
            .set_irqs(&IrqRequest::trigger(index, 0, &[Some(&self.trigger)]))?;
        // Only an enabled index takes an unmask event. An end of interrupt in between is not lost: VFIO looks at the
        // event's count when it is attached.
        let data = IrqData::Events(&[Some(&self.resample)]);
        wiring.io.set_irqs(&IrqRequest {
            index,
            start: 0,
            action: IrqAction::Unmask,
            data,
        })?;
        Ok(())
    }

    pub(super) fn leave(&mut self, wiring: &Wiring) {
        // The device first, or a last interrupt would leave the guest's line raised with nobody to lower it: taking the
        // events from KVM lowers it.
        disable(wiring, VFIO_PCI_INTX_IRQ_INDEX);
        if let Err(error) = wiring.fabric.disconnect_level(self.gsi, &self.trigger) {
            tracing::trace!("GSI {} was not disconnected: {error}", self.gsi);
        }
        // Counts left over would be taken for interrupts when the pin is used again.
        let _ = self.trigger.read();
        let _ = self.resample.read();
    }
}
