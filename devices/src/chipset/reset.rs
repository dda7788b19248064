//! Two ports by which software resets the machine. (The third way, 0xfe to port 0x64, is the keyboard controller's.)

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use super::ports::ports;
use crate::lock::lock;
use crate::{BusDevice, Effect, Region};

/// The reset control register's port (ICH9 datasheet §13.7.5).
pub const RESET_CONTROL_PORT: u16 = 0xcf9;

/// RST_CPU: its rising edge resets.
const RST_CPU: u8 = 1 << 2;
/// SYS_RST and FULL_RST: what kind of reset, which is all the same to a guest.
const RESET_KIND: u8 = 1 << 1 | 1 << 3;

/// The reset control register. Lies within the dword of CONFIG_ADDRESS (0xcf8), and answers single-byte accesses alone.
#[derive(Debug, Default)]
pub struct ResetControl {
    value: AtomicU8,
}

impl ResetControl {
    /// The register as after power-on.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.value.store(0, Ordering::Relaxed);
    }
}

impl BusDevice for ResetControl {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset, data) {
            (0, [byte]) => *byte = self.value.load(Ordering::Relaxed),
            (_, data) => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let (0, [byte]) = (offset, data) else {
            return Effect::None;
        };
        // RST_CPU itself always reads 0, so that every write of 1 is an edge: OVMF writes 0x06 at once, Linux 0x02 first.
        self.value.store(byte & RESET_KIND, Ordering::Relaxed);
        if byte & RST_CPU != 0 {
            tracing::info!("the guest asks for a reset by port 0xcf9");
            Effect::Reset
        } else {
            Effect::None
        }
    }
}

/// System control port A (ICH9 datasheet §13.7.2).
pub const PORT_92: u16 = 0x92;

/// INIT_NOW: its rising edge resets the processors.
const INIT_NOW: u8 = 1 << 0;
/// ALT_A20_GATE. Stored without effect: address line 20 is never masked.
const A20_GATE: u8 = 1 << 1;

/// Port 0x92.
#[derive(Debug)]
pub struct Port92 {
    state: Mutex<Port92State>,
}

#[derive(Debug, Default)]
struct Port92State {
    value: u8,
    /// The guest has seen INIT_NOW clear. Firmware sets the A20 bit in what it read; should that ever be a floating 0xff, or a value
    /// made up, bit 0 of it is no wish for a reset.
    seen: bool,
}

impl Port92 {
    /// The port as after power-on.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
        })
    }

    /// Appends the port.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(ports(PORT_92, 1, Arc::<Self>::clone(self)));
    }

    /// Back to power-on.
    pub fn reset(&self) {
        *lock(&self.state) = Port92State::default();
    }
}

impl BusDevice for Port92 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = lock(&self.state);
        data.fill(0xff);
        if let (0, Some(byte)) = (offset, data.first_mut()) {
            *byte = state.value;
            state.seen = true;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let (0, Some(byte)) = (offset, data.first()) else {
            return Effect::None;
        };
        let mut state = lock(&self.state);
        let edge = state.seen && state.value & INIT_NOW == 0 && byte & INIT_NOW != 0;
        // Reserved bits read as 0. A 1 that did not count as an edge is not kept either, or no edge could follow.
        state.value = byte & A20_GATE;
        if edge {
            tracing::info!("the guest asks for a reset by port 0x92");
            Effect::Reset
        } else {
            Effect::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(device: &dyn BusDevice) -> u8 {
        let mut byte = [0];
        device.read(0, &mut byte);
        byte[0]
    }

    #[test]
    fn the_reset_register_acts_on_bit_2_and_reads_back_without_it() {
        let register = ResetControl::new();
        assert_eq!(register.write(0, &[0x02]), Effect::None);
        assert_eq!(byte(&*register), 0x02);
        assert_eq!(register.write(0, &[0x06]), Effect::Reset);
        assert_eq!(byte(&*register), 0x02);
        assert_eq!(register.write(0, &[0x0f]), Effect::Reset, "FADT's value");
        assert_eq!(byte(&*register), 0x0a);
        register.reset();
        assert_eq!(byte(&*register), 0);
    }

    #[test]
    fn wide_accesses_are_not_for_the_reset_register() {
        let register = ResetControl::new();
        assert_eq!(register.write(0, &[0x06, 0]), Effect::None);
        let mut wide = [0; 4];
        register.read(0, &mut wide);
        assert_eq!(wide, [0xff; 4]);
    }

    #[test]
    fn firmware_enables_a20_without_a_reset() {
        let port = Port92::new();
        let old = byte(&*port);
        assert_eq!(old, 0);
        assert_eq!(port.write(0, &[old | 2]), Effect::None);
        assert_eq!(byte(&*port), 2);
    }

    #[test]
    fn a_fast_reset_needs_a_look_first() {
        let port = Port92::new();
        assert_eq!(port.write(0, &[0xff]), Effect::None);
        assert_eq!(byte(&*port), 2);
        assert_eq!(port.write(0, &[0x03]), Effect::Reset);
        port.reset();
        assert_eq!(port.write(0, &[0x01]), Effect::None);
    }
}
