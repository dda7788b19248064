//! The clock's registers.

use std::time::Duration;

use super::CENTURY;
use super::calendar::{Alarm, Form, Moment, weekday};

/// Register numbers (MC146818 datasheet, address map).
mod register {
    pub const SECOND: u8 = 0x00;
    pub const SECOND_ALARM: u8 = 0x01;
    pub const MINUTE: u8 = 0x02;
    pub const MINUTE_ALARM: u8 = 0x03;
    pub const HOUR: u8 = 0x04;
    pub const HOUR_ALARM: u8 = 0x05;
    pub const WEEKDAY: u8 = 0x06;
    pub const DAY: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const A: u8 = 0x0a;
    pub const B: u8 = 0x0b;
    pub const C: u8 = 0x0c;
    pub const D: u8 = 0x0d;
    pub const EQUIPMENT: u8 = 0x14;
    /// Why the machine was reset; the BIOS's own.
    pub const SHUTDOWN: u8 = 0x0f;
}

/// Register A: an update is in progress.
const A_UIP: u8 = 0x80;
/// Register A: the divider's select bits; 11x holds it in reset.
const A_DIVIDER_RESET: u8 = 0x60;
/// Register A: what the periodic interrupt's rate is.
const A_RATE: u8 = 0x0f;
/// Register B: the guest sets the clock; updates stand still.
const B_SET: u8 = 0x80;
/// Registers B and C: periodic, alarm and update-ended interrupts, enabled and due.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const INTERRUPTS: u8 = PERIODIC | ALARM | UPDATE;
/// Register B: square wave.
const B_SQWE: u8 = 0x08;
/// Register B: numbers are binary.
const B_BINARY: u8 = 0x04;
/// Register B: hours go to 23.
const B_HOURS_24: u8 = 0x02;
/// Register C: an enabled interrupt is due; the line's level.
const C_IRQF: u8 = 0x80;
/// Register D: time and memory are valid.
const D_VRT: u8 = 0x80;
/// An alarm register with both bits set fits any time.
const ANY: u8 = 0xc0;
/// Equipment byte: a coprocessor, no floppy drives.
const EQUIPMENT_FPU: u8 = 0x02;

const SECOND_NS: i128 = 1_000_000_000;

/// How long before the second changes an update is seen to be in progress: 244 us of warning and 1984 us of update (datasheet, table 6).
const UPDATE_NS: i128 = 2_228_000;

/// A deadline is at most this far away: the host's clock may be set, or its sleep not counted, in the meantime.
const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// One look at the clock.
#[derive(Debug)]
pub(super) struct Now {
    pub monotonic: Duration,
    pub wall: Duration,
}

/// All but the line and the timer.
#[derive(Debug)]
pub(super) struct State {
    index: u8,
    /// The registers and the memory. Those of the time count only while the guest sets it.
    bytes: [u8; 128],
    /// What the guest's clock is ahead of the host's.
    ahead_ns: i128,
    /// The guest's second up to which updates and alarms are in register C.
    seen_s: i64,
    /// The period up to which periodic interrupts are in register C.
    seen_periods: u128,
    /// A time register was written since SET.
    time_written: bool,
    line: bool,
}

impl State {
    /// A clock that is `offset_s` ahead of the host's UTC.
    pub fn new(now: &Now, offset_s: i32) -> Self {
        let mut state = Self {
            index: 0,
            bytes: [0; 128],
            ahead_ns: i128::from(offset_s) * SECOND_NS,
            seen_s: 0,
            seen_periods: 0,
            time_written: false,
            line: false,
        };
        // A 32.768 kHz crystal and 1024 Hz; BCD and 24 hours: what PC firmware leaves.
        *state.byte(register::A) = 0x26;
        *state.byte(register::B) = B_HOURS_24;
        *state.byte(register::EQUIPMENT) = EQUIPMENT_FPU;
        state.seen_s = state.seconds(now);
        state.seen_periods = state.periods(now.monotonic);
        state
    }

    pub fn set_memory(&mut self, bytes: [(u8, u8); 11]) {
        for (index, byte) in bytes {
            *self.byte(index) = byte;
        }
    }

    pub fn reset(&mut self) {
        self.index = 0;
        // A chip would keep SET, and stand still if the guest was reset while it set the clock; no firmware expects that.
        *self.byte(register::B) &= !(INTERRUPTS | B_SQWE | B_SET);
        *self.byte(register::C) = 0;
        *self.byte(register::SHUTDOWN) = 0;
    }

    /// Bit 7 masks the NMI, of which there is none.
    pub fn select(&mut self, index: u8) {
        self.index = index & 0x7f;
    }

    pub fn read(&mut self, now: &Now) -> u8 {
        self.catch_up(now);
        match self.index {
            register::A => self.get(register::A) | self.update_in_progress(now),
            // Reading acknowledges.
            register::C => {
                let value = self.get(register::C) | if self.line_level() { C_IRQF } else { 0 };
                *self.byte(register::C) = 0;
                value
            }
            register::D => D_VRT,
            index if is_time(index) => {
                if !self.setting() {
                    self.store_time(now);
                }
                self.get(index)
            }
            index => self.get(index),
        }
    }

    pub fn write(&mut self, value: u8, now: &Now) {
        self.catch_up(now);
        match self.index {
            register::A => self.write_a(value, now),
            register::B => self.write_b(value, now),
            // Read-only; OVMF writes 0 to D and then wants VRT.
            register::C | register::D => {}
            index if is_time(index) => {
                if !self.setting() {
                    self.store_time(now);
                }
                *self.byte(index) = value;
                self.time_written = true;
                if !self.setting() {
                    self.adopt_time(now);
                }
            }
            index => *self.byte(index) = value,
        }
    }

    /// Records in register C what has become due.
    pub fn catch_up(&mut self, now: &Now) {
        let periods = self.periods(now.monotonic);
        if periods != self.seen_periods {
            *self.byte(register::C) |= PERIODIC;
        }
        self.seen_periods = periods;
        let second = self.seconds(now);
        if second > self.seen_s && !self.setting() {
            *self.byte(register::C) |= UPDATE;
            if self.alarm().next(self.seen_s).is_some_and(|alarm| alarm <= second) {
                *self.byte(register::C) |= ALARM;
            }
        }
        // Also when the host's clock went back.
        self.seen_s = second;
    }

    /// When the line will next rise, if by the clock alone.
    pub fn next_deadline(&self, now: &Now) -> Option<Duration> {
        // Until the guest reads register C nothing changes.
        if self.line_level() || !self.interrupts_enabled() {
            return None;
        }
        let enabled = self.get(register::B);
        let mut next = None;
        let mut consider = |deadline: Duration| {
            next = Some(next.map_or(deadline, |next: Duration| next.min(deadline)));
        };
        if enabled & PERIODIC != 0
            && let Some(period) = self.period_ns()
        {
            let at = (self.periods(now.monotonic) + 1).saturating_mul(period);
            consider(Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX)));
        }
        if !self.setting() {
            let second = self.seconds(now);
            if enabled & UPDATE != 0 {
                consider(self.monotonic(second.saturating_add(1), now));
            }
            if enabled & ALARM != 0
                && let Some(alarm) = self.alarm().next(second)
            {
                consider(self.monotonic(alarm, now));
            }
        }
        next.map(|next| next.min(now.monotonic.saturating_add(DEADLINE_MAX)))
    }

    pub fn interrupts_enabled(&self) -> bool {
        self.get(register::B) & INTERRUPTS != 0
    }

    /// Register C's IRQF, which is the line.
    pub fn line_level(&self) -> bool {
        self.get(register::B) & self.get(register::C) & INTERRUPTS != 0
    }

    /// The line's level, if it is another than the last time this was asked.
    pub fn line_change(&mut self) -> Option<bool> {
        let level = self.line_level();
        (std::mem::replace(&mut self.line, level) != level).then_some(level)
    }

    fn write_a(&mut self, value: u8, now: &Now) {
        let held = |value: u8| value & A_DIVIDER_RESET == A_DIVIDER_RESET;
        let was_held = held(self.get(register::A));
        *self.byte(register::A) = value & !A_UIP;
        if was_held && !held(value) {
            // The first update after the divider's reset comes half a second later (datasheet, "Divider control"); Linux relies on it.
            self.ahead_ns += SECOND_NS / 2 - self.nanoseconds(now).rem_euclid(SECOND_NS);
        }
        // Another rate counts from now on.
        self.seen_periods = self.periods(now.monotonic);
    }

    fn write_b(&mut self, value: u8, now: &Now) {
        let was_setting = self.setting();
        let setting = value & B_SET != 0;
        if setting && !was_setting {
            self.store_time(now);
            self.time_written = false;
        }
        // SET clears the update-ended enable (datasheet, "Register B").
        *self.byte(register::B) = if setting { value & !UPDATE } else { value };
        if was_setting && !setting && self.time_written {
            self.adopt_time(now);
        }
    }

    fn setting(&self) -> bool {
        self.get(register::B) & B_SET != 0
    }

    fn form(&self) -> Form {
        let b = self.get(register::B);
        Form {
            binary: b & B_BINARY != 0,
            hours_24: b & B_HOURS_24 != 0,
        }
    }

    fn alarm(&self) -> Alarm {
        let form = self.form();
        let part = |index: u8, decode: fn(Form, u8) -> u8| {
            let value = self.get(index);
            (value & ANY != ANY).then(|| decode(form, value))
        };
        Alarm {
            hour: part(register::HOUR_ALARM, Form::decode_hour),
            minute: part(register::MINUTE_ALARM, Form::decode),
            second: part(register::SECOND_ALARM, Form::decode),
        }
    }

    /// Puts the running time into the registers.
    fn store_time(&mut self, now: &Now) {
        let seconds = self.seconds(now);
        let moment = Moment::of(seconds);
        let form = self.form();
        let registers = [
            (register::SECOND, form.encode(moment.second)),
            (register::MINUTE, form.encode(moment.minute)),
            (register::HOUR, form.encode_hour(moment.hour)),
            (register::WEEKDAY, form.encode(weekday(seconds))),
            (register::DAY, form.encode(moment.day)),
            (register::MONTH, form.encode(moment.month)),
            (register::YEAR, form.encode(moment.year.rem_euclid(100) as u8)),
            (CENTURY, form.encode((moment.year / 100).rem_euclid(100) as u8)),
        ];
        for (index, value) in registers {
            *self.byte(index) = value;
        }
    }

    /// Runs on from the time in the registers, the fraction of the second kept. What is no time changes nothing.
    fn adopt_time(&mut self, now: &Now) {
        let form = self.form();
        let number = |index: u8| form.decode(self.get(index));
        let (century, year) = (number(CENTURY), number(register::YEAR));
        let moment = Moment {
            year: if century < 100 && year < 100 {
                i64::from(century) * 100 + i64::from(year)
            } else {
                0
            },
            month: number(register::MONTH),
            day: number(register::DAY),
            hour: form.decode_hour(self.get(register::HOUR)),
            minute: number(register::MINUTE),
            second: number(register::SECOND),
        };
        if let Some(seconds) = moment.seconds() {
            self.ahead_ns += i128::from(seconds - self.seconds(now)) * SECOND_NS;
            self.seen_s = seconds;
        }
    }

    fn update_in_progress(&self, now: &Now) -> u8 {
        let left = SECOND_NS - self.nanoseconds(now).rem_euclid(SECOND_NS);
        if !self.setting() && left <= UPDATE_NS { A_UIP } else { 0 }
    }

    /// The guest's clock, in nanoseconds since 1970.
    fn nanoseconds(&self, now: &Now) -> i128 {
        i128::try_from(now.wall.as_nanos())
            .unwrap_or(i128::MAX / 2)
            .saturating_add(self.ahead_ns)
    }

    fn seconds(&self, now: &Now) -> i64 {
        // The calendar ends in the year 9999; here a clock set to that may run on for a while.
        let seconds = self.nanoseconds(now).div_euclid(SECOND_NS);
        i64::try_from(seconds).unwrap_or(0).clamp(-1 << 40, 1 << 40)
    }

    /// When the guest's clock will show `seconds`.
    fn monotonic(&self, seconds: i64, now: &Now) -> Duration {
        let wait = i128::from(seconds) * SECOND_NS - self.nanoseconds(now);
        let wait = Duration::from_nanos(u64::try_from(wait.max(0)).unwrap_or(u64::MAX));
        now.monotonic.saturating_add(wait)
    }

    /// The periodic interrupt's period (datasheet, table 5): none, two rates of their own, then 32.768 kHz halved.
    fn period_ns(&self) -> Option<u128> {
        let shift = match self.get(register::A) & A_RATE {
            0 => return None,
            rate @ (1 | 2) => rate + 6,
            rate => rate - 1,
        };
        Some((1_000_000_000 << shift) / 32_768)
    }

    fn periods(&self, monotonic: Duration) -> u128 {
        self.period_ns().map_or(0, |period| monotonic.as_nanos() / period)
    }

    fn get(&self, index: u8) -> u8 {
        self.bytes.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    #[expect(clippy::indexing_slicing, reason = "the mask keeps the index below the array's 128")]
    fn byte(&mut self, index: u8) -> &mut u8 {
        &mut self.bytes[usize::from(index & 0x7f)]
    }
}

fn is_time(index: u8) -> bool {
    matches!(
        index,
        register::SECOND | register::MINUTE | register::HOUR | register::WEEKDAY..=register::YEAR | CENTURY
    )
}
