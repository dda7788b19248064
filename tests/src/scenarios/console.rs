//! A monitor run in the lab host with its guest's serial port on its standard streams.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::monitor::NO_PV_EOI;
use crate::guest::Marks;
use crate::lab::command::tail;
use crate::lab::{ChannelError, Event, Job, LabHost};
use crate::scenario::Failure;

/// What no guest of ours says while all is well. The kernel complains in these words of tables, interrupts and clocks that a
/// monitor got wrong, and then goes on as best it can.
const COMPLAINTS: &[&str] = &[
    "Kernel panic",
    "Call Trace",
    "BUG:",
    "WARNING:",
    "Firmware Bug",
    "ACPI Error",
    "ACPI BIOS Error",
    "ACPI Warning",
    "Marking TSC unstable",
    "Initramfs unpacking failed",
    "nobody cared",
    "@@ error=",
];

/// The running monitor and all it has said.
#[derive(Debug)]
pub struct Console {
    job: Job,
    serial: Vec<u8>,
    messages: Vec<u8>,
    status: Option<i32>,
}

impl Console {
    /// Starts `tenon run` with these arguments and `--serial stdio`.
    ///
    /// # Errors
    /// When the host is dead.
    pub fn start(host: &mut LabHost, arguments: &str) -> Result<Self, Failure> {
        Ok(Self {
            job: host.spawn(&format!("exec tenon run {NO_PV_EOI} --serial stdio {arguments}"))?,
            serial: Vec::new(),
            messages: Vec::new(),
            status: None,
        })
    }

    /// Waits until the guest has said something.
    ///
    /// # Errors
    /// When the monitor ends or `limit` of wall time passes before that.
    pub fn until(&mut self, host: &mut LabHost, wanted: &str, limit: Duration) -> Result<(), Failure> {
        let end = Instant::now() + limit;
        while !self.text().contains(wanted) {
            if !self.listen(host, end)? {
                return Err(self.wrong(&format!("the guest did not say `{wanted}`")));
            }
        }
        Ok(())
    }

    /// Types a line on the guest's serial port.
    ///
    /// # Errors
    /// When the host is dead.
    pub fn say(&mut self, host: &mut LabHost, line: &str) -> Result<(), Failure> {
        let sent = self.job.input().stdin(format!("{line}\n").as_bytes());
        Ok(sent.map_err(|error| host.explain(error))?)
    }

    /// Waits for the monitor to end with status 0, and sees that neither it nor the guest's kernel complained.
    ///
    /// # Errors
    /// When any of that is not so.
    pub fn end_well(&mut self, host: &mut LabHost, limit: Duration) -> Result<Marks, Failure> {
        let end = Instant::now() + limit;
        while self.listen(host, end)? {}
        if self.status != Some(0) {
            return Err(self.wrong("the monitor did not end with status 0"));
        }
        let text = self.text();
        let complaint = text
            .lines()
            .find(|line| COMPLAINTS.iter().any(|words| line.contains(words)));
        if let Some(line) = complaint {
            return Err(Failure::Wrong(format!("the guest complains: {line}")));
        }
        Failure::unless(self.messages.is_empty(), || {
            format!("the monitor complains: {}", String::from_utf8_lossy(&self.messages))
        })?;
        Ok(Marks::parse(&self.serial))
    }

    /// What the guest has said.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.serial).into_owned()
    }

    /// Leaves what was said in a folder.
    pub fn keep(&self, logs: &Path) {
        // Only for reading by people; a full disk shows elsewhere.
        let _ = fs::write(logs.join("serial.log"), &self.serial);
        let _ = fs::write(logs.join("tenon.log"), &self.messages);
    }

    /// Takes in one thing it says. False once it has ended or the time is over; it is killed then.
    fn listen(&mut self, host: &mut LabHost, end: Instant) -> Result<bool, Failure> {
        if self.status.is_some() {
            return Ok(false);
        }
        let left = end.saturating_duration_since(Instant::now());
        let result = self.job.next(left).and_then(|event| {
            match event {
                Some(Event::Stdout(bytes)) => self.serial.extend(bytes),
                Some(Event::Stderr(bytes)) => self.messages.extend(bytes),
                Some(Event::Exit(status)) => self.status = Some(status),
                None => {
                    self.job.input().kill("KILL")?;
                    return Ok(false);
                }
            }
            Ok::<_, ChannelError>(self.status.is_none())
        });
        Ok(result.map_err(|error| host.explain(error))?)
    }

    fn wrong(&self, what: &str) -> Failure {
        let status = self
            .status
            .map_or("it still ran".to_owned(), |status| format!("status {status}"));
        let messages = String::from_utf8_lossy(&self.messages);
        Failure::Wrong(format!("{what} ({status})\n{messages}\n{}", tail(&self.text(), 25)))
    }
}
