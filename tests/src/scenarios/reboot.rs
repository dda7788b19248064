//! Resets from within the guest.

use std::path::Path;
use std::time::{Duration, Instant};

use super::gaming::evidence::functions_work;
use super::monitor::{Ended, RUN_LIMIT, Run, Running, SHORT, copy_in, files, guest_does};
use crate::guest::Marks;
use crate::lab::{LabHost, Set};
use crate::scenario::{Failure, Scenario};
use crate::see::Scene;

/// How often the guest reboots: first by the keyboard controller (port 0x64), then by ACPI's reset register (0xcf9).
const REBOOTS: usize = 2;

/// Linux reboots, and each time the splash comes back on the assigned adapter and all three functions work.
#[derive(Debug)]
pub struct Reboot;

impl Scenario for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    fn shows(&self) -> &'static str {
        "two reboots from Linux, by 0x64 and by 0xcf9: each back to the splash with working devices"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(220)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        let words = format!("drivers,tone,reboots={REBOOTS}:kbd:acpi,poweroff");
        guest_does(host, Set::New, &words, "quiet")?;
        let mut run = Run::new("reboot").devices().disk().start(host, logs)?;
        for boot in 0..=REBOOTS {
            run.see(host, &[Scene::Splash], RUN_LIMIT)?;
            run.pace(host, false)?;
            // Linux has the screen by now: the next splash is a new one.
            wait_boots(&mut run, host, boot + 1)?;
            run.pace(host, boot < REBOOTS)?;
        }
        let end = run.finish(host, RUN_LIMIT)?;
        judge(&end)
    }
}

fn wait_boots(run: &mut Running, host: &mut LabHost, count: usize) -> Result<(), Failure> {
    let limit = Instant::now() + RUN_LIMIT;
    while run.marks().all("boots").count() < count {
        let over = run.ended(host, Duration::from_millis(200))?.is_some() || Instant::now() > limit;
        Failure::unless(!over || run.marks().all("boots").count() >= count, || {
            let serial = String::from_utf8_lossy(&run.serial()).into_owned();
            format!(
                "Linux did not come up for the {count}. time:\n{}",
                crate::lab::command::tail(&serial, 12)
            )
        })?;
    }
    Ok(())
}

fn judge(end: &Ended) -> Result<(), Failure> {
    Failure::unless(end.status == 0, || format!("exit status {}, not 0", end.status))?;
    let boots = boots(&end.serial);
    Failure::unless(boots.len() == REBOOTS + 1, || {
        format!("{} boots, not {}", boots.len(), REBOOTS + 1)
    })?;
    for (number, marks) in boots.iter().enumerate() {
        functions_work(marks).map_err(|failure| Failure::Wrong(format!("after reboot {number}: {failure}")))?;
    }
    // Linux goes on to other ways when one does nothing, so that it came back is not enough.
    let ways: Vec<&str> = end
        .log
        .lines()
        .filter_map(|line| line.split_once("asks for a reset by "))
        .map(|(_, way)| way)
        .collect();
    Failure::unless(ways == ["the keyboard controller", "port 0xcf9"], || {
        format!("the guest was reset by {ways:?}")
    })
}

/// The marks of each boot in a serial log: `init` is the first of each.
fn boots(serial: &[u8]) -> Vec<Marks> {
    let text = String::from_utf8_lossy(serial);
    let parts = text.split("@@ init=").skip(1);
    parts
        .map(|part| Marks::parse(format!("@@ init={part}").as_bytes()))
        .collect()
}

/// Without firmware: a triple fault resets, and the kernel is loaded and starts again.
#[derive(Debug)]
pub struct TripleFault;

impl Scenario for TripleFault {
    fn name(&self) -> &'static str {
        "reboot-triple-fault"
    }

    fn shows(&self) -> &'static str {
        "a kernel booted directly that reboots by triple fault is loaded and starts again"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(40)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        let files = files(Set::New)?;
        copy_in(host, &files.kernel, "/root/vmlinuz")?;
        copy_in(host, &files.initramfs, "/root/initrd.img")?;
        let mut run = Run::new("triple-fault")
            .paced(false)
            .kernel(
                "/root/vmlinuz",
                "/root/initrd.img",
                "console=ttyS0 quiet tenon.do=reboot-by=triple,reboot",
            )
            .start(host, logs)?;
        let limit = Instant::now() + RUN_LIMIT;
        // It reboots for ever; once is enough.
        while run.marks().all("init").count() < 2 {
            let ended = run.ended(host, Duration::from_millis(200))?;
            Failure::unless(ended.is_none() && Instant::now() < limit, || {
                format!(
                    "no second boot; tenon ended: {ended:?}\n{}",
                    crate::lab::command::tail(&run.log(), 8)
                )
            })?;
        }
        let log = run.log();
        let faults = log.matches("faulted beyond recovery").count();
        Failure::unless(faults >= 1 && !log.contains("asks for a reset by"), || {
            format!(
                "{faults} triple faults, or resets of another kind:\n{}",
                crate::lab::command::tail(&log, 8)
            )
        })?;
        run.signal(host, "KILL")?;
        run.finish(host, SHORT).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::boots;

    #[test]
    fn each_boot_has_its_own_marks() {
        let boots = boots(b"BdsDxe\n@@ init=1.0\n@@ boots=0\n@@ reboot\nagain\n@@ init=2.0\n@@ boots=1\n");
        assert_eq!(boots.len(), 2);
        assert_eq!((boots[0].get("boots"), boots[1].get("boots")), (Some("0"), Some("1")));
    }
}
