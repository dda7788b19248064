//! Figures, tenon's beside QEMU's: the same lab host, firmware, memory and devices.
//!
//! Times are the lab host's own, which under icount count instructions: the same run gives the same figure on any
//! machine, busy or not.

pub mod audio;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{HostError, LabHost};
use crate::scenario::Failure;
use crate::see::{Image, Scene};

/// Guest memory in MiB.
const MEMORY: u32 = 1024;

/// Wall time for one start to the Shell. It takes about two minutes.
const LIMIT: Duration = Duration::from_secs(600);

/// A shell function: whether the monitor's process is there.
const MONITOR_LIVES: &str = "monitor_lives() { test -d /proc/$(cat /run/monitor.pid); }";

const SHORT: Duration = Duration::from_secs(120);

/// A monitor under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitor {
    /// Ours.
    Tenon,
    /// The rival.
    Qemu,
}

impl Monitor {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenon => "tenon",
            Self::Qemu => "qemu",
        }
    }

    fn functions(self) -> &'static str {
        match self {
            Self::Tenon => include_str!("tenon.sh"),
            Self::Qemu => include_str!("qemu.sh"),
        }
    }
}

/// What is measured of one start.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Seconds of the lab host's time from the process's start to the splash.
    pub splash: f64,
    /// The same to the prompt of the UEFI Shell.
    pub shell: f64,
    /// Resident memory beyond the guest's own at the Shell, in KiB.
    pub overhead: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.overhead as f64 / 1024.0;
        write!(
            f,
            "splash after {:.1} s, UEFI Shell after {:.1} s, {mib:.1} MiB beyond the guest's memory",
            self.splash, self.shell
        )
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The lab host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The guest could not be built.
    #[error(transparent)]
    Guest(#[from] Failure),
    /// The monitor ended or got stuck.
    #[error("{monitor} did not get to {to}:\n{said}")]
    Stuck {
        /// Which.
        monitor: &'static str,
        /// What it should have reached.
        to: &'static str,
        /// Its last words.
        said: String,
    },
}

/// Starts a monitor with the three functions and the stock firmware, waits for the Shell, and ends it.
///
/// # Errors
/// When the monitor does not get there.
pub fn start(host: &mut LabHost, monitor: Monitor) -> Result<Figures, BenchError> {
    let name = monitor.name();
    host.put("/etc/monitor.sh", monitor.functions().as_bytes())?;
    host.check(&format!(". /etc/monitor.sh; prepare_{name}"), SHORT)?;
    host.check(
        "bind_vfio 0000:01:00.0 0000:01:00.1 0000:00:1b.0; rm -f /tmp/serial.log",
        SHORT,
    )?;
    host.check("cp /usr/share/OVMF/OVMF_VARS_4M.fd /tmp/vars.fd", SHORT)?;
    let begin =
        format!(". /etc/monitor.sh; pace on; cat /proc/uptime; start_{name} {MEMORY} /tmp/vars.fd /tmp/serial.log");
    let begin = uptime(&host.check(&begin, SHORT)?);
    let result = follow(host, name, begin);
    host.check("tidy; wait; sleep 1; cp /tmp/*.log /out/ 2>/dev/null; true", SHORT)?;
    result
}

fn follow(host: &mut LabHost, name: &'static str, begin: f64) -> Result<Figures, BenchError> {
    let Some(splash) = splash(host)? else {
        return Err(stuck(host, name, "the splash"));
    };
    let wait =
        "until grep -aq 'Shell>' /tmp/serial.log; do monitor_lives || exit 1; usleep 20000; done; cat /proc/uptime";
    let shell = host.exec(&format!("{MONITOR_LIVES}; {wait}"), LIMIT)?;
    if !shell.success() {
        return Err(stuck(host, name, "the UEFI Shell"));
    }
    Ok(Figures {
        splash: splash - begin,
        shell: uptime(&shell.stdout) - begin,
        overhead: overhead(host)?,
    })
}

/// The lab host's time when the splash is first seen, or nothing if the monitor ends before.
fn splash(host: &mut LabHost) -> Result<Option<f64>, HostError> {
    let end = Instant::now() + LIMIT;
    let mut polls = 0;
    while Instant::now() < end {
        let screen = host.screendump("gpu")?;
        if Image::parse(&screen).is_ok_and(|image| Scene::Splash.is_in(&image)) {
            return host
                .check("cat /proc/uptime; pace off", SHORT)
                .map(|text| Some(uptime(&text)));
        }
        polls += 1;
        // Asking costs the host time, which is what is measured: seldom.
        if polls % 50 == 0 && !host.exec(&format!("{MONITOR_LIVES}; monitor_lives"), SHORT)?.success() {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(None)
}

fn stuck(host: &mut LabHost, monitor: &'static str, to: &'static str) -> BenchError {
    match host.exec(
        &format!("tail -n 20 /tmp/{monitor}.log; tail -n 20 /tmp/serial.log"),
        SHORT,
    ) {
        Ok(output) => BenchError::Stuck {
            monitor,
            to,
            said: output.stdout,
        },
        Err(error) => error.into(),
    }
}

/// What the process holds beyond the guest's memory, all of which is pinned for the devices and so resident.
fn overhead(host: &mut LabHost) -> Result<u64, HostError> {
    let resident = host.check(
        "awk '/^VmRSS/ { print $2 }' /proc/$(cat /run/monitor.pid)/status",
        SHORT,
    )?;
    Ok(resident
        .trim()
        .parse::<u64>()
        .unwrap_or(0)
        .saturating_sub(u64::from(MEMORY) * 1024))
}

fn uptime(text: &str) -> f64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::uptime;

    #[test]
    fn reads_clocks() {
        assert!((uptime("7.84 0.00\n") - 7.84).abs() < 1e-9);
    }
}
