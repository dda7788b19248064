//! The keyboard controller's ports, 0x60 and 0x64 (IBM PS/2 technical reference, keyboard/auxiliary device controller).
//!
//! No keyboard is ever attached, so the question is how soon a guest finds that out. Quickest is a controller that is not there: its
//! status floats to 0xff, on which OVMF's Ps2KeyboardDxe leaves after one read, and Linux, which ACPI tells that there is none, does not
//! look at all. A controller without a keyboard costs both of them time-outs. The reset line works either way.

use std::sync::{Arc, Mutex};

use super::ports::ports;
use crate::lock::lock;
use crate::{BusDevice, Effect, Region};

/// The data port.
pub const DATA_PORT: u16 = 0x60;
/// The port of status (read) and commands (write).
pub const COMMAND_PORT: u16 = 0x64;

/// Offset of [`COMMAND_PORT`] from [`DATA_PORT`].
const COMMAND_OFFSET: u64 = (COMMAND_PORT - DATA_PORT) as u64;

/// Bits of the status register.
mod status {
    pub const OUTPUT_FULL: u8 = 1 << 0;
    pub const SYSTEM: u8 = 1 << 2;
    pub const LAST_WAS_COMMAND: u8 = 1 << 3;
    pub const UNLOCKED: u8 = 1 << 4;
    pub const AUX_DATA: u8 = 1 << 5;
    pub const TIMEOUT: u8 = 1 << 6;
}

/// Bits of the configuration byte.
mod config {
    pub const SYSTEM: u8 = 1 << 2;
    pub const KEYBOARD_OFF: u8 = 1 << 4;
    pub const AUX_OFF: u8 = 1 << 5;
}

/// A port test's finding: the clock line is stuck low; that is, nobody is there.
const CLOCK_STUCK_LOW: u8 = 0x01;
/// What the controller says for a device that does not answer, with [`status::TIMEOUT`].
const NO_ANSWER: u8 = 0xfe;
/// Bit of the output port and of the pulse commands: low resets the processors.
const RESET_LINE: u8 = 1 << 0;

/// How much of a controller there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum I8042Mode {
    /// Reads float; only the reset line works. The default, see the module.
    #[default]
    ResetOnly,
    /// A controller with nothing attached, for guests that wait for one to become ready.
    Controller,
}

/// The keyboard controller.
#[derive(Debug)]
pub struct I8042 {
    mode: I8042Mode,
    state: Mutex<State>,
}

/// Where the next byte written to the data port goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Keyboard,
    Config,
    OutputPort,
    KeyboardEcho,
    AuxEcho,
    Aux,
}

#[derive(Debug)]
struct State {
    config: u8,
    /// Status bits beside those that follow from the rest.
    status: u8,
    /// What the data port gives next.
    output: Option<u8>,
    next: Next,
}

impl Default for State {
    fn default() -> Self {
        Self {
            config: config::KEYBOARD_OFF | config::AUX_OFF,
            status: 0,
            output: None,
            next: Next::Keyboard,
        }
    }
}

impl I8042 {
    /// The controller as after power-on.
    pub fn new(mode: I8042Mode) -> Arc<Self> {
        Arc::new(Self {
            mode,
            state: Mutex::default(),
        })
    }

    /// Whether ACPI is to declare a keyboard controller (FADT IAPC_BOOT_ARCH bit 1, PNP0303 in the DSDT).
    pub fn declared(&self) -> bool {
        self.mode == I8042Mode::Controller
    }

    /// Appends the two ports.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(ports(DATA_PORT, 1, Arc::<Self>::clone(self)));
        let mut command = ports(COMMAND_PORT, 1, Arc::<Self>::clone(self));
        if let crate::Backing::Device { offset, .. } = &mut command.backing {
            *offset = COMMAND_OFFSET;
        }
        regions.push(command);
    }

    /// Back to power-on.
    pub fn reset(&self) {
        *lock(&self.state) = State::default();
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some(byte) = data.first_mut().filter(|_| self.mode == I8042Mode::Controller) else {
            return;
        };
        let mut state = lock(&self.state);
        match offset {
            0 => *byte = state.take(),
            COMMAND_OFFSET => *byte = state.status(),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let Some(byte) = data.first() else {
            return Effect::None;
        };
        let mut state = lock(&self.state);
        let reset = match offset {
            0 if self.mode == I8042Mode::Controller => state.data(*byte),
            COMMAND_OFFSET if self.mode == I8042Mode::Controller => state.command(*byte),
            COMMAND_OFFSET => pulses_reset(*byte),
            _ => false,
        };
        if reset {
            tracing::info!("the guest asks for a reset by the keyboard controller");
            Effect::Reset
        } else {
            Effect::None
        }
    }
}

/// Commands 0xf0 to 0xff pulse those of the output port's low four lines whose bit is clear; 0xfe pulses the reset line alone.
fn pulses_reset(command: u8) -> bool {
    command >= 0xf0 && command & RESET_LINE == 0
}

impl State {
    fn status(&self) -> u8 {
        let full = self.output.map_or(0, |_| status::OUTPUT_FULL);
        let system = if self.config & config::SYSTEM == 0 {
            0
        } else {
            status::SYSTEM
        };
        self.status | full | system | status::UNLOCKED
    }

    fn take(&mut self) -> u8 {
        self.status &= !(status::AUX_DATA | status::TIMEOUT);
        self.output.take().unwrap_or(0)
    }

    fn give(&mut self, byte: u8, bits: u8) {
        self.output = Some(byte);
        self.status = self.status & status::LAST_WAS_COMMAND | bits;
    }

    /// Takes a command; whether it resets.
    fn command(&mut self, command: u8) -> bool {
        self.status |= status::LAST_WAS_COMMAND;
        self.next = Next::Keyboard;
        match command {
            0x20 => self.give(self.config, 0),
            0x60 => self.next = Next::Config,
            0xa7 => self.config |= config::AUX_OFF,
            0xa8 => self.config &= !config::AUX_OFF,
            0xa9 | 0xab => self.give(CLOCK_STUCK_LOW, 0),
            0xaa => {
                self.config |= config::SYSTEM;
                self.give(0x55, 0);
            }
            0xad => self.config |= config::KEYBOARD_OFF,
            0xae => self.config &= !config::KEYBOARD_OFF,
            // Out of reset, A20 on.
            0xd0 => self.give(RESET_LINE | 1 << 1, 0),
            0xd1 => self.next = Next::OutputPort,
            0xd2 => self.next = Next::KeyboardEcho,
            0xd3 => self.next = Next::AuxEcho,
            0xd4 => self.next = Next::Aux,
            _ => return pulses_reset(command),
        }
        false
    }

    /// Takes a byte for the data port; whether it resets.
    fn data(&mut self, byte: u8) -> bool {
        self.status &= !status::LAST_WAS_COMMAND;
        match std::mem::replace(&mut self.next, Next::Keyboard) {
            Next::Keyboard => self.give(NO_ANSWER, status::TIMEOUT),
            Next::Aux => self.give(NO_ANSWER, status::TIMEOUT | status::AUX_DATA),
            Next::Config => self.config = byte,
            Next::KeyboardEcho => self.give(byte, 0),
            // A controller without an auxiliary port does not echo here: how Linux tells (i8042_check_aux).
            Next::AuxEcho => {}
            Next::OutputPort => return byte & RESET_LINE == 0,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(controller: &I8042, offset: u64) -> u8 {
        let mut byte = [0];
        controller.read(offset, &mut byte);
        byte[0]
    }

    fn command(controller: &I8042, byte: u8) -> Effect {
        controller.write(COMMAND_OFFSET, &[byte])
    }

    #[test]
    fn reset_only_floats_and_resets() {
        let controller = I8042::new(I8042Mode::default());
        assert!(!controller.declared());
        assert_eq!(command(&controller, 0xaa), Effect::None);
        assert_eq!((read(&controller, 0), read(&controller, 4)), (0xff, 0xff));
        assert_eq!(command(&controller, 0xfe), Effect::Reset);
        assert_eq!(command(&controller, 0xff), Effect::None);
        assert_eq!(controller.write(0, &[0xfe]), Effect::None);
    }

    #[test]
    fn the_controller_tests_itself_and_finds_nobody() {
        let controller = I8042::new(I8042Mode::Controller);
        assert!(controller.declared());
        assert_eq!(read(&controller, 4) & 0x07, 0);
        let _ = command(&controller, 0xaa);
        assert_eq!(read(&controller, 4) & 0x07, 0x05);
        assert_eq!(read(&controller, 0), 0x55);
        assert_eq!(read(&controller, 4) & 0x01, 0);
        for test in [0xa9, 0xab] {
            let _ = command(&controller, test);
            assert_eq!(read(&controller, 0), 1);
        }
        let _ = controller.write(0, &[0xff]);
        assert_eq!(read(&controller, 4) & 0x41, 0x41);
        assert_eq!(read(&controller, 0), 0xfe);
        assert_eq!(read(&controller, 4) & 0x41, 0);
    }

    #[test]
    fn the_configuration_is_kept_and_follows_the_port_switches() {
        let controller = I8042::new(I8042Mode::Controller);
        let _ = command(&controller, 0x60);
        let _ = controller.write(0, &[0x47]);
        let config = || {
            let _ = command(&controller, 0x20);
            read(&controller, 0)
        };
        assert_eq!(config(), 0x47);
        let _ = command(&controller, 0xa7);
        let _ = command(&controller, 0xad);
        assert_eq!(config(), 0x77);
        let _ = command(&controller, 0xa8);
        let _ = command(&controller, 0xae);
        assert_eq!(config(), 0x47);
        controller.reset();
        assert_eq!(config(), 0x30);
    }

    #[test]
    fn the_output_port_resets_too() {
        let controller = I8042::new(I8042Mode::Controller);
        let _ = command(&controller, 0xd1);
        assert_eq!(controller.write(0, &[0x03]), Effect::None);
        let _ = command(&controller, 0xd1);
        assert_eq!(controller.write(0, &[0x02]), Effect::Reset);
        assert_eq!(command(&controller, 0xfe), Effect::Reset);
    }
}
