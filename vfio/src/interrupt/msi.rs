//! MSI (PCI Express Base Specification 6.0 §7.7.1): up to 32 vectors with one address and consecutive data.

use std::io;
use std::sync::Arc;

use devices::{MsiMessage, MsiVector};
use vfio_bindings::bindings::vfio::VFIO_PCI_MSI_IRQ_INDEX;

use super::{Wiring, disable};
use crate::config_space::ConfigSpace;
use crate::discover::MsiLayout;
use crate::io::IrqRequest;

#[derive(Debug)]
pub(super) struct Msi {
    layout: MsiLayout,
    vectors: Vec<Routed>,
}

/// A vector and where it goes now; masked ones go nowhere and keep their signals.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) vector: Arc<dyn MsiVector>,
    message: Option<MsiMessage>,
}

impl Routed {
    pub(super) fn new(wiring: &Wiring) -> io::Result<Self> {
        Ok(Self {
            vector: wiring.fabric.msi_vector()?,
            message: None,
        })
    }

    /// Sends the vector to `message`, or holds it.
    pub(super) fn point(&mut self, message: Option<MsiMessage>) -> io::Result<()> {
        if self.message == message {
            return Ok(());
        }
        match message {
            Some(message) => self.vector.route(message)?,
            None => self.vector.unroute()?,
        }
        self.message = message;
        Ok(())
    }

    pub(super) fn pending(&self) -> bool {
        self.message.is_none() && self.vector.pending()
    }
}

impl Msi {
    pub(super) fn new(layout: MsiLayout) -> Self {
        Self {
            layout,
            vectors: Vec::new(),
        }
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        config.shadow().u16(self.layout.offset + 2)
    }

    pub(super) fn enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & 1 != 0
    }

    /// What vector `index` is to send; `None` while it is masked.
    fn message(&self, wiring: &Wiring, config: &ConfigSpace, index: u16) -> Option<MsiMessage> {
        let (at, shadow) = (self.layout.offset, config.shadow());
        if self.layout.maskable() && shadow.u32(at + self.layout.data() + 4) & (1 << index.min(31)) != 0 {
            return None;
        }
        let high = if self.layout.wide() {
            u64::from(shadow.u32(at + 8)) << 32
        } else {
            0
        };
        // The function puts the vector's number in the low bits of the data (§7.7.1.5).
        let low_bits = self.asked(config) - 1;
        let data = shadow.u16(at + self.layout.data()) & !low_bits | index & low_bits;
        let address = high | u64::from(shadow.u32(at + 4));
        Some(MsiMessage {
            address,
            data: data.into(),
            requester: wiring.requester,
        })
    }

    /// Vectors the guest enabled: a power of two, no more than the function has.
    fn asked(&self, config: &ConfigSpace) -> u16 {
        (1 << ((self.control(config) >> 4) & 7).min(5)).min(self.layout.vectors())
    }

    pub(super) fn enter(&mut self, wiring: &Wiring, config: &ConfigSpace) -> io::Result<()> {
        self.vectors = (0..self.asked(config))
            .map(|_| Routed::new(wiring))
            .collect::<io::Result<_>>()?;
        let result = self.update(wiring, config).and_then(|()| self.attach(wiring));
        if result.is_err() {
            self.leave(wiring);
        }
        result
    }

    /// Hands the events to VFIO. Where the host has fewer vectors to spare the kernel says how many, and the function
    /// works with those: all causes then share the vectors there are.
    fn attach(&mut self, wiring: &Wiring) -> io::Result<()> {
        loop {
            let events: Vec<_> = self.vectors.iter().map(|routed| Some(routed.vector.event())).collect();
            let possible = wiring
                .io
                .set_irqs(&IrqRequest::trigger(VFIO_PCI_MSI_IRQ_INDEX, 0, &events))?
                as usize;
            if possible == 0 {
                return Ok(());
            }
            if possible >= self.vectors.len() {
                return Err(io::Error::other("the kernel offers no fewer vectors than it refused"));
            }
            self.vectors.truncate(possible);
        }
    }

    pub(super) fn update(&mut self, wiring: &Wiring, config: &ConfigSpace) -> io::Result<()> {
        let messages: Vec<_> = (0..)
            .map(|index| self.message(wiring, config, index))
            .take(self.vectors.len())
            .collect();
        self.vectors
            .iter_mut()
            .zip(messages)
            .try_for_each(|(routed, message)| routed.point(message))
    }

    pub(super) fn pending(&self) -> u32 {
        let bits = self.vectors.iter().enumerate().filter(|(_, routed)| routed.pending());
        bits.fold(0, |bits, (index, _)| bits | 1 << index.min(31))
    }

    pub(super) fn leave(&mut self, wiring: &Wiring) {
        // VFIO lets go of the events before they are closed.
        disable(wiring, VFIO_PCI_MSI_IRQ_INDEX);
        self.vectors.clear();
    }
}
