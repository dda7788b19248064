//! The debug console: a port to which DEBUG builds of OVMF write (edk2 OvmfPkg/Library/PlatformDebugLibIoPort).

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::ports::ports;
use crate::lock::lock;
use crate::serial::Outlet;
use crate::{BusDevice, Effect, Region};

/// The port OVMF looks at (OvmfPkg.dec, PcdDebugIoPort).
pub const DEBUG_PORT: u16 = 0x402;

/// What a read gives, by which firmware knows that somebody listens (PlatformDebugLibIoPort: BOCHS_DEBUG_PORT_MAGIC).
const PRESENT: u8 = 0xe9;

/// A longer line goes to the log in pieces.
const LINE_MAX: usize = 512;

/// Where the text goes.
pub enum DebugSink {
    /// To our own log, target `guest::debugcon`, a line at a time.
    Log,
    /// As it is, from a thread of its own.
    Writer(Box<dyn Write + Send>),
}

impl std::fmt::Debug for DebugSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DebugSink::Log => "Log",
            DebugSink::Writer(_) => "Writer",
        })
    }
}

/// The port. Firmware sends byte by byte whatever it has to say, so a machine has one only where somebody asked for it.
#[derive(Debug)]
pub struct DebugCon {
    sink: Mutex<Sink>,
}

#[derive(Debug)]
enum Sink {
    Log(Vec<u8>),
    Outlet(Outlet),
}

impl DebugCon {
    /// A port that sends to `sink`.
    ///
    /// # Errors
    /// The writer's thread cannot be made.
    pub fn new(sink: DebugSink) -> io::Result<Arc<Self>> {
        let sink = match sink {
            DebugSink::Log => Sink::Log(Vec::new()),
            DebugSink::Writer(writer) => Sink::Outlet(Outlet::new("debugcon", writer)?),
        };
        Ok(Arc::new(Self { sink: Mutex::new(sink) }))
    }

    /// Appends the port.
    pub fn regions(self: &Arc<Self>, regions: &mut Vec<Region>) {
        regions.push(ports(DEBUG_PORT, 1, Arc::<Self>::clone(self)));
    }
}

impl BusDevice for DebugCon {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(PRESENT);
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Effect {
        match &mut *lock(&self.sink) {
            Sink::Log(line) => {
                for line in data.iter().filter_map(|byte| complete(line, *byte)) {
                    tracing::info!(target: "guest::debugcon", "{line}");
                }
            }
            // The outlet takes or drops.
            Sink::Outlet(outlet) => drop(outlet.write_all(data)),
        }
        Effect::None
    }
}

/// Adds a byte to `line`; the line, if that ends it. Control characters are spelt out: a guest does not drive the user's terminal.
fn complete(line: &mut Vec<u8>, byte: u8) -> Option<String> {
    if byte != b'\n' {
        line.push(byte);
        if line.len() < LINE_MAX {
            return None;
        }
    }
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
        .chars()
        .flat_map(|character| {
            let control = character.is_control() && character != '\t';
            let (spelt, plain) = if control {
                (Some(character.escape_default()), None)
            } else {
                (None, Some(character))
            };
            spelt.into_iter().flatten().chain(plain)
        })
        .collect();
    line.clear();
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<String> {
        let mut line = Vec::new();
        text.iter().filter_map(|byte| complete(&mut line, *byte)).collect()
    }

    #[test]
    fn says_that_it_is_there() {
        let port = DebugCon::new(DebugSink::Log).unwrap();
        let mut data = [0; 4];
        port.read(0, &mut data);
        assert_eq!(data, [0xe9; 4]);
        assert_eq!(port.write(0, b"x\n"), Effect::None);
    }

    #[test]
    fn text_comes_in_lines_that_drive_no_terminal() {
        assert_eq!(
            lines(b"one\r\ntwo\x1b[2J\xff\n\nrest"),
            ["one", "two\\u{1b}[2J\u{fffd}", ""]
        );
        let long = lines(&[b'x'; LINE_MAX * 3]);
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX; 3]);
    }

    #[test]
    fn a_writer_gets_the_bytes_as_they_are() {
        let (mut reader, writer) = io::pipe().unwrap();
        let port = DebugCon::new(DebugSink::Writer(Box::new(writer))).unwrap();
        let _ = port.write(0, b"a\x1b\r\n");
        drop(port);
        let mut text = Vec::new();
        io::Read::read_to_end(&mut reader, &mut text).unwrap();
        assert_eq!(text, b"a\x1b\r\n");
    }
}
