//! The command channel: shell scripts run by the agent in L1, several at a time, over one virtio port.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{Kind, MAX_PAYLOAD, Message};

/// What can go wrong on the channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the lab host hung up")]
    Closed,
    /// Wall-clock time ran out.
    #[error("no end of `{what}` after {} s", limit.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// The socket failed.
    #[error("the command channel failed")]
    Io(#[from] io::Error),
}

/// Something a job said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It ended, with this status.
    Exit(i32),
}

/// What a finished job left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 + n after a signal.
    pub status: i32,
    /// All of its standard output, as text.
    pub stdout: String,
    /// All of its standard error, as text.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// The lab's end.
#[derive(Debug)]
pub struct Channel {
    shared: Arc<Shared>,
    hello: Receiver<Event>,
}

#[derive(Debug)]
struct Shared {
    writer: Mutex<UnixStream>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    next: u32,
    open: HashMap<u32, Sender<Event>>,
    closed: bool,
}

impl Channel {
    /// Takes over a connection to the port's socket.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn new(stream: UnixStream) -> Result<Self, ChannelError> {
        // A host that reads nothing for so long is gone.
        stream.set_write_timeout(Some(Duration::from_secs(120)))?;
        let mut reader = stream.try_clone()?;
        let (sender, hello) = mpsc::channel();
        let jobs = Jobs {
            next: 1,
            open: HashMap::from([(0, sender)]),
            closed: false,
        };
        let shared = Arc::new(Shared {
            writer: Mutex::new(stream),
            jobs: Mutex::new(jobs),
        });
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok(message) = Message::read(&mut reader) {
                theirs.deliver(message);
            }
            let mut jobs = theirs.jobs();
            jobs.closed = true;
            // Dropping the senders is what wakes those who wait.
            jobs.open.clear();
        });
        Ok(Self { shared, hello })
    }

    /// Waits until the agent answers, that is, until L1 has booted. `slice` is how long one look lasts.
    ///
    /// # Errors
    /// `Timeout` when it has not yet, `Closed` when it never will.
    pub fn hello(&self, slice: Duration) -> Result<(), ChannelError> {
        match self.hello.recv_timeout(slice) {
            Ok(_) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(ChannelError::Timeout {
                what: "the boot".to_owned(),
                limit: slice,
            }),
            Err(RecvTimeoutError::Disconnected) => Err(ChannelError::Closed),
        }
    }

    /// Starts a shell script in L1.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn start(&self, script: &str) -> Result<Job, ChannelError> {
        let (sender, events) = mpsc::channel();
        let number = {
            let mut jobs = self.shared.jobs();
            if jobs.closed {
                return Err(ChannelError::Closed);
            }
            let number = jobs.next;
            jobs.next += 1;
            jobs.open.insert(number, sender);
            number
        };
        let input = Input {
            number,
            shared: Arc::clone(&self.shared),
        };
        input.send(Kind::Exec, script.as_bytes())?;
        Ok(Job {
            input,
            events,
            script: script.to_owned(),
            status: None,
        })
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, message: Message) {
        let mut jobs = self.jobs();
        let (event, last) = match message.kind {
            Kind::Stdout => (Event::Stdout(message.payload), false),
            Kind::Stderr => (Event::Stderr(message.payload), false),
            Kind::Hello => (Event::Exit(0), true),
            Kind::Exit => (
                Event::Exit(message.payload.try_into().map_or(126, i32::from_le_bytes)),
                true,
            ),
            Kind::Exec | Kind::Stdin | Kind::StdinEnd | Kind::Kill => return,
        };
        if let Some(sender) = jobs.open.get(&message.job) {
            // Whoever started the job may have let go of it.
            let _ = sender.send(event);
        }
        if last {
            jobs.open.remove(&message.job);
        }
    }
}

/// A script running in L1. Letting go of it does not end it.
#[derive(Debug)]
pub struct Job {
    input: Input,
    events: Receiver<Event>,
    script: String,
    status: Option<i32>,
}

impl Job {
    /// The other direction: its standard input and signals, to be used from anywhere.
    #[must_use]
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// The next thing it says, or nothing if it is silent for `limit` of wall time.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Event>, ChannelError> {
        if let Some(status) = self.status {
            return Ok(Some(Event::Exit(status)));
        }
        match self.events.recv_timeout(limit) {
            Ok(event) => {
                if let Event::Exit(status) = event {
                    self.status = Some(status);
                }
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ChannelError::Closed),
        }
    }

    /// Follows it to its end, handing on what it says; returns its status.
    ///
    /// # Errors
    /// When the channel is gone, or after `limit` of wall time; then the job is killed.
    pub fn follow(&mut self, limit: Duration, mut each: impl FnMut(&Event)) -> Result<i32, ChannelError> {
        let end = Instant::now() + limit;
        loop {
            match self.next(end.saturating_duration_since(Instant::now()))? {
                Some(Event::Exit(status)) => return Ok(status),
                Some(event) => each(&event),
                None => {
                    self.input.kill("KILL")?;
                    return Err(ChannelError::Timeout {
                        what: self.script.clone(),
                        limit,
                    });
                }
            }
        }
    }

    /// Follows it to its end and gathers what it says.
    ///
    /// # Errors
    /// As [`Job::follow`].
    pub fn wait(&mut self, limit: Duration) -> Result<Output, ChannelError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = self.follow(limit, |event| match event {
            Event::Stdout(bytes) => stdout.extend_from_slice(bytes),
            Event::Stderr(bytes) => stderr.extend_from_slice(bytes),
            Event::Exit(_) => {}
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output {
            status,
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }
}

/// The way into a running script.
#[derive(Debug, Clone)]
pub struct Input {
    number: u32,
    shared: Arc<Shared>,
}

impl Input {
    /// Sends bytes to its standard input.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn stdin(&self, bytes: &[u8]) -> Result<(), ChannelError> {
        bytes
            .chunks(MAX_PAYLOAD)
            .try_for_each(|chunk| self.send(Kind::Stdin, chunk))
    }

    /// Ends its standard input.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn close(&self) -> Result<(), ChannelError> {
        self.send(Kind::StdinEnd, &[])
    }

    /// Sends a signal, by its name without `SIG`, to it and all that it started.
    ///
    /// # Errors
    /// When the channel is gone.
    pub fn kill(&self, signal: &str) -> Result<(), ChannelError> {
        self.send(Kind::Kill, signal.as_bytes())
    }

    fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), ChannelError> {
        let mut writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Message::new(self.number, kind, payload)
            .write(&mut *writer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
                _ => ChannelError::Io(error),
            })
    }
}

/// Connects to a socket that QEMU is about to make; `alive` says whether there is still hope.
///
/// # Errors
/// When nobody listens within `limit`, or there is no hope.
pub fn connect(path: &Path, limit: Duration, mut alive: impl FnMut() -> bool) -> Result<UnixStream, ChannelError> {
    let end = Instant::now() + limit;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if !alive() => return Err(ChannelError::Closed),
            Err(error) if Instant::now() >= end => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
