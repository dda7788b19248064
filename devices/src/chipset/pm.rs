//! The ACPI power management block of an ICH9 (datasheet 316972 §13.8.3): the PM timer, power button, soft-off and the SCI.

use std::sync::{Arc, Mutex};

use crate::clock::Clock;
use crate::lock::lock;
use crate::{BusDevice, Effect, IrqLine};

/// Ports the block takes (ICH9 datasheet §13.1, PMBASE).
pub const SIZE: u64 = 128;
/// The PM timer's rate in hertz (ACPI 6.5 §4.8.2.1).
pub const TIMER_HZ: u64 = 3_579_545;

/// PM1 Status, 16 bits, write one to clear; the ports follow ICH9 datasheet §13.8.3.
const PM1_STATUS: u64 = 0x00;
/// PM1 Enable, 16 bits.
const PM1_ENABLE: u64 = 0x02;
/// PM1 Control, 32 bits.
const PM1_CONTROL: u64 = 0x04;
/// PM timer, 32 bits.
const PM_TIMER: u64 = 0x08;
const PM_TIMER_END: u64 = 0x0c;
/// General-purpose event enables: the second half of the GPE0 block of 16 bytes at 0x20. No event exists, so all statuses are zero.
const GPE0_ENABLE: u64 = 0x28;
const GPE0_END: u64 = 0x30;

/// PM1: the timer's top bit changed (ACPI 6.5 §4.8.3.1).
const TIMER: u16 = 1 << 0;
/// PM1: the power button was pressed.
const POWER_BUTTON: u16 = 1 << 8;
/// PM1 Enable: timer, global lock, power button, sleep button, real-time clock. These raise the SCI.
const ENABLES: u16 = TIMER | 1 << 5 | POWER_BUTTON | 1 << 9 | 1 << 10;

/// PM1 Control: power management events raise the SCI (ACPI 6.5 §4.8.3.2).
const SCI_ENABLE: u16 = 1 << 0;
/// PM1 Control: what reads back: SCI_EN, BM_RLD and SLP_TYP. GBL_RLS and SLP_EN are write-only.
const CONTROL_STORED: u16 = SCI_ENABLE | 1 << 1 | 0x7 << SLEEP_TYPE_SHIFT;
const SLEEP_TYPE_SHIFT: u16 = 10;
/// PM1 Control: enter the sleep state in SLP_TYP.
const SLEEP_ENABLE: u16 = 1 << 13;

/// Sleep types that mean soft-off to somebody whatever `\_S5` says: OVMF writes 0 (edk2 OvmfPkg/Library/ResetSystemLib), an ICH9's own
/// is 7 (datasheet §13.8.3, PM1_CNT), and 5 is the number of the state itself. There is no other sleep state to confuse them with.
const SOFT_OFF_TYPES: [u8; 3] = [0, 5, 7];

/// How the block is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PmConfig {
    /// SLP_TYP that the machine's `\_S5` names, 0 to 7. 0, 5 and 7 are accepted besides.
    pub s5_type: u8,
    /// Whether the machine starts, and starts again, in ACPI mode, for a guest without firmware that would switch to it.
    pub sci_enabled_at_reset: bool,
}

#[derive(Debug, Default)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
    gpe_enable: [u8; 8],
    /// The timer's top bit, and all above it, when the guest last cleared TMR_STS.
    timer_half_seen: u64,
    sci: bool,
}

/// The block. Its ports are where the LPC bridge's PMBASE says.
#[derive(Debug)]
pub struct PowerManagement {
    config: PmConfig,
    clock: Arc<dyn Clock>,
    sci: Arc<dyn IrqLine>,
    registers: Mutex<Registers>,
}

impl PowerManagement {
    /// The block as at power-on. `sci` is the line that the FADT's SCI_INT names.
    pub fn new(config: PmConfig, clock: Arc<dyn Clock>, sci: Arc<dyn IrqLine>) -> Self {
        let pm = Self {
            config,
            clock,
            sci,
            registers: Mutex::default(),
        };
        pm.reset();
        pm
    }

    /// Presses the power button. Whether the guest is told now; if not, the press waits until it enables the button.
    pub fn press_power_button(&self) -> bool {
        let mut registers = lock(&self.registers);
        registers.status |= POWER_BUTTON;
        self.update_sci(&mut registers);
        registers.control & SCI_ENABLE != 0 && registers.enable & POWER_BUTTON != 0
    }

    /// Raises the SCI if the timer's top bit has changed and the guest wants to know. To be called now and then, at least every five
    /// minutes: the bit changes every ten.
    pub fn poll(&self) {
        self.update_sci(&mut lock(&self.registers));
    }

    /// Back to the state at power-on. The timer runs on.
    pub fn reset(&self) {
        let mut registers = lock(&self.registers);
        *registers = Registers {
            control: if self.config.sci_enabled_at_reset {
                SCI_ENABLE
            } else {
                0
            },
            timer_half_seen: self.timer_half(),
            ..Registers::default()
        };
        self.sci.set(false);
    }

    /// Ticks since the clock was made; its low 32 bits are the timer.
    fn ticks(&self) -> u64 {
        let ticks = self.clock.now().as_nanos() * u128::from(TIMER_HZ) / 1_000_000_000;
        ticks as u64
    }

    fn timer_half(&self) -> u64 {
        self.ticks() >> 31
    }

    /// PM1 Status with TMR_STS, which follows from the time.
    fn status(&self, registers: &Registers) -> u16 {
        let timer = if self.timer_half() == registers.timer_half_seen {
            0
        } else {
            TIMER
        };
        registers.status | timer
    }

    /// The line is set while the registers are locked, so that two writers cannot leave it in the state of the first.
    fn update_sci(&self, registers: &mut Registers) {
        let pending = self.status(registers) & registers.enable & ENABLES != 0;
        let level = pending && registers.control & SCI_ENABLE != 0;
        if level != registers.sci {
            registers.sci = level;
            self.sci.set(level);
        }
    }

    fn read_byte(&self, registers: &Registers, port: u64) -> u8 {
        let half = |value: u16, first: u64| value.to_le_bytes().get((port - first) as usize).copied().unwrap_or(0);
        match port {
            PM1_STATUS..PM1_ENABLE => half(self.status(registers), PM1_STATUS),
            PM1_ENABLE..PM1_CONTROL => half(registers.enable, PM1_ENABLE),
            PM1_CONTROL..PM_TIMER => half(registers.control, PM1_CONTROL),
            GPE0_ENABLE..GPE0_END => {
                let index = (port - GPE0_ENABLE) as usize;
                registers.gpe_enable.get(index).copied().unwrap_or(0)
            }
            // GPE0 status, SMI enable and status, and what an ICH9 has that nobody here uses.
            _ => 0,
        }
    }

    /// Takes one byte. Whether it asked for a sleep state, whose type is then in the control register.
    fn write_byte(&self, registers: &mut Registers, port: u64, value: u8) -> bool {
        let shift = 8 * (port & 1);
        let bits = u16::from(value) << shift;
        let merge = |old: u16, keep: u16| (old & !(0xff << shift) | bits) & keep;
        match port {
            PM1_STATUS..PM1_ENABLE => {
                registers.status &= !bits;
                if bits & TIMER != 0 {
                    registers.timer_half_seen = self.timer_half();
                }
            }
            PM1_ENABLE..PM1_CONTROL => registers.enable = merge(registers.enable, ENABLES),
            0x04 | 0x05 => {
                registers.control = merge(registers.control, CONTROL_STORED);
                return bits & SLEEP_ENABLE != 0;
            }
            GPE0_ENABLE..GPE0_END => {
                let index = (port - GPE0_ENABLE) as usize;
                if let Some(byte) = registers.gpe_enable.get_mut(index) {
                    *byte = value;
                }
            }
            _ => {}
        }
        false
    }

    fn is_soft_off(&self, control: u16) -> bool {
        let kind = (control >> SLEEP_TYPE_SHIFT & 0x7) as u8;
        kind == self.config.s5_type || SOFT_OFF_TYPES.contains(&kind)
    }
}

/// The ports from `first` on.
fn ports(first: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |index: u64| first.wrapping_add(index))
}

impl BusDevice for PowerManagement {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let timer = (self.ticks() as u32).to_le_bytes();
        if offset == PM_TIMER && data.len() == timer.len() {
            // Firmware does little else than this; it takes no lock.
            return data.copy_from_slice(&timer);
        }
        let registers = lock(&self.registers);
        for (port, byte) in ports(offset).zip(data) {
            *byte = match port {
                PM_TIMER..PM_TIMER_END => timer.get((port - PM_TIMER) as usize).copied().unwrap_or(0),
                _ => self.read_byte(&registers, port),
            };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut registers = lock(&self.registers);
        let mut sleeps = false;
        for (port, value) in ports(offset).zip(data) {
            sleeps |= self.write_byte(&mut registers, port, *value);
        }
        self.update_sci(&mut registers);
        if sleeps && self.is_soft_off(registers.control) {
            Effect::PowerOff
        } else {
            Effect::None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[derive(Debug, Default)]
    struct Line {
        level: AtomicBool,
        changes: AtomicU32,
    }
    impl IrqLine for Line {
        fn set(&self, level: bool) {
            if self.level.swap(level, Ordering::Relaxed) != level {
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    struct Fixture {
        pm: PowerManagement,
        clock: Arc<ManualClock>,
        line: Arc<Line>,
    }

    fn fixture(config: PmConfig) -> Fixture {
        let clock = Arc::new(ManualClock::new(0));
        let line = Arc::new(Line::default());
        let pm = PowerManagement::new(config, Arc::clone(&clock) as _, Arc::clone(&line) as _);
        Fixture { pm, clock, line }
    }

    impl Fixture {
        fn read16(&self, offset: u64) -> u16 {
            let mut data = [0; 2];
            self.pm.read(offset, &mut data);
            u16::from_le_bytes(data)
        }
        fn write16(&self, offset: u64, value: u16) -> Effect {
            self.pm.write(offset, &value.to_le_bytes())
        }
        fn timer(&self) -> u32 {
            let mut data = [0; 4];
            self.pm.read(8, &mut data);
            u32::from_le_bytes(data)
        }
        fn sci(&self) -> bool {
            self.line.level.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_timer_runs_at_its_rate_and_wraps() {
        let f = fixture(PmConfig::default());
        assert_eq!(f.timer(), 0);
        f.clock.advance(Duration::from_secs(1));
        assert_eq!(f.timer(), 3_579_545);
        let mut bytes = [0; 1];
        f.pm.read(9, &mut bytes);
        assert_eq!(bytes[0], 3_579_545u32.to_le_bytes()[1]);
        f.clock.advance(Duration::from_secs(1200));
        assert_eq!(u64::from(f.timer()), 1201 * TIMER_HZ - (1 << 32));
        assert_eq!(f.pm.write(8, &[0; 4]), Effect::None);
        assert_ne!(f.timer(), 0, "read-only");
    }

    #[test]
    fn the_power_button_raises_the_sci_until_acknowledged() {
        let f = fixture(PmConfig::default());
        assert!(!f.pm.press_power_button());
        assert!(!f.sci());
        assert_eq!(f.write16(0, u16::MAX), Effect::None);
        assert_eq!(f.read16(0), 0);
        let _ = f.write16(2, 0x0100);
        let _ = f.write16(4, 0x0001);
        assert!(f.pm.press_power_button());
        assert!(f.sci());
        assert_eq!(f.read16(0), 0x0100);
        let _ = f.pm.write(0, &[0xff]);
        assert!(f.sci(), "the other byte");
        let _ = f.pm.write(1, &[0x01]);
        assert!(!f.sci());
        assert_eq!(f.line.changes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn soft_off_by_every_type_that_means_it() {
        let f = fixture(PmConfig {
            s5_type: 3,
            ..PmConfig::default()
        });
        for (kind, effect) in [
            (0, Effect::PowerOff),
            (1, Effect::None),
            (2, Effect::None),
            (3, Effect::PowerOff),
            (4, Effect::None),
            (5, Effect::PowerOff),
            (6, Effect::None),
            (7, Effect::PowerOff),
        ] {
            assert_eq!(f.write16(4, kind << 10), Effect::None);
            assert_eq!(f.write16(4, kind << 10 | 0x2000), effect, "SLP_TYP {kind}");
            assert_eq!(f.read16(4), kind << 10, "SLP_EN is write-only");
        }
        let _ = f.write16(4, 0);
        assert_eq!(f.pm.write(5, &[0x20]), Effect::PowerOff, "by its byte");
        assert_eq!(f.pm.write(4, &[0x20]), Effect::None);
        assert_eq!(f.pm.write(6, &[0x20, 0x20]), Effect::None, "the reserved half");
        assert_eq!(
            f.pm.write(2, &[0, 0, 0, 0x20]),
            Effect::PowerOff,
            "a write across registers"
        );
    }

    #[test]
    fn the_timer_status_follows_the_top_bit() {
        let f = fixture(PmConfig {
            sci_enabled_at_reset: true,
            ..PmConfig::default()
        });
        let _ = f.write16(2, 1);
        f.clock.advance(Duration::from_secs(600));
        assert_eq!(f.read16(0), 1);
        assert!(!f.sci());
        f.pm.poll();
        assert!(f.sci());
        let _ = f.write16(0, 1);
        assert!(!f.sci());
        assert_eq!(f.read16(0), 0);
    }

    #[test]
    fn reset_leaves_acpi_mode_unless_told_otherwise() {
        let f = fixture(PmConfig::default());
        let _ = f.write16(2, 0x0100);
        let _ = f.write16(4, 1);
        assert!(f.pm.press_power_button());
        f.pm.reset();
        assert!(!f.sci());
        assert_eq!((f.read16(0), f.read16(2), f.read16(4)), (0, 0, 0));
        let f = fixture(PmConfig {
            sci_enabled_at_reset: true,
            ..PmConfig::default()
        });
        let _ = f.write16(4, 0);
        f.pm.reset();
        assert_eq!(f.read16(4), 1);
    }

    #[test]
    fn events_and_smi_stay_quiet() {
        let f = fixture(PmConfig::default());
        assert_eq!(f.pm.write(0x20, &[0xff; 16]), Effect::None);
        let mut data = [0xaa; 16];
        f.pm.read(0x20, &mut data);
        assert_eq!(
            data,
            [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(f.pm.write(0x30, &[0xff; 8]), Effect::None);
        f.pm.read(0x30, &mut data);
        assert_eq!(data, [0; 16]);
        f.pm.read(u64::MAX, &mut data[..1]);
    }
}
