//! The MSI-X table and pending bits of an emulated function (PCIe 6.0 §6.1.4, §7.7.2).

use std::io;
use std::sync::Arc;

use tracing::warn;

use crate::{InterruptFabric, MsiMessage, MsiVector};

/// Message control: MSI-X is enabled.
pub(super) const ENABLE: u16 = 1 << 15;
/// Message control: all vectors are masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Vector control: this vector is masked.
const MASK: u32 = 1;
/// Bytes of an entry.
const ENTRY: u64 = 16;

/// Address low, address high, data, vector control.
#[derive(Debug, Clone, Copy)]
struct Entry([u32; 4]);

impl Entry {
    /// Masked, as after a reset.
    const POWER_ON: Entry = Entry([0, 0, 0, MASK]);

    fn message(self, requester: u16) -> MsiMessage {
        let Entry([low, high, data, _]) = self;
        MsiMessage {
            address: u64::from(high) << 32 | u64::from(low & !3),
            data,
            requester,
        }
    }

    fn masked(self) -> bool {
        let Entry([.., control]) = self;
        control & MASK != 0
    }
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    vector: Arc<dyn MsiVector>,
    /// Where the vector goes now.
    routed: Option<MsiMessage>,
}

/// A table, and the vectors its entries route.
#[derive(Debug)]
pub(super) struct Msix {
    slots: Vec<Slot>,
    control: u16,
    requester: u16,
    /// A route was refused before; once is enough for the log.
    failed: bool,
}

impl Msix {
    /// `count` vectors, all masked.
    pub(super) fn new(fabric: &dyn InterruptFabric, requester: u16, count: usize) -> io::Result<Self> {
        let slots = (0..count)
            .map(|_| {
                Ok(Slot {
                    entry: Entry::POWER_ON,
                    vector: fabric.msi_vector()?,
                    routed: None,
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            slots,
            control: 0,
            requester,
            failed: false,
        })
    }

    /// The vectors in order, for those who signal them.
    pub(super) fn vectors(&self) -> Vec<Arc<dyn MsiVector>> {
        self.slots.iter().map(|slot| Arc::clone(&slot.vector)).collect()
    }

    /// Takes over message control.
    pub(super) fn set_control(&mut self, control: u16) {
        self.control = control;
        for index in 0..self.slots.len() {
            self.sync(index);
        }
    }

    /// Reads the table.
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data.iter_mut()) {
            let dword = usize::try_from(at / ENTRY)
                .ok()
                .and_then(|index| self.slots.get(index))
                .and_then(|slot| slot.entry.0.get((at % ENTRY / 4) as usize));
            *byte = dword.map_or(0, |dword| (dword >> (8 * (at % 4))) as u8);
        }
    }

    /// Writes the table: aligned dwords or qwords, as the specification asks of software.
    pub(super) fn write_table(&mut self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            return;
        }
        for (at, bytes) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let Some(index) = usize::try_from(at / ENTRY).ok() else {
                return;
            };
            let Some(slot) = self.slots.get_mut(index) else { return };
            let field = (at % ENTRY / 4) as usize;
            // Only the mask bit of vector control exists.
            let valid = if field == 3 { MASK } else { u32::MAX };
            let value = bytes.try_into().map_or(0, u32::from_le_bytes);
            if let Some(dword) = slot.entry.0.get_mut(field) {
                *dword = value & valid;
            }
            self.sync(index);
        }
    }

    /// Reads the pending bits.
    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data.iter_mut()) {
            *byte = 0;
            for bit in 0..8 {
                let index = usize::try_from(at.saturating_mul(8).saturating_add(bit)).ok();
                let slot = index.and_then(|index| self.slots.get(index));
                if slot.is_some_and(|slot| slot.routed.is_none() && slot.vector.pending()) {
                    *byte |= 1 << bit;
                }
            }
        }
    }

    /// Back to power-on; signals that wait are dropped.
    pub(super) fn power_on(&mut self) {
        self.control = 0;
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.entry = Entry::POWER_ON;
            }
            self.sync(index);
        }
        self.discard();
    }

    /// Drops the signals that wait for a mask to go away.
    pub(super) fn discard(&mut self) {
        for slot in &self.slots {
            // Without a route nobody but us reads the event, so this does not block.
            if slot.routed.is_none() && slot.vector.pending() {
                let _ = slot.vector.event().read();
            }
        }
    }

    /// Makes a vector's route what the guest asked for.
    fn sync(&mut self, index: usize) {
        let open = self.control & (ENABLE | FUNCTION_MASK) == ENABLE;
        let Some(slot) = self.slots.get_mut(index) else { return };
        let wanted = (open && !slot.entry.masked()).then(|| slot.entry.message(self.requester));
        if wanted == slot.routed {
            return;
        }
        let result = match wanted {
            Some(message) => slot.vector.route(message),
            None => slot.vector.unroute(),
        };
        slot.routed = wanted;
        if let Err(error) = result
            && !self.failed
        {
            self.failed = true;
            warn!(%error, index, ?wanted, "message not routed; further failures of this function are not logged");
        }
    }
}
