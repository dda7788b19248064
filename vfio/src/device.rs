//! An assigned function on the guest's PCI bus.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use devices::pci::{ByteEnables, PciFunction, spec};
use devices::{BusDevice, Effect, InterruptFabric, Region};
use vfio_bindings::bindings::vfio::VFIO_PCI_INTX_IRQ_INDEX;

use crate::assignment::{OpenFunction, Placement};
use crate::bar::AssignedBar;
use crate::config_space::{ConfigSpace, View};
use crate::discover::{Config, Layout};
use crate::group::Group;
use crate::host::Bdf;
use crate::interrupt::{Interrupts, Mode, Wiring};
use crate::io::{CONFIG_REGION, DeviceIo};
use crate::request::{self, HostNotices};
use crate::reset::{self, ResetMethod, Resets};
use crate::rom::Rom;

/// An assigned function.
///
/// The machine must drop the regions it took from it before the last reference: while a BAR is mapped the kernel keeps
/// the device open, and the group busy.
#[derive(Debug)]
pub struct VfioPciDevice {
    inner: Arc<Inner>,
    /// Who answers trapped accesses, by BAR.
    accesses: Vec<Arc<dyn BusDevice>>,
    notices: HostNotices,
}

/// Fields are dropped in order: mappings and the device descriptor before the group.
#[derive(Debug)]
pub(crate) struct Inner {
    bdf: Bdf,
    layout: Layout,
    state: Mutex<State>,
    bars: Vec<AssignedBar>,
    rom: Option<Rom>,
    io: Arc<dyn DeviceIo>,
    resets: OnceLock<Arc<Resets>>,
    _group: Option<Arc<Group>>,
}

#[derive(Debug)]
struct State {
    config: ConfigSpace,
    interrupts: Interrupts,
    /// Not in D0: memory does not answer.
    asleep: bool,
    /// The device's own memory decode is on.
    decoding: bool,
}

/// What the guest has decoded: BARs by number and the ROM.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    bars: Vec<(usize, u64)>,
    rom: Option<u64>,
}

impl VfioPciDevice {
    /// Fits an open function into its place.
    ///
    /// # Errors
    /// Eventfds could not be made.
    pub(crate) fn new(
        function: OpenFunction,
        placement: Placement,
        fabric: Arc<dyn InterruptFabric>,
    ) -> io::Result<Self> {
        let OpenFunction {
            host,
            layout,
            config,
            bars,
            io,
            group,
            ..
        } = function;
        let (bdf, kinds) = (host.bdf, bars);
        let rom = Rom::new(io.as_ref(), placement.rom);
        let gsi = placement
            .intx_gsi
            .filter(|_| layout.interrupt_pin != 0 && io.irq(VFIO_PCI_INTX_IRQ_INDEX).count > 0);
        let view = View {
            multifunction: placement.multifunction,
            intx: gsi.is_some(),
            rom: rom.as_ref().map_or(0, |rom| rom.size),
        };
        let wiring = Wiring {
            io: io.clone(),
            fabric,
            requester: placement.devfn.into(),
        };
        let state = State {
            config: ConfigSpace::new(Config(&config), &layout, kinds, view),
            interrupts: Interrupts::new(wiring, bdf, &layout, gsi)?,
            asleep: false,
            decoding: false,
        };
        let bars: Vec<AssignedBar> = (0..)
            .zip(kinds)
            .filter_map(|(index, bar)| Some(AssignedBar::new(io.as_ref(), bdf, index, bar?, &layout)))
            .collect();
        for bar in &bars {
            let (index, bytes, direct) = (bar.index, bar.bar.size, bar.direct_size());
            tracing::debug!(
                "{bdf}: BAR {index}: {:?}, {bytes:#x} bytes, {direct:#x} of them mapped",
                bar.bar.kind
            );
        }
        let notices = HostNotices::arm(io.as_ref(), bdf);
        let state = Mutex::new(state);
        let inner = Arc::new(Inner {
            bdf,
            layout,
            state,
            bars,
            rom,
            io,
            resets: OnceLock::new(),
            _group: group,
        });
        let accesses = (0..inner.bars.len())
            .map(|slot| {
                Arc::new(Access {
                    inner: inner.clone(),
                    slot,
                }) as Arc<dyn BusDevice>
            })
            .collect();
        Ok(Self {
            inner,
            accesses,
            notices,
        })
    }

    /// Its address on the host.
    pub fn bdf(&self) -> Bdf {
        self.inner.bdf
    }

    /// What its config space holds.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Events for the machine's event loop.
    pub fn notices(&self) -> &HostNotices {
        &self.notices
    }

    /// Whether the device answers at all; after an error notice it may have fallen off the bus.
    pub fn answers(&self) -> bool {
        request::answers(self.inner.io.as_ref())
    }

    /// The kind of interrupt enabled now: `INTx`, `MSI`, `MSI-X` or `none`.
    pub fn interrupt_kind(&self) -> &'static str {
        match self.inner.state().interrupts.mode() {
            Mode::Off => "none",
            Mode::Intx => "INTx",
            Mode::Msi => "MSI",
            Mode::Msix => "MSI-X",
        }
    }

    /// How the function is reset.
    pub fn reset_method(&self) -> Option<&ResetMethod> {
        self.inner.resets.get()?.method(self.inner.bdf)
    }

    /// Joins the function to those it is reset together with; done once.
    pub(crate) fn join(&self, resets: &Arc<Resets>) {
        let _ = self.inner.resets.set(resets.clone());
    }

    /// The device's own side.
    pub(crate) fn io(&self) -> &Arc<dyn DeviceIo> {
        &self.inner.io
    }
}

impl PciFunction for VfioPciDevice {
    fn config_read(&self, register: u16) -> u32 {
        self.inner.config_read(register)
    }

    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        self.inner.config_write(register, value, enables)
    }

    fn regions(&self, regions: &mut Vec<Region>) {
        let decoded = self.inner.decoded(&self.inner.state());
        for (slot, base) in decoded.bars {
            if let (Some(bar), Some(access)) = (self.inner.bars.get(slot), self.accesses.get(slot)) {
                bar.regions(base, access, regions);
            }
        }
        regions.extend(
            decoded
                .rom
                .zip(self.inner.rom.as_ref())
                .and_then(|(base, rom)| rom.region(base)),
        );
    }

    fn reset(&self) {
        self.inner.reset();
    }
}

impl Drop for VfioPciDevice {
    fn drop(&mut self) {
        self.inner.quiesce();
        self.notices.disarm(self.inner.io.as_ref());
    }
}

impl Inner {
    /// A thread that panicked while it held the state left it as far as it had come; there is nothing better.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn device_read(&self, register: u16) -> u32 {
        let mut bytes = [0xff; 4];
        match self.io.read(CONFIG_REGION, register.into(), &mut bytes) {
            Ok(()) => u32::from_le_bytes(bytes),
            Err(_) => u32::MAX,
        }
    }

    fn device_write(&self, register: u16, bytes: &[u8]) {
        // Failures are those of a device that has gone, of which the error notice tells.
        if let Err(error) = self.io.write(CONFIG_REGION, register.into(), bytes) {
            tracing::trace!("{}: config write at {register:#x}: {error}", self.bdf);
        }
    }

    fn config_read(&self, register: u16) -> u32 {
        let register = register & !3;
        let state = self.state();
        let value = state.config.read(register, || self.device_read(register));
        match self.layout.msi {
            Some(msi) if msi.maskable() && register == msi.offset + msi.data() + 8 => state.interrupts.msi_pending(),
            _ => value,
        }
    }

    fn config_write(&self, register: u16, value: u32, enables: ByteEnables) -> Effect {
        let register = register & !3;
        let mut state = self.state();
        let before = self.decoded(&state);
        let forward = state.config.write(register, value, enables);
        if register == spec::COMMAND {
            self.forward_command(&mut state, value, forward);
        } else {
            self.forward(register, value, forward);
        }
        self.follow_power(&mut state, register);
        // Only now: INTx needs the device awake, and MSI to be told after the bytes it lives in.
        let State { config, interrupts, .. } = &mut *state;
        interrupts.sync(config);
        let after = self.decoded(&state);
        if let (Some(_), Some(rom)) = (after.rom, &self.rom) {
            rom.load(self.io.as_ref(), self.bdf, (self.layout.vendor, self.layout.device));
        }
        if before == after {
            Effect::None
        } else {
            Effect::Relayout
        }
    }

    /// COMMAND goes to the device but for one thing: memory decode, once on, stays on there until a reset.
    ///
    /// The guest's bit says what is mapped for the guest, which is what it can tell. Were the device's turned off too,
    /// the kernel would tear down every mapping of its BARs, each vCPU that touches one before the machine has removed
    /// it would die of SIGBUS, and each sizing of a BAR would build the mappings anew.
    fn forward_command(&self, state: &mut State, value: u32, forward: [bool; 4]) {
        let [.., status_low, status_high] = value.to_le_bytes();
        let [low, high, rest @ ..] = forward;
        if low || high {
            let command = state.config.command();
            state.decoding |= command & spec::COMMAND_MEMORY != 0;
            let held = if state.decoding { spec::COMMAND_MEMORY } else { 0 };
            self.device_write(spec::COMMAND, &(command | held).to_le_bytes());
        }
        if rest != [false; 2] {
            // STATUS bits are cleared by writing ones: a byte that is not enabled is written as zeros.
            let byte = |enabled: bool, byte: u8| if enabled { byte } else { 0 };
            let [first, second] = rest;
            self.device_write(spec::STATUS, &[byte(first, status_low), byte(second, status_high)]);
        }
    }

    /// Passes bytes on in the width the guest used, as far as they make one access.
    fn forward(&self, register: u16, value: u32, forward: [bool; 4]) {
        let bytes = value.to_le_bytes();
        match forward {
            [true, true, true, true] => self.device_write(register, &bytes),
            [true, true, ..] | [_, _, true, true] => {
                for (offset, (pair, enabled)) in [0u16, 2].into_iter().zip(bytes.chunks(2).zip(forward.chunks(2))) {
                    if enabled == [true, true] {
                        self.device_write(register + offset, pair);
                    } else {
                        self.forward_bytes(register + offset, pair, enabled);
                    }
                }
            }
            _ => self.forward_bytes(register, &bytes, &forward),
        }
    }

    fn forward_bytes(&self, register: u16, bytes: &[u8], enabled: &[bool]) {
        for ((at, byte), enabled) in (register..).zip(bytes).zip(enabled) {
            if *enabled {
                self.device_write(at, &[*byte]);
            }
        }
    }

    /// After a write to the power management registers: is the function still in D0?
    fn follow_power(&self, state: &mut State, register: u16) {
        if let Some(power) = self.layout.power
            && register == power.offset + 4
        {
            // The kernel may refuse a state; what counts is where the function is.
            state.asleep = self.device_read(register) & 3 != 0;
        }
    }

    fn decoded(&self, state: &State) -> Decoded {
        let enabled = |bit: u16| !state.asleep && state.config.command() & bit != 0;
        let (memory, ports) = (enabled(spec::COMMAND_MEMORY), enabled(spec::COMMAND_IO));
        let bars = self.bars.iter().enumerate().filter_map(|(slot, bar)| {
            let on = if bar.bar.kind == devices::pci::BarKind::Io {
                ports
            } else {
                memory
            };
            bar.valid(state.config.bar_address(bar.index))
                .filter(|_| on)
                .map(|base| (slot, base))
        });
        let rom = self.rom.as_ref().filter(|_| memory);
        Decoded {
            bars: bars.collect(),
            rom: rom.and_then(|rom| rom.valid(state.config.rom_address()?)),
        }
    }

    /// Stops interrupts and DMA and wakes the function: what a reset begins with, and what the host gets back.
    fn quiesce(&self) {
        let mut state = self.state();
        // Interrupts first: a device reset with its events still attached may fire one for the last time.
        state.interrupts.reset();
        // Then the bus master bit, with all of COMMAND: no DMA into memory that is about to be another boot's.
        self.device_write(spec::COMMAND, &[0; 2]);
        state.decoding = false;
        if let Some(power) = self.layout.power {
            reset::wake(self.io.as_ref(), self.bdf, power);
        }
        state.asleep = false;
        state.config.reset();
    }

    fn reset(&self) {
        self.quiesce();
        if let Some(resets) = self.resets.get() {
            resets.arrived(self.bdf, self.io.as_ref());
        }
    }
}

/// Accesses to the trapped parts of one BAR.
#[derive(Debug)]
struct Access {
    inner: Arc<Inner>,
    slot: usize,
}

/// Where a trapped access lands.
enum Target {
    Table(u64),
    Pending(u64),
    Device,
}

impl Access {
    fn index(&self) -> u32 {
        self.inner.bars.get(self.slot).map_or(u32::MAX, |bar| bar.index)
    }

    fn target(&self, offset: u64) -> Target {
        let Some(msix) = self.inner.layout.msix else {
            return Target::Device;
        };
        let within = |bar: u8, start: u64, size: u64| {
            let at = offset.checked_sub(start).filter(|at| *at < size);
            at.filter(|_| u32::from(bar) == self.index())
        };
        if let Some(at) = within(msix.table_bar, msix.table_offset, msix.table_size()) {
            return Target::Table(at);
        }
        within(msix.pba_bar, msix.pba_offset, msix.pba_size()).map_or(Target::Device, Target::Pending)
    }

    fn device_read(&self, offset: u64, data: &mut [u8]) {
        if self.inner.io.read(self.index(), offset, data).is_err() {
            // Asleep, decode off, gone, or past the end: nobody answers.
            data.fill(0xff);
        }
    }
}

impl BusDevice for Access {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.target(offset) {
            Target::Table(at) => {
                if let Some(msix) = self.inner.state().interrupts.msix() {
                    msix.read(at, data);
                }
            }
            Target::Pending(at) => {
                self.device_read(offset, data);
                if let Some(msix) = self.inner.state().interrupts.msix() {
                    msix.add_pending(at, data);
                }
            }
            Target::Device => self.device_read(offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match self.target(offset) {
            Target::Table(at) => self.inner.state().interrupts.write_table(at, data),
            // The pending bits are read-only (§7.7.2.10).
            Target::Pending(_) => {}
            Target::Device => {
                if let Err(error) = self.inner.io.write(self.index(), offset, data) {
                    tracing::trace!("{}: BAR {} write at {offset:#x}: {error}", self.inner.bdf, self.index());
                }
            }
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests;
