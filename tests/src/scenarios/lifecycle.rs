//! How runs end, and what they leave behind: nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use super::gaming::evidence::functions_work;
use super::monitor::{Ended, FUNCTIONS, RUN_LIMIT, Run, SHORT, guest_does};
use crate::lab::{LabHost, Set};
use crate::scenario::{Failure, Scenario};
use crate::see::Scene;

/// What the guest's 1 GiB has of them, about.
const GUEST_PAGES: i64 = 250_000;
/// The variable store of all runs.
const VARS: &str = "/root/lifecycle.vars.fd";

/// After power-off, kill -9, SIGTERM once and SIGTERM twice the functions are free, and the next run drives them again.
#[derive(Debug)]
pub struct GivenBack;

impl Scenario for GivenBack {
    fn name(&self) -> &'static str {
        "lifecycle"
    }

    fn shows(&self) -> &'static str {
        "power-off, kill -9, SIGTERM once and twice end with their statuses and give the devices back, run after run"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(240)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        // What is not ours to give back: pages pinned by others before the first run.
        let pinned = pinned(host)?;
        host.check(&format!("rm -f {VARS}"), SHORT)?;
        for ending in [powered_off, killed, pressed, stopped] {
            ending(host, logs)?;
            given_back(host, pinned)?;
        }
        host.check(&format!("unbind_vfio {}", FUNCTIONS.join(" ")), SHORT)?;
        Ok(())
    }
}

/// The guest powers itself off.
fn powered_off(host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
    guest_does(
        host,
        Set::New,
        "drivers,tone,efivar-write=TenonKept:here,poweroff",
        "quiet",
    )?;
    let run = device_run("power-off").start(host, logs)?;
    let end = run.finish(host, RUN_LIMIT)?;
    expect(&end, 0)?;
    functions_work(&end.marks)
}

/// Killed while the second sound controller plays: the adapter scans out, DMA and interrupts are under way.
fn killed(host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
    guest_does(host, Set::New, "drivers,display,tone=8,poweroff", "quiet")?;
    let run = device_run("kill").start(host, logs)?;
    // In the lab host and not from here, where a moment may be any number of its seconds.
    let wait = "while pidof tenon >/dev/null && ! grep -aq '@@ tone 0000:' /out/kill.serial.log; do sleep 0.5; done
                sleep 2; pidof tenon >/dev/null";
    let alive = host.exec(wait, RUN_LIMIT)?.success();
    let under_way = pinned(host)?;
    host.exec("killall -KILL tenon", SHORT)?;
    let end = run.finish(host, SHORT)?;
    let played = end.marks.about("tone").count();
    Failure::unless(alive && played == 1, || {
        format!("to be killed while the second of two controllers plays, but {played} had played to the end")
    })?;
    // That pages are pinned now is what makes it mean something that none are in the end.
    Failure::unless(under_way >= GUEST_PAGES, || {
        format!("only {under_way} pages were pinned for the guest")
    })?;
    expect(&end, 128 + 9)
}

/// SIGTERM presses the power button, which a guest that listens obeys.
fn pressed(host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
    guest_does(
        host,
        Set::New,
        "drivers,tone,efivar-read=TenonKept,wait-powerbutton",
        "quiet",
    )?;
    let mut run = device_run("sigterm").start(host, logs)?;
    run.wait_mark(host, "wait-powerbutton", RUN_LIMIT)?;
    run.signal(host, "TERM")?;
    let end = run.finish(host, RUN_LIMIT)?;
    expect(&end, 0)?;
    Failure::unless(end.marks.get("powerbutton").is_some(), || {
        "the guest powered off without having seen the power button".to_owned()
    })?;
    // Set two runs ago; the one between was killed.
    let kept = end.marks.get("efivar TenonKept");
    Failure::unless(kept == Some("here"), || {
        format!("the UEFI variable of the first run is {kept:?}")
    })?;
    functions_work(&end.marks)
}

/// A guest that does not listen is stopped by the second SIGTERM.
fn stopped(host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
    let mut run = device_run("sigterm-twice").paced(true).start(host, logs)?;
    run.see(host, &[Scene::Splash], RUN_LIMIT)?;
    run.pace(host, false)?;
    run.signal(host, "TERM")?;
    let end = Instant::now() + SHORT;
    while !run.log().contains("power button pressed") {
        Failure::unless(Instant::now() < end, || {
            "the first SIGTERM is not in tenon's log".to_owned()
        })?;
        let ended = run.ended(host, Duration::from_millis(300))?;
        Failure::unless(ended.is_none(), || format!("the first SIGTERM ended tenon: {ended:?}"))?;
    }
    run.signal(host, "TERM")?;
    // At once: not when the firmware or the guest gets round to something.
    let end = run.finish(host, SHORT)?;
    expect(&end, 5)
}

fn device_run(name: &str) -> Run {
    Run::new(name).vars(VARS).devices().disk().paced(false)
}

fn expect(end: &Ended, status: i32) -> Result<(), Failure> {
    Failure::unless(end.status == status, || {
        format!(
            "exit status {}, not {status}; tenon's log ends\n{}",
            end.status,
            tail(&end.log)
        )
    })
}

fn tail(log: &str) -> String {
    crate::lab::command::tail(log, 8)
}

/// How many pages are pinned on the lab host, for DMA or otherwise: two counters that only grow, so a balance.
fn pinned(host: &mut LabHost) -> Result<i64, Failure> {
    let script = "cat /proc/sys/vm/stat_refresh >/dev/null; awk '/^nr_foll_pin_acquired/ { up = $2 } /^nr_foll_pin_released/ { down = $2 } \
                  END { print up - down }' /proc/vmstat";
    let text = host.check(script, SHORT)?;
    let count = text.trim().parse();
    count.map_err(|_| Failure::Wrong(format!("/proc/vmstat does not count pinned pages: {text}")))
}

/// Nothing of a run is left: no process, no interrupt, no pinned page; the groups open, and the functions go to another
/// driver.
fn given_back(host: &mut LabHost, pinned_before: i64) -> Result<(), Failure> {
    let all = FUNCTIONS.join(" ");
    host.check(
        &format!(
            "set -e
             ! pidof tenon || {{ echo 'tenon still runs'; exit 1; }}
             ! grep vfio /proc/interrupts || {{ echo 'interrupts of vfio are left'; exit 1; }}
             for f in {all}; do
                 group=/dev/vfio/$(group_of $f)
                 ( : <>$group ) || {{ echo \"$group does not open\"; exit 1; }}
                 test \"$(cat /sys/bus/pci/devices/$f/enable)\" = 0 || {{ echo \"$f is still enabled\"; exit 1; }}
             done"
        ),
        SHORT,
    )?;
    let now = pinned(host)?;
    Failure::unless(now == pinned_before, || {
        format!("{} pages are still pinned", now - pinned_before)
    })?;
    host.check(
        &format!(
            "modprobe pci-stub
             unbind_vfio {all}
             for f in {all}; do
                 dev=/sys/bus/pci/devices/$f
                 echo pci-stub >$dev/driver_override
                 [ -e $dev/driver ] && echo $f >$dev/driver/unbind
                 echo $f >/sys/bus/pci/drivers_probe
                 [ \"$(driver_of $f)\" = pci-stub ] || {{ echo \"$f does not go to pci-stub\"; exit 1; }}
             done"
        ),
        SHORT,
    )?;
    Ok(())
}
