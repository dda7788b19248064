//! A 16550A serial port (PC16550D datasheet §8), on vm-superio's registers.

mod outlet;

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub use outlet::Outlet;

use crate::chipset::ports::ports;
use crate::lock::lock;
use crate::{BusDevice, Effect, IrqLine, Region};

/// Ports of one 16550.
pub const PORT_COUNT: u64 = 8;
/// The first serial port's base.
pub const COM1: u16 = 0x3f8;
/// The first serial port's ISA interrupt.
pub const COM1_IRQ: u32 = 4;

type Uart = Serial<Edge, Arc<Room>, Outlet>;

/// A serial port whose far end is the user's terminal, a file, or nothing.
#[derive(Debug)]
pub struct SerialPort {
    base: u16,
    line: Arc<dyn IrqLine>,
    room: Arc<Room>,
    output: Outlet,
    uart: Mutex<Uart>,
}

/// ISA interrupts are edges.
#[derive(Debug)]
struct Edge(Arc<dyn IrqLine>);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

/// Says when the guest has taken all input.
#[derive(Debug)]
struct Room(EventFd);

impl SerialEvents for Room {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // Fails only when the counter is full, and then the event is signalled anyway.
        let _ = self.0.write(1);
    }
}

impl SerialPort {
    /// A port at I/O address `base` that interrupts by `line` and sends to `output` from a thread of its own: a terminal that has
    /// stopped never stops the guest.
    ///
    /// # Errors
    /// No event or no thread can be made.
    pub fn new(base: u16, line: Arc<dyn IrqLine>, output: Box<dyn Write + Send>) -> io::Result<Arc<Self>> {
        let room = Arc::new(Room(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?));
        let output = Outlet::new(&format!("serial-{base:x}"), output)?;
        let uart = power_on(&line, &room, &output);
        Ok(Arc::new(Self {
            base,
            line,
            room,
            output,
            uart: Mutex::new(uart),
        }))
    }

    /// Appends the ports.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(ports(self.base, PORT_COUNT, Arc::<Self>::clone(self)));
    }

    /// Hands input to the guest, as much as the receive FIFO takes, and returns how many bytes those are.
    ///
    /// Fewer than `input.len()`: keep the rest, and stop reading the terminal until [`SerialPort::room_event`].
    pub fn enqueue(&self, input: &[u8]) -> usize {
        // A full FIFO is vm-superio's one error here.
        lock(&self.uart).enqueue_raw_bytes(input).unwrap_or(0)
    }

    /// Signalled when the guest has emptied the receive FIFO.
    pub fn room_event(&self) -> &EventFd {
        &self.room.0
    }

    /// Back to power-on. Input the guest has not read is lost.
    pub fn reset(&self) {
        *lock(&self.uart) = power_on(&self.line, &self.room, &self.output);
        self.room.in_buffer_empty();
    }
}

/// vm-superio's initial registers: MSR says CTS, DSR and DCD, which lets OVMF send at once.
fn power_on(line: &Arc<dyn IrqLine>, room: &Arc<Room>, output: &Outlet) -> Uart {
    Serial::with_events(Edge(Arc::clone(line)), Arc::clone(room), output.clone())
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // The bus splits a wide access to an 8-bit device into single bytes.
        let mut uart = lock(&self.uart);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = match u8::try_from(offset.wrapping_add(index as u64)) {
                Ok(register @ 0..8) => uart.read(register),
                _ => 0xff,
            };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut uart = lock(&self.uart);
        for (index, byte) in data.iter().enumerate() {
            if let Ok(register @ 0..8) = u8::try_from(offset.wrapping_add(index as u64)) {
                // The outlet takes or drops, and the trigger cannot fail.
                let _ = uart.write(register, *byte);
            }
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    struct Count(AtomicUsize);

    impl IrqLine for Count {
        fn set(&self, level: bool) {
            self.0.fetch_add(usize::from(level), Ordering::Relaxed);
        }
    }

    fn port() -> (Arc<SerialPort>, Arc<Count>, Arc<Mutex<Vec<u8>>>) {
        let line = Arc::new(Count::default());
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Box::new(outlet::tests::Shared(Arc::clone(&text)));
        let port = SerialPort::new(COM1, Arc::<Count>::clone(&line), sink).unwrap();
        (port, line, text)
    }

    fn read(port: &SerialPort, register: u64) -> u8 {
        let mut byte = [0];
        port.read(register, &mut byte);
        byte[0]
    }

    #[test]
    fn looks_as_ovmf_wants_it() {
        let (port, ..) = port();
        for pattern in [0xaa, 0x55] {
            let _ = port.write(7, &[pattern]);
            assert_eq!(read(&port, 7), pattern);
        }
        assert_eq!(read(&port, 5) & 0x60, 0x60, "THRE and TEMT");
        assert_eq!(read(&port, 6) & 0x30, 0x30, "CTS and DSR");
    }

    #[test]
    fn output_reaches_the_far_end() {
        let (port, _, text) = port();
        for byte in b"hello\n" {
            let _ = port.write(0, &[*byte]);
        }
        drop(port);
        assert_eq!(*lock(&text), b"hello\n");
    }

    #[test]
    fn input_is_taken_as_far_as_the_fifo_goes() {
        let (port, line, _) = port();
        let _ = port.write(1, &[1]);
        assert_eq!(port.enqueue(&[b'x'; 100]), 64);
        assert_eq!(port.enqueue(b"y"), 0);
        assert_eq!(line.0.load(Ordering::Relaxed), 1);
        assert!(port.room_event().read().is_err());
        for _ in 0..64 {
            assert_eq!(read(&port, 5) & 1, 1);
            assert_eq!(read(&port, 0), b'x');
        }
        assert_eq!(read(&port, 5) & 1, 0);
        assert!(port.room_event().read().is_ok());
        assert_eq!(port.enqueue(b"y"), 1);
        assert_eq!(line.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_reset_forgets_registers_and_input() {
        let (port, _, text) = port();
        let _ = port.write(7, &[0xaa]);
        assert_eq!(port.enqueue(b"abc"), 3);
        port.reset();
        assert_eq!((read(&port, 7), read(&port, 5) & 1), (0, 0));
        let _ = port.write(0, b"z");
        drop(port);
        assert_eq!(*lock(&text), b"z");
    }

    #[test]
    fn accesses_of_any_shape_are_survived() {
        let (port, ..) = port();
        let mut wide = [0; 8];
        for offset in [0, 3, 7, 8, 255, 256, u64::MAX] {
            port.read(offset, &mut wide);
            let _ = port.write(offset, &[0xff; 8]);
        }
        port.read(7, &mut wide);
        assert_eq!(wide[1..], [0xff; 7]);
        port.read(u64::MAX, &mut wide);
        assert_eq!(wide[0], 0xff);
    }
}
