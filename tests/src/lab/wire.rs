//! What the lab and its agent in L1 say to each other over the command port.
//!
//! A message is: job number (u32), kind (u8), length (u32), payload; little-endian. Both ends are built from this file.

use std::io::{self, Read, Write};

/// The name of the virtio port.
pub const PORT: &str = "tenon.lab";

/// The largest payload; longer streams are sent as several messages.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// What a message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Agent to lab, once: it is ready.
    Hello = 1,
    /// Lab to agent: run the payload as a shell script.
    Exec = 2,
    /// Lab to agent: bytes for the script's standard input.
    Stdin = 3,
    /// Lab to agent: the standard input ends.
    StdinEnd = 4,
    /// Lab to agent: kill the script and its children; the payload is a signal's name.
    Kill = 5,
    /// Agent to lab: bytes of standard output.
    Stdout = 6,
    /// Agent to lab: bytes of standard error.
    Stderr = 7,
    /// Agent to lab: the script ended; the payload is its exit status (i32), 128 + n for a signal.
    Exit = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Exec,
        Self::Stdin,
        Self::StdinEnd,
        Self::Kill,
        Self::Stdout,
        Self::Stderr,
        Self::Exit,
    ];
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which job it belongs to; the lab numbers them.
    pub job: u32,
    /// What it means.
    pub kind: Kind,
    /// Its contents.
    pub payload: Vec<u8>,
}

impl Message {
    /// Makes a message.
    #[must_use]
    pub fn new(job: u32, kind: Kind, payload: &[u8]) -> Self {
        Self {
            job,
            kind,
            payload: payload.to_vec(),
        }
    }

    /// Sends it.
    ///
    /// # Errors
    /// When the payload is too long or writing fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = Vec::with_capacity(9 + self.payload.len());
        bytes.extend_from_slice(&self.job.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        out.write_all(&bytes)?;
        out.flush()
    }

    /// Receives one.
    ///
    /// # Errors
    /// When reading fails, the stream ends or what comes is no message.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut job = [0; 4];
        let mut kind = [0; 1];
        let mut length = [0; 4];
        input.read_exact(&mut job)?;
        input.read_exact(&mut kind)?;
        input.read_exact(&mut length)?;
        let known = Kind::ALL
            .into_iter()
            .find(|known| *known as u8 == kind[0])
            .ok_or(io::ErrorKind::InvalidData)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > 2 * MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        Ok(Self {
            job: u32::from_le_bytes(job),
            kind: known,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Message};

    #[test]
    fn comes_back_as_it_was_sent() {
        let sent = Message::new(7, Kind::Stdout, b"hello");
        let mut wire = Vec::new();
        sent.write(&mut wire).unwrap();
        assert_eq!(Message::read(&mut wire.as_slice()).unwrap(), sent);
        wire[4] = 99;
        assert!(Message::read(&mut wire.as_slice()).is_err());
    }
}
