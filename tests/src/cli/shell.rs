//! `cargo lab shell`: on a terminal a real one, over the lab host's hvc console; otherwise a shell that reads commands.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use tests::lab::product::target_dir;
use tests::lab::{HostError, LabHost};

use super::run::pass_on;
use super::{HostArgs, LAB_FAILED, Outcome};

/// A day: a shell has no natural end.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// `cargo lab shell`.
#[derive(Debug, Args)]
pub struct Shell {
    #[command(flatten)]
    host: HostArgs,
}

impl Shell {
    /// Boots and hands the terminal over; returns the shell's status.
    pub fn run(self) -> Outcome {
        let mut host = LabHost::boot(&self.host.config(target_dir().join("lab/shell"))?)?;
        let status = if io::stdin().is_terminal() {
            on_terminal(&mut host)?
        } else {
            from_stream(&mut host)?
        };
        host.stop()?;
        Ok(ExitCode::from(u8::try_from(status).unwrap_or(LAB_FAILED)))
    }
}

fn from_stream(host: &mut LabHost) -> Result<i32, HostError> {
    let mut job = host.spawn("cd /root; exec sh")?;
    let input = job.input();
    // Left behind when the shell ends first: it hangs in a read that nothing can end but the process's own end.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
            if input.stdin(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = input.close();
    });
    job.follow(LIMIT, pass_on).map_err(|error| host.explain(error))
}

fn on_terminal(host: &mut LabHost) -> Result<i32, HostError> {
    let path = host.scratch().join("tty");
    let failed = |source| HostError::Io {
        action: "cannot connect to",
        path: path.clone(),
        source,
    };
    let mut from_host = UnixStream::connect(&path).map_err(failed)?;
    let mut to_host = from_host.try_clone().map_err(failed)?;
    let raw = RawTerminal::new();
    let size = stty(&["size"]);
    let size = size
        .split_once(' ')
        .map(|(rows, columns)| format!("stty rows {rows} cols {columns}"))
        .unwrap_or_default();
    // Not exec: setsid by itself would fork and end at once, being the leader of its group.
    let script =
        format!("setsid -c sh -c 'stty sane; {size}; cd /root; exec sh -i' </dev/hvc0 >/dev/hvc0 2>&1; exit $?");
    let mut job = host.spawn(&script)?;
    thread::spawn(move || io::copy(&mut from_host, &mut Unbuffered(io::stdout())));
    thread::spawn(move || io::copy(&mut io::stdin(), &mut to_host));
    let status = job.follow(LIMIT, |_| {}).map_err(|error| host.explain(error));
    drop(raw);
    status
}

/// Standard output, each write at once on the terminal.
struct Unbuffered(io::Stdout);

impl Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.0.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The terminal in raw mode, put back as it was at the end.
struct RawTerminal {
    before: String,
}

impl RawTerminal {
    fn new() -> Self {
        let before = stty(&["-g"]);
        stty(&["raw", "-echo"]);
        Self { before }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        stty(&[self.before.as_str()]);
    }
}

/// Runs stty on this terminal. Without it the shell works all the same, if not so nicely.
fn stty(args: &[&str]) -> String {
    let output = Command::new("stty")
        .args(args)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
