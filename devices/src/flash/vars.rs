//! The flash that holds the UEFI variables.

use std::io;
use std::sync::{Arc, Mutex};

use super::cfi::{BLOCK_SIZE, Cfi, Step, status};
use super::code::check_place;
use super::store::{VarsError, VarsStore};
use crate::lock::lock;
use crate::{Backing, BusDevice, Effect, HostMapping, Region, Space};

/// CFI flash in front of the user's variable store.
///
/// The guest reads the image directly while the flash is in array mode. Programs and erases reach the file first and the image second,
/// one at a time and in the guest's order: whatever the guest has seen done survives the death of this process.
#[derive(Debug)]
pub struct VarsFlash {
    base: u64,
    image: Arc<HostMapping>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cfi: Cfi,
    store: VarsStore,
}

impl VarsFlash {
    /// The variable store at guest-physical `base`.
    ///
    /// # Errors
    /// The base is not a multiple of 4 KiB, memory is short, or the file cannot be read.
    pub fn new(base: u64, store: VarsStore) -> Result<Arc<Self>, VarsError> {
        let bytes = store.load()?;
        check_place(base, bytes.len() as u64).map_err(VarsError::Map)?;
        let image = HostMapping::anonymous(bytes.len()).map_err(VarsError::Map)?;
        image.write(0, &bytes);
        let cfi = Cfi::default();
        Ok(Arc::new(Self {
            base,
            image: Arc::new(image),
            state: Mutex::new(State { cfi, store }),
        }))
    }

    /// Appends the flash's one region: memory in array mode, this device while the guest asks for the status.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        let device: Arc<dyn BusDevice> = Arc::<Self>::clone(self);
        let backing = if lock(&self.state).cfi.shows_status() {
            Backing::Device { device, offset: 0 }
        } else {
            Backing::Host {
                mapping: Arc::clone(&self.image),
                offset: 0,
                writes: Some(device),
            }
        };
        regions.push(Region {
            space: Space::Memory,
            base: self.base,
            size: self.image.len() as u64,
            backing,
        });
    }

    /// Back to the array and a ready chip. The regions may change: the machine lays out anew after a reset.
    pub fn reset(&self) {
        lock(&self.state).cfi = Cfi::default();
    }

    /// Whether something was written that may not have reached the disk yet. It is in the file in any case.
    pub fn dirty(&self) -> bool {
        lock(&self.state).store.dirty()
    }

    /// Waits until what was written is on the disk. A thread of the flash's own does it soon after each change as well; this is for the
    /// end of a run.
    ///
    /// # Errors
    /// What `fdatasync` says.
    pub fn flush(&self) -> io::Result<()> {
        // The file is taken out of the lock, so that no vCPU waits for the disk.
        let sync = lock(&self.state).store.sync();
        sync.map_or(Ok(()), |sync| sync.now())
    }

    fn inside(&self, offset: u64, len: usize) -> bool {
        offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= self.image.len() as u64)
    }

    /// Stores as QEMU's flash does, bits from 0 to 1 included: stock OVMF is tested with that alone.
    fn program(&self, store: &mut VarsStore, offset: u64, data: &[u8]) -> Option<u8> {
        if !self.inside(offset, data.len()) {
            return Some(status::PROGRAM_ERROR);
        }
        let mut old = [0; 8];
        let unchanged = old.get_mut(..data.len()).is_some_and(|old| {
            self.image.read(offset, old);
            old == data
        });
        // The driver's detection programs a byte with what it holds: a boot that sets nothing writes nothing.
        if unchanged && store.writable() {
            return None;
        }
        (!self.store(store, offset, data)).then_some(status::PROGRAM_ERROR)
    }

    fn erase(&self, store: &mut VarsStore, offset: u64) -> Option<u8> {
        let block = offset - offset % BLOCK_SIZE;
        let ones = [0xff; BLOCK_SIZE as usize];
        let done = self.inside(block, ones.len()) && self.store(store, block, &ones);
        (!done).then_some(status::ERASE_ERROR)
    }

    fn store(&self, store: &mut VarsStore, offset: u64, data: &[u8]) -> bool {
        let stored = store.write(offset, data);
        if stored {
            self.image.write(offset, data);
        }
        stored
    }
}

impl BusDevice for VarsFlash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.state);
        if state.cfi.shows_status() {
            data.fill(state.cfi.status());
        } else {
            self.image.read(offset, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        // A wider write than a byte, which OVMF never makes, is one cycle too: its low byte is the command.
        let Some(first) = data.first() else {
            return Effect::None;
        };
        let mut state = lock(&self.state);
        let State { cfi, store } = &mut *state;
        let showed_status = cfi.shows_status();
        match cfi.write(*first) {
            Step::Nothing => {}
            Step::Program => cfi.done(self.program(store, offset, data)),
            Step::Erase => cfi.done(self.erase(store, offset)),
        }
        if cfi.shows_status() == showed_status {
            Effect::None
        } else {
            Effect::Relayout
        }
    }
}

#[cfg(test)]
mod tests;
