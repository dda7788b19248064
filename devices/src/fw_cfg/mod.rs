//! fw_cfg: how the firmware learns what machine it runs on (QEMU docs/specs/fw_cfg; edk2 OvmfPkg/Library/QemuFwCfgLib).
//!
//! An item is selected by its key and then read, byte by byte from a port or by DMA. Reads past an item's end give zeros.

mod items;

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub use items::{FileContent, FwCfgError, FwCfgItems, Generator, key};

use crate::chipset::ports::ports;
use crate::lock::lock;
use crate::{BusDevice, Effect, Region};
use items::Store;

/// First of the ports.
pub const PORT_BASE: u16 = 0x510;
/// Number of ports: selector, data, and eight of the DMA address.
pub const PORT_COUNT: u16 = 12;

/// Offsets from [`PORT_BASE`].
mod port {
    pub const SELECTOR: u64 = 0;
    pub const DATA: u64 = 1;
    pub const DMA_HIGH: u64 = 4;
    pub const DMA_LOW: u64 = 8;
}

/// What the DMA ports read as: that DMA is there.
const DMA_SIGNATURE: &[u8; 8] = b"QEMU CFG";

/// Bits of a descriptor's control word.
mod control {
    pub const ERROR: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const SKIP: u32 = 1 << 2;
    pub const SELECT: u32 = 1 << 3;
    pub const WRITE: u32 = 1 << 4;
}

/// Selector bit of the obsolete write channel, which selects the same items.
const WRITE_CHANNEL: u16 = 0x4000;

/// A DMA copies this much at a time, whatever length the guest names.
const CHUNK: usize = 64 << 10;

/// How far past an item's end a DMA may ask for zeros. Firmware rounds up to a page at most; without a bound a guest could keep a vCPU
/// here for as long as zeroing 4 GiB takes.
const PADDING_MAX: u64 = 64 << 20;

/// Guest memory, as far as DMA needs it.
pub trait GuestBytes: Send + Sync + std::fmt::Debug {
    /// Fills `data` from guest-physical `address`; false if not all of it is RAM.
    fn read(&self, address: u64, data: &mut [u8]) -> bool;

    /// Stores `data` at guest-physical `address`; false if not all of it is RAM.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

impl GuestBytes for GuestMemoryMmap {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.read_slice(data, GuestAddress(address)).is_ok()
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        self.write_slice(data, GuestAddress(address)).is_ok()
    }
}

/// The device.
#[derive(Debug)]
pub struct FwCfg {
    memory: Arc<dyn GuestBytes>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    selected: u16,
    /// Bytes of the selected item already passed; may be far beyond its end.
    offset: u64,
    /// The high half of a descriptor's address, until the low half comes.
    dma_high: u32,
    /// A guest's broken descriptor is reported once.
    reported: bool,
}

impl FwCfg {
    /// The device that serves `items`, with DMA to `memory`.
    pub fn new(items: FwCfgItems, memory: Arc<dyn GuestBytes>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            state: Mutex::new(State {
                store: items.finish(),
                selected: 0,
                offset: 0,
                dma_high: 0,
                reported: false,
            }),
        })
    }

    /// Appends the ports.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(ports(PORT_BASE, u64::from(PORT_COUNT), Arc::<Self>::clone(self)));
    }

    /// What a file holds at this moment, the guest's writes included. Generates a lazy file if the guest has not read it yet.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.state).store.file(name)
    }

    /// Back to power-on: nothing selected, writable files as they were given, generated files to be generated again.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        state.store.reset();
        state.select(0);
        state.dma_high = 0;
    }
}

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset {
            port::DATA => {
                let mut state = lock(&self.state);
                let State {
                    store,
                    selected,
                    offset,
                    ..
                } = &mut *state;
                store.read(*selected, usize::try_from(*offset).unwrap_or(usize::MAX), data);
                *offset = offset.saturating_add(data.len() as u64);
            }
            port::DMA_HIGH.. => {
                let signature = usize::try_from(offset - port::DMA_HIGH)
                    .ok()
                    .and_then(|start| DMA_SIGNATURE.get(start..))
                    .unwrap_or_default();
                let bytes = signature.iter().chain(std::iter::repeat(&0xff));
                data.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            }
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut state = lock(&self.state);
        match (offset, data) {
            (port::SELECTOR, &[low, high]) => state.select(u16::from_le_bytes([low, high])),
            (port::DMA_HIGH, &[a, b, c, d]) => state.dma_high = u32::from_be_bytes([a, b, c, d]),
            (port::DMA_LOW, &[a, b, c, d]) => {
                let low = u32::from_be_bytes([a, b, c, d]);
                let descriptor = u64::from(std::mem::take(&mut state.dma_high)) << 32 | u64::from(low);
                state.dma(&*self.memory, descriptor);
            }
            _ => {}
        }
        Effect::None
    }
}

/// A DMA that goes wrong: the guest named what is not RAM, or a write that does not fit a writable file.
#[derive(Debug)]
struct DmaError;

impl State {
    fn select(&mut self, key: u16) {
        self.selected = key & !WRITE_CHANNEL;
        self.offset = 0;
    }

    /// Carries out the descriptor at `address`, within the guest's OUT.
    ///
    /// OVMF waits for a control word of exactly 0 in a loop without exits, so an error hangs it: there is none where the guest could
    /// have meant well (past the end, length 0). A buffer outside RAM is none of these; the report says why the guest then hangs.
    fn dma(&mut self, memory: &dyn GuestBytes, address: u64) {
        let mut bytes = [0; 16];
        let mut outcome = 0;
        if memory.read(address, &mut bytes) {
            let [c0, c1, c2, c3, l0, l1, l2, l3, buffer @ ..] = bytes;
            let control = u32::from_be_bytes([c0, c1, c2, c3]);
            let len = u32::from_be_bytes([l0, l1, l2, l3]);
            let buffer = u64::from_be_bytes(buffer);
            if self.transfer(memory, control, len, buffer).is_err() {
                outcome = control::ERROR;
                self.report(address, control, len, buffer);
            }
        } else {
            outcome = control::ERROR;
            self.report(address, 0, 0, 0);
        }
        // Where the descriptor itself is not RAM there is nowhere to say so.
        let _ = memory.write(address, &u32::to_be_bytes(outcome));
    }

    fn report(&mut self, descriptor: u64, control: u32, len: u32, buffer: u64) {
        if !std::mem::replace(&mut self.reported, true) {
            let selected = self.selected;
            tracing::warn!(
                "fw_cfg: the guest's DMA failed (descriptor {descriptor:#x}, control {control:#x}, length {len:#x}, \
                 buffer {buffer:#x}, item {selected:#x}); later failures are not reported"
            );
        }
    }

    fn transfer(&mut self, memory: &dyn GuestBytes, control: u32, len: u32, buffer: u64) -> Result<(), DmaError> {
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if control & control::READ != 0 {
            self.copy_out(memory, len, buffer)
        } else if control & control::WRITE != 0 {
            self.copy_in(memory, len, buffer)
        } else {
            if control & control::SKIP != 0 {
                self.offset = self.offset.saturating_add(u64::from(len));
            }
            Ok(())
        }
    }

    fn copy_out(&mut self, memory: &dyn GuestBytes, len: u32, buffer: u64) -> Result<(), DmaError> {
        let rest = (self.store.len(self.selected) as u64).saturating_sub(self.offset);
        if u64::from(len) > rest.saturating_add(PADDING_MAX) {
            return Err(DmaError);
        }
        let mut chunk = vec![0; CHUNK.min(len as usize)];
        self.chunks(len, buffer, |state, offset, address, size| {
            let chunk = chunk.get_mut(..size).ok_or(DmaError)?;
            state.store.read(state.selected, offset, chunk);
            memory.write(address, chunk).then_some(()).ok_or(DmaError)
        })
    }

    fn copy_in(&mut self, memory: &dyn GuestBytes, len: u32, buffer: u64) -> Result<(), DmaError> {
        let mut chunk = vec![0; CHUNK.min(len as usize)];
        self.chunks(len, buffer, |state, offset, address, size| {
            let chunk = chunk.get_mut(..size).ok_or(DmaError)?;
            let moved = memory.read(address, chunk) && state.store.write(state.selected, offset, chunk);
            moved.then_some(()).ok_or(DmaError)
        })
    }

    /// Calls `step` with item offset, guest address and size of one piece after the other.
    fn chunks(
        &mut self,
        len: u32,
        buffer: u64,
        mut step: impl FnMut(&mut Self, usize, u64, usize) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        let len = u64::from(len);
        let mut done = 0;
        while done < len {
            let size = (len - done).min(CHUNK as u64);
            let address = buffer.checked_add(done).ok_or(DmaError)?;
            let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
            step(self, offset, address, size as usize)?;
            self.offset = self.offset.saturating_add(size);
            done += size;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
