//! QEMU's machine protocol: pictures of displays, keys, unplugging.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// What can go wrong when talking to QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed or timed out.
    #[error("QMP `{command}` got no answer")]
    Io {
        /// The command sent.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// QEMU refused.
    #[error("QMP `{command}` refused: {reason}")]
    Refused {
        /// The command sent.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// A picture could not be read back.
    #[error("cannot read the picture {path}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A connection to QEMU's QMP socket.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    scratch: PathBuf,
}

impl Qmp {
    /// Takes over a connection; `scratch` is a folder for pictures on their way.
    ///
    /// # Errors
    /// When QEMU does not greet.
    pub fn new(stream: UnixStream, scratch: &Path) -> Result<Self, QmpError> {
        let failed = |source| QmpError::Io {
            command: "greeting".to_owned(),
            source,
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
        let writer = stream.try_clone().map_err(failed)?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            writer,
            scratch: scratch.to_path_buf(),
        };
        qmp.line().map_err(failed)?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    ///
    /// # Errors
    /// When QEMU refuses or does not answer.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let failed = |source| QmpError::Io {
            command: command.to_owned(),
            source,
        };
        let request = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.writer.write_all(request.as_bytes()).map_err(failed)?;
        loop {
            let mut answer = self.line().map_err(failed)?;
            if let Some(error) = answer.get("error") {
                let reason = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given")
                    .to_owned();
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason,
                });
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            // Events in between are nobody's answer.
        }
    }

    /// The picture on a display device (`gpu` in the usual layout), as a binary PPM.
    ///
    /// # Errors
    /// When there is no such device or the picture cannot be read.
    pub fn screendump(&mut self, device: &str) -> Result<Vec<u8>, QmpError> {
        let path = self.scratch.join("screen.ppm");
        self.execute("screendump", &json!({ "filename": path, "device": device, "head": 0 }))?;
        let bytes = fs::read(&path).map_err(|source| QmpError::Picture {
            path: path.clone(),
            source,
        })?;
        // The next one must not be mistaken for this one.
        fs::remove_file(&path).map_err(|source| QmpError::Picture { path, source })?;
        Ok(bytes)
    }

    /// Presses keys together, by QEMU's names (`ret`, `down`, `shift`, `a`), and lets go of them.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn send_key(&mut self, keys: &[&str]) -> Result<(), QmpError> {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", &json!({ "keys": keys })).map(drop)
    }

    /// Unplugs a device by its id.
    ///
    /// # Errors
    /// When it cannot be unplugged.
    pub fn device_del(&mut self, id: &str) -> Result<(), QmpError> {
        self.execute("device_del", &json!({ "id": id })).map(drop)
    }

    /// Ends QEMU in good order, which completes the sound files.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", &json!({})).map(drop)
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}
