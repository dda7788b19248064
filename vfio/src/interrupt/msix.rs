//! MSI-X (PCI Express Base Specification 6.0 §7.7.2): a table of messages, of which the guest's copy is kept here. The
//! device's own table is the kernel's.

use std::io;

use devices::MsiMessage;
use vfio_bindings::bindings::vfio::VFIO_PCI_MSIX_IRQ_INDEX;

use super::msi::Routed;
use super::{Wiring, disable};
use crate::config_space::ConfigSpace;
use crate::discover::{Config, MsixLayout};
use crate::io::IrqRequest;

/// Bytes of a table entry.
const ENTRY: usize = 16;
/// Vector control, bit 0: masked (§7.7.2.9).
const MASKED: u32 = 1;

#[derive(Debug)]
pub(crate) struct Msix {
    pub(crate) layout: MsixLayout,
    table: Vec<u8>,
    /// Vectors the guest has used, by entry.
    vectors: Vec<Option<Routed>>,
    /// Vectors VFIO has enabled; 0 while MSI-X is off.
    attached: usize,
    function_masked: bool,
}

impl Msix {
    pub(super) fn new(layout: MsixLayout) -> Self {
        let mut msix = Self {
            layout,
            table: Vec::new(),
            vectors: Vec::new(),
            attached: 0,
            function_masked: false,
        };
        msix.reset();
        msix
    }

    /// All entries empty and masked.
    pub(super) fn reset(&mut self) {
        let mut entry = [0; ENTRY];
        entry[12] = 1;
        self.table = entry.repeat(self.layout.vectors.into());
        self.vectors = (0..self.layout.vectors).map(|_| None).collect();
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        config.shadow().u16(self.layout.offset + 2)
    }

    pub(super) fn enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & 0x8000 != 0
    }

    /// What entry `index` is to send; `None` while it is masked.
    fn message(&self, wiring: &Wiring, index: usize) -> Option<MsiMessage> {
        let entry = Config(self.table.get(index * ENTRY..)?.get(..ENTRY)?);
        let masked = self.function_masked || entry.u32(12) & MASKED != 0;
        let address = u64::from(entry.u32(4)) << 32 | u64::from(entry.u32(0) & !3);
        (!masked).then(|| MsiMessage {
            address,
            data: entry.u32(8),
            requester: wiring.requester,
        })
    }

    pub(super) fn enter(&mut self, wiring: &Wiring, config: &ConfigSpace) -> io::Result<()> {
        self.function_masked = self.control(config) & 0x4000 != 0;
        let result = self.start(wiring);
        if result.is_err() {
            self.leave(wiring);
        }
        result
    }

    fn start(&mut self, wiring: &Wiring) -> io::Result<()> {
        let mut used = 0;
        for index in 0..self.vectors.len() {
            if self.point(wiring, index)? {
                used = index + 1;
            }
        }
        // Before Linux 6.5 the number of vectors is fixed when MSI-X is enabled: take them all then, rather than
        // disable and enable again in front of a running device, which loses interrupts. At least one either way: the
        // device's MSI-X enable bit follows that of vector 0, and a driver may look at it.
        let fixed = wiring.io.irq(VFIO_PCI_MSIX_IRQ_INDEX).no_resize;
        self.attach(wiring, if fixed { self.vectors.len() } else { used.max(1) })
    }

    fn attach(&mut self, wiring: &Wiring, mut count: usize) -> io::Result<()> {
        loop {
            let events: Vec<_> = self
                .vectors
                .iter()
                .take(count)
                .map(|slot| slot.as_ref().map(|routed| routed.vector.event()))
                .collect();
            let possible = wiring
                .io
                .set_irqs(&IrqRequest::trigger(VFIO_PCI_MSIX_IRQ_INDEX, 0, &events))?
                as usize;
            if possible == 0 {
                self.attached = count;
                return Ok(());
            }
            if possible >= count {
                return Err(io::Error::other("the kernel offers no fewer vectors than it refused"));
            }
            count = possible;
        }
    }

    /// Routes entry `index` as the table says. Says whether it has a vector.
    fn point(&mut self, wiring: &Wiring, index: usize) -> io::Result<bool> {
        let message = self.message(wiring, index);
        let Some(slot) = self.vectors.get_mut(index) else {
            return Ok(false);
        };
        if slot.is_none() && message.is_some() {
            *slot = Some(Routed::new(wiring)?);
        }
        if let Some(routed) = slot {
            // A masked vector keeps its event at VFIO: what fires meanwhile stays in it and shows as pending.
            routed.point(message)?;
        }
        Ok(slot.is_some())
    }

    /// Routes entry `index` while MSI-X is on; a vector's first use hands its event to VFIO.
    fn refresh(&mut self, wiring: &Wiring, index: usize) -> io::Result<()> {
        let new = self.vectors.get(index).is_some_and(Option::is_none);
        // Routed first, attached second: the first interrupt finds its way.
        if !self.point(wiring, index)? || !new {
            return Ok(());
        }
        let Some(Some(routed)) = self.vectors.get(index) else {
            return Ok(());
        };
        let start = u32::try_from(index).unwrap_or(u32::MAX);
        let events = [Some(routed.vector.event())];
        wiring
            .io
            .set_irqs(&IrqRequest::trigger(VFIO_PCI_MSIX_IRQ_INDEX, start, &events))?;
        self.attached = self.attached.max(index + 1);
        Ok(())
    }

    pub(super) fn update(&mut self, wiring: &Wiring, config: &ConfigSpace) -> io::Result<()> {
        let masked = self.control(config) & 0x4000 != 0;
        if masked == self.function_masked {
            return Ok(());
        }
        self.function_masked = masked;
        (0..self.vectors.len()).try_for_each(|index| self.refresh(wiring, index))
    }

    /// Reads the table.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = at
                .checked_add(index)
                .and_then(|at| self.table.get(at))
                .copied()
                .unwrap_or(0xff);
        }
    }

    /// Writes the table and follows up on the entries touched.
    pub(super) fn write(&mut self, wiring: &Wiring, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, new) in data.iter().enumerate() {
            if let Some(byte) = at.checked_add(index).and_then(|at| self.table.get_mut(at)) {
                *byte = *new;
            }
        }
        if self.attached == 0 || data.is_empty() {
            return Ok(());
        }
        let last = at.saturating_add(data.len() - 1) / ENTRY;
        (at / ENTRY..=last.min(self.vectors.len())).try_for_each(|index| self.refresh(wiring, index))
    }

    /// Adds what waits in masked vectors to bytes of the device's pending bits, `offset` bytes into them.
    pub(crate) fn add_pending(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let first = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .saturating_add(index)
                .saturating_mul(8);
            for bit in 0..8 {
                let slot = first.checked_add(bit).and_then(|vector| self.vectors.get(vector));
                if slot.and_then(Option::as_ref).is_some_and(Routed::pending) {
                    *byte |= 1 << bit;
                }
            }
        }
    }

    pub(super) fn leave(&mut self, wiring: &Wiring) {
        disable(wiring, VFIO_PCI_MSIX_IRQ_INDEX);
        self.attached = 0;
        self.vectors.iter_mut().for_each(|slot| *slot = None);
    }
}
