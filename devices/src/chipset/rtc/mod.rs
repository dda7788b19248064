//! The real-time clock and its battery-backed memory (Motorola MC146818 datasheet; ICH9 datasheet §13.6).
//!
//! The guest's clock is the host's plus an offset, which setting the clock changes. Nothing ticks: time is worked out when somebody
//! looks, and a timer runs only while an interrupt is enabled.

mod calendar;
mod state;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::ports::ports;
use crate::clock::Clock;
use crate::lock::lock;
use crate::{BusDevice, Effect, IrqLine, Region};
use state::{Now, State};

/// The index port; the data port follows.
pub const PORT_BASE: u16 = 0x70;
/// The clock's ISA interrupt.
pub const IRQ: u32 = 8;
/// The register that holds the century, for FADT.CENTURY.
pub const CENTURY: u8 = 0x32;

/// Offsets from [`PORT_BASE`].
const INDEX: u64 = 0;
const DATA: u64 = 1;

/// What the clock and its memory start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RtcOptions {
    /// RAM below 4 GiB, in bytes.
    pub ram_below_4g: u64,
    /// RAM above 4 GiB, in bytes.
    pub ram_above_4g: u64,
    /// What the clock shows, in seconds east of UTC: 0 for guests that keep UTC, the local offset for Windows.
    pub utc_offset_s: i32,
}

/// The device.
///
/// Its interrupts need a timer of the event loop's: arm one at [`Rtc::next_deadline`], call [`Rtc::tick`] when it fires, and ask for the
/// deadline again after that and whenever [`Rtc::timer_event`] is signalled.
#[derive(Debug)]
pub struct Rtc {
    clock: Arc<dyn Clock>,
    line: Arc<dyn IrqLine>,
    timer: EventFd,
    options: RtcOptions,
    state: Mutex<State>,
}

impl Rtc {
    /// A clock that shows the time of `clock` and interrupts by `line`.
    ///
    /// # Errors
    /// No event can be made.
    pub fn new(options: RtcOptions, clock: Arc<dyn Clock>, line: Arc<dyn IrqLine>) -> io::Result<Arc<Self>> {
        let timer = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let mut state = State::new(&now(&*clock), options.utc_offset_s);
        state.set_memory(memory_bytes(&options));
        let state = Mutex::new(state);
        Ok(Arc::new(Self {
            clock,
            line,
            timer,
            options,
            state,
        }))
    }

    /// Appends the two ports.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(ports(PORT_BASE, 2, Arc::<Self>::clone(self)));
    }

    /// When [`Rtc::tick`] is due, as time of [`Clock::now`]; none while no interrupt can come.
    pub fn next_deadline(&self) -> Option<Duration> {
        let now = now(&*self.clock);
        lock(&self.state).next_deadline(&now)
    }

    /// Interrupts if something is due.
    pub fn tick(&self) {
        let mut state = lock(&self.state);
        state.catch_up(&now(&*self.clock));
        self.set_line(&mut state);
    }

    /// Signalled when the deadline may have changed.
    pub fn timer_event(&self) -> &EventFd {
        &self.timer
    }

    /// The reset line: interrupts off, the rest kept by the battery, as is the time. The memory sizes are the machine's again, and the
    /// shutdown status is cleared: OVMF would take 0xfe there for a resume from S3.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        state.reset();
        state.set_memory(memory_bytes(&self.options));
        self.set_line(&mut state);
        self.rearm();
    }

    fn set_line(&self, state: &mut State) {
        if let Some(level) = state.line_change() {
            self.line.set(level);
        }
    }

    fn rearm(&self) {
        // Fails only when the counter is full, and then the event is signalled anyway.
        let _ = self.timer.write(1);
    }
}

fn now(clock: &dyn Clock) -> Now {
    Now {
        monotonic: clock.now(),
        wall: clock.wall(),
    }
}

/// Memory sizes where BIOSes leave them (Bochs rombios.c; OVMF PlatformInitLib MemDetect.c reads 0x34/0x35 and 0x5b to 0x5d where there
/// is no e820 file).
fn memory_bytes(options: &RtcOptions) -> [(u8, u8); 11] {
    let capped = |bytes: u64, unit: u64, max: u64| (bytes / unit).min(max).to_le_bytes();
    let [base_low, base_high, ..] = capped(options.ram_below_4g.min(640 << 10), 1 << 10, 640);
    let above_1m = options.ram_below_4g.saturating_sub(1 << 20);
    let [extended_low, extended_high, ..] = capped(above_1m, 1 << 10, 0xffff);
    let above_16m = options.ram_below_4g.saturating_sub(16 << 20);
    let [low, high, ..] = capped(above_16m, 64 << 10, 0xffff);
    let [far_low, far_middle, far_high, ..] = capped(options.ram_above_4g, 64 << 10, 0xff_ffff);
    [
        (0x15, base_low),
        (0x16, base_high),
        (0x17, extended_low),
        (0x18, extended_high),
        (0x30, extended_low),
        (0x31, extended_high),
        (0x34, low),
        (0x35, high),
        (0x5b, far_low),
        (0x5c, far_middle),
        (0x5d, far_high),
    ]
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // The index port cannot be read back.
        data.fill(0xff);
        let (DATA, Some(byte)) = (offset, data.first_mut()) else {
            return;
        };
        let mut state = lock(&self.state);
        *byte = state.read(&now(&*self.clock));
        let asserted = state.line_level();
        self.set_line(&mut state);
        // Reading register C lowers the line, and the next interrupt may then come.
        if asserted && !state.line_level() {
            self.rearm();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut state = lock(&self.state);
        for (index, byte) in data.iter().enumerate() {
            // A 16-bit write is index and data at once.
            match offset.wrapping_add(index as u64) {
                INDEX => state.select(*byte),
                DATA => {
                    let armed = state.interrupts_enabled();
                    state.write(*byte, &now(&*self.clock));
                    self.set_line(&mut state);
                    if armed || state.interrupts_enabled() {
                        self.rearm();
                    }
                }
                _ => {}
            }
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests;
