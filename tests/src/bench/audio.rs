//! How often the guest leaves to user space while it plays: the kernel's own counts of exits, for either monitor.

use std::fmt;
use std::time::Duration;

use super::{BenchError, LIMIT, MEMORY, Monitor, SHORT, stuck, uptime};
use crate::lab::{LabHost, Set};
use crate::scenarios::monitor::{GUEST_DISK, guest_does};

/// Seconds of sound on each of the two controllers.
const SECONDS: u32 = 8;

/// The kernel's counts of one virtual machine at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    uptime: f64,
    io: f64,
    mmio: f64,
    injected: f64,
}

/// Exits to user space while the guest plays, each a second of the lab host's time.
#[derive(Debug, Clone, Copy)]
pub struct Audio {
    /// Port accesses.
    pub io: f64,
    /// Accesses of memory that nothing backs, such as a BAR that is not mapped.
    pub mmio: f64,
    /// Interrupts given to the guest, for comparison: none of them exits.
    pub injected: f64,
}

impl fmt::Display for Audio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "while it plays, per second: {:.1} port exits, {:.1} memory exits, {:.1} interrupts injected",
            self.io, self.mmio, self.injected
        )
    }
}

/// Boots the Linux guest from its disk, lets it play on both assigned controllers, and counts.
///
/// # Errors
/// When the guest does not get there.
pub fn audio(host: &mut LabHost, set: Set, monitor: Monitor) -> Result<Audio, BenchError> {
    let name = monitor.name();
    // The first tones load drivers and files; only the second ones are measured.
    guest_does(host, set, &format!("tone=1,tone={SECONDS},poweroff"), "")?;
    let disk = match monitor {
        Monitor::Tenon => format!("--disk path={GUEST_DISK}"),
        Monitor::Qemu => format!("-drive if=none,id=d0,format=raw,file={GUEST_DISK} -device virtio-blk-pci,drive=d0"),
    };
    host.put("/etc/monitor.sh", monitor.functions().as_bytes())?;
    host.check(
        &format!(
            ". /etc/monitor.sh; prepare_{name}; grep -q debugfs /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug
             bind_vfio 0000:01:00.0 0000:01:00.1 0000:00:1b.0; rm -f /tmp/serial.log; cp /usr/share/OVMF/OVMF_VARS_4M.fd /tmp/vars.fd
             start_{name} {MEMORY} /tmp/vars.fd /tmp/serial.log {disk}"
        ),
        SHORT,
    )?;
    let measured = counts_after(host, name, 2)
        .and_then(|before| Ok((before, counts_after(host, name, 4)?)))
        .map(|(before, after)| between(before, after));
    host.check("tidy; wait; sleep 1; true", SHORT)?;
    measured
}

fn between(before: Counts, after: Counts) -> Audio {
    let seconds = (after.uptime - before.uptime).max(f64::EPSILON);
    Audio {
        io: (after.io - before.io) / seconds,
        mmio: (after.mmio - before.mmio) / seconds,
        injected: (after.injected - before.injected) / seconds,
    }
}

/// The counts once the guest has reported so many tones. Looked for seldom: looking takes instructions from the guest.
fn counts_after(host: &mut LabHost, name: &'static str, tones: u32) -> Result<Counts, BenchError> {
    let script = format!(
        "until [ \"$(grep -ac '^@@ tone' /tmp/serial.log)\" -ge {tones} ]; do
             test -d /proc/$(cat /run/monitor.pid) || exit 1
             sleep 1
         done
         cat /proc/uptime
         cd /sys/kernel/debug/kvm/$(cat /run/monitor.pid)-* && cat io_exits mmio_exits irq_injections"
    );
    let output = host.exec(&script, LIMIT + Duration::from_secs(300))?;
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [clock, counts @ ..] = &lines[..] else {
        return Err(stuck(host, name, "its tones"));
    };
    let counts: Vec<f64> = counts.iter().filter_map(|line| line.trim().parse().ok()).collect();
    match (output.success(), &counts[..]) {
        (true, [io, mmio, injected]) => Ok(Counts {
            uptime: uptime(clock),
            io: *io,
            mmio: *mmio,
            injected: *injected,
        }),
        _ => Err(stuck(host, name, "its tones, or the kernel's counts of it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_rates() {
        let before = Counts {
            uptime: 10.0,
            io: 100.0,
            mmio: 5.0,
            injected: 0.0,
        };
        let after = Counts {
            uptime: 20.0,
            io: 150.0,
            mmio: 5.0,
            injected: 430.0,
        };
        let audio = between(before, after);
        assert!((audio.io - 5.0).abs() < 1e-9 && audio.mmio.abs() < 1e-9 && (audio.injected - 43.0).abs() < 1e-9);
    }
}
