//! The host prepared: functions taken from its own drivers and given back to them, by hand and for a run, with all that
//! can come in between.

mod cases;
mod remapping;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::gaming::evidence::functions_work;
use super::monitor::{self, RUN_LIMIT, Run, copy_in};
use super::refusals::halting;
use crate::lab::{Hardware, LabHost, Output, Set, bdf};
use crate::scenario::{Failure, Scenario, Wish};
use cases::{CASES, Case};

pub use remapping::WithoutRemapping;

const LIMIT: Duration = Duration::from_secs(150);
/// The shell functions and files that the cases use; L1 has them in this folder.
const FOLDER: &str = "/tmp/prepare";
const SHELL: &str = include_str!("cases.sh");
/// The guest, started without firmware: it drives all three functions, plays a tone on each controller, and powers off.
const KERNEL: &str = "/root/prepare.kernel";
const INITRD: &str = "/root/prepare.initrd";
const GUEST: &str = "console=ttyS0 panic=-1 mitigations=off tenon.do=drivers,tone,poweroff";

/// `tenon bind`, `tenon release` and `tenon run --bind` on a host whose functions have drivers and are in use.
#[derive(Debug)]
pub struct Prepare;

impl Scenario for Prepare {
    fn name(&self) -> &'static str {
        "prepare"
    }

    fn shows(&self) -> &'static str {
        "functions are taken from the host's drivers and given back, whole groups or not at all, from what is in use not at \
         all, and after a kill at any moment"
    }

    fn wish(&self) -> Wish {
        Wish {
            hardware: Hardware {
                extra: disks(),
                ..Hardware::default()
            },
            ..Wish::default()
        }
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(240)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        host.put(&format!("{FOLDER}/cases.sh"), SHELL.as_bytes())?;
        host.put(&format!("{FOLDER}/halting.elf"), &halting::kernel())?;
        host.check(&script("set_up"), LIMIT)?;
        let before = host.check(&script("state"), LIMIT)?;
        let mut transcript = before.clone();
        let mut wrong = Vec::new();
        for case in CASES {
            let start = Instant::now();
            let output = host.exec(&script(case.script), LIMIT)?;
            let took = start.elapsed().as_secs_f32();
            transcript += &format!(
                "== {}: status {} after {took:.1} s\n{}{}",
                case.name, output.status, output.stdout, output.stderr
            );
            // Only for reading by people.
            let _ = fs::write(logs.join("prepare.log"), &transcript);
            wrong.extend(fault(case, &output));
            wrong.extend(remains(host, &before)?.map(|remains| format!("{}: left behind: {remains}", case.name)));
        }
        Failure::unless(wrong.is_empty(), || wrong.join("\n"))?;
        guests(host, logs, &before)?;
        host.check(&script("take_down"), LIMIT)?;
        Ok(())
    }
}

/// A disk at each of two controllers, which forgets what was written when the host ends.
fn disks() -> Vec<String> {
    let mut arguments = Vec::new();
    for (id, device) in [
        ("nd", "nvme,drive=nd,serial=lab,bus=pcie.0,addr=05.0"),
        ("vd", "virtio-blk-pci,drive=vd,bus=pcie.0,addr=06.0"),
    ] {
        let drive = "file.driver=null-co,file.size=64M,file.read-zeroes=on,format=raw,snapshot=on";
        arguments.extend(["-drive".to_owned(), format!("if=none,id={id},{drive}")]);
        arguments.extend(["-device".to_owned(), device.to_owned()]);
    }
    arguments
}

fn script(command: &str) -> String {
    format!("cd {FOLDER} && . ./cases.sh || exit 125\n{command}")
}

/// What was wrong with a case, if anything was.
fn fault(case: &Case, output: &Output) -> Option<String> {
    let Case { name, status, says, .. } = case;
    let said = format!("{}{}", output.stdout, output.stderr);
    if output.status != *status {
        return Some(format!("{name}: status {}, not {status}: {said}", output.status));
    }
    let missing = says.iter().find(|words| !said.contains(**words))?;
    Some(format!("{name}: `{missing}` is not in: {said}"))
}

/// What is different on the host from before. The kernel lets go of some things a moment after a process has ended.
fn remains(host: &mut LabHost, before: &str) -> Result<Option<String>, Failure> {
    let mut now = String::new();
    for _ in 0..10 {
        now = host.check(&script("state"), LIMIT)?;
        if now == before {
            return Ok(None);
        }
        host.check("sleep 0.3", LIMIT)?;
    }
    let gone = before.lines().filter(|line| !now.lines().any(|other| other == *line));
    let new = now.lines().filter(|line| !before.lines().any(|other| other == *line));
    let lines: Vec<String> = gone
        .map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect();
    Ok(Some(lines.join("; ")))
}

/// A guest with functions bound beforehand, and one for which they are taken and given back, of which but one of the
/// card's is named.
fn guests(host: &mut LabHost, logs: &Path, before: &str) -> Result<(), Failure> {
    let files = monitor::files(Set::New)?;
    copy_in(host, &files.kernel, KERNEL)?;
    copy_in(host, &files.initramfs, INITRD)?;
    host.check(&script("tenon bind $GPU $HDA $MINE"), LIMIT)?;
    let bound = guest("bound", &[bdf::GPU, bdf::HDMI, bdf::HDA]);
    finish(host, logs, &bound)?;
    host.check(&script("tenon release --all"), LIMIT)?;
    unchanged(host, before)?;
    let auto = guest("auto", &[bdf::GPU, bdf::HDA])
        .arg("--bind")
        .arg("auto")
        .arg("--yes-this-is-my-display");
    let log = finish(host, logs, &auto)?;
    unchanged(host, before)?;
    let told = [
        "0000:01:00.1  snd_hda_intel -> vfio-pci",
        "0000:01:00.1  back on snd_hda_intel",
    ];
    Failure::unless(told.iter().all(|words| log.contains(words)), || {
        format!("the run does not say what it took and gave back:\n{log}")
    })
}

fn guest(name: &str, functions: &[&str]) -> Run {
    let run = Run::new(name).kernel(KERNEL, INITRD, GUEST).paced(false);
    let run = run.arg("--hide-kvm").arg("on");
    functions.iter().fold(run, |run, bdf| run.arg("--device").arg(bdf))
}

/// Runs it to its power-off, in which all three functions work; answers what tenon said.
fn finish(host: &mut LabHost, logs: &Path, run: &Run) -> Result<String, Failure> {
    let end = run.start(host, logs)?.finish(host, RUN_LIMIT)?;
    Failure::unless(end.status == 0, || format!("exit status {}:\n{}", end.status, end.log))?;
    functions_work(&end.marks)?;
    Ok(end.log)
}

fn unchanged(host: &mut LabHost, before: &str) -> Result<(), Failure> {
    match remains(host, before)? {
        Some(remains) => Err(Failure::Wrong(format!("left behind by the guest: {remains}"))),
        None => Ok(()),
    }
}
