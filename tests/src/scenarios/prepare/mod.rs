//! The host prepared: functions taken from its own drivers and given back to them, by hand and for a run, with all that
//! can come in between.

mod cases;
mod remapping;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cases::Folder;
use super::gaming::evidence::functions_work;
use super::monitor::{self, RUN_LIMIT, Run, copy_in};
use super::refusals::halting;
use crate::lab::{Hardware, LabHost, Set, bdf};
use crate::scenario::{Failure, Scenario, Wish};
use cases::CASES;

pub use remapping::WithoutRemapping;

/// The shell functions and files that the cases use.
const FOLDER: Folder = Folder {
    path: "/tmp/prepare",
    shell: include_str!("cases.sh"),
    limit: Duration::from_secs(150),
};
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
        FOLDER.fill(host)?;
        host.put(&format!("{}/halting.elf", FOLDER.path), &halting::kernel())?;
        FOLDER.check(host, "set_up")?;
        let before = FOLDER.check(host, "state")?;
        let mut transcript = before.clone();
        let mut wrong = Vec::new();
        for case in CASES {
            let start = Instant::now();
            let output = FOLDER.exec(host, case.script)?;
            let took = start.elapsed().as_secs_f32();
            transcript += &format!(
                "== {}: status {} after {took:.1} s\n{}{}",
                case.name, output.status, output.stdout, output.stderr
            );
            // Only for reading by people.
            let _ = fs::write(logs.join("prepare.log"), &transcript);
            wrong.extend(case.fault(&output, &format!("{}{}", output.stdout, output.stderr)));
            wrong.extend(
                FOLDER
                    .remains(host, &before)?
                    .map(|remains| format!("{}: left behind: {remains}", case.name)),
            );
        }
        Failure::unless(wrong.is_empty(), || wrong.join("\n"))?;
        guests(host, logs, &before)?;
        FOLDER.check(host, "take_down")?;
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

/// A guest with functions bound beforehand, and one for which they are taken and given back, of which but one of the
/// card's is named.
fn guests(host: &mut LabHost, logs: &Path, before: &str) -> Result<(), Failure> {
    let files = monitor::files(Set::New)?;
    copy_in(host, &files.kernel, KERNEL)?;
    copy_in(host, &files.initramfs, INITRD)?;
    FOLDER.check(host, "tenon bind $GPU $HDA $MINE")?;
    let bound = guest("bound", &[bdf::GPU, bdf::HDMI, bdf::HDA]);
    finish(host, logs, &bound)?;
    FOLDER.check(host, "tenon release --all")?;
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
    match FOLDER.remains(host, before)? {
        Some(remains) => Err(Failure::Wrong(format!("left behind by the guest: {remains}"))),
        None => Ok(()),
    }
}
