//! What tenon refuses: each bad input with its message and exit status, and the host left as it was.

mod cases;
pub(super) mod halting;

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::cases::{Case, Folder};
use crate::lab::{LabHost, Output};
use crate::scenario::{Failure, Scenario};
use cases::CASES;

/// The shell functions and files that the cases use.
const FOLDER: Folder = Folder {
    path: "/tmp/refusals",
    shell: include_str!("cases.sh"),
    limit: Duration::from_secs(120),
};

/// A configuration without fault, tried after each refusal: it opens KVM, the groups and the disk again.
const GOOD: &str = "tenon run --dry-run $GOOD";

/// Every refusal.
#[derive(Debug)]
pub struct Refusals;

impl Scenario for Refusals {
    fn name(&self) -> &'static str {
        "refusals"
    }

    fn shows(&self) -> &'static str {
        "bad input is refused with a message that names it and the remedy, and nothing is left bound, mapped, locked or created"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(90)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        FOLDER.fill(host)?;
        host.put(&format!("{}/halting.elf", FOLDER.path), &halting::kernel())?;
        FOLDER.check(host, "set_up")?;
        good(host)?;
        json(host)?;
        let before = FOLDER.check(host, "state")?;
        let mut transcript = before.clone();
        let mut wrong = Vec::new();
        for case in CASES {
            let output = FOLDER.exec(host, case.script)?;
            transcript += &format!("== {}: status {}\n{}", case.name, output.status, output.stderr);
            wrong.extend(fault(case, &output));
            wrong.extend(
                FOLDER
                    .remains(host, &before)?
                    .map(|remains| format!("{}: left behind: {remains}", case.name)),
            );
            if let Err(failure) = good(host) {
                wrong.push(format!("{}: after it, {failure}", case.name));
            }
        }
        // Only for reading by people.
        let _ = fs::write(logs.join("refusals.log"), transcript);
        FOLDER.check(host, "take_down")?;
        Failure::unless(wrong.is_empty(), || wrong.join("\n"))
    }
}

/// What was wrong with a refusal, if anything was.
fn fault(case: &Case, output: &Output) -> Option<String> {
    let said = output.stderr.trim_end();
    if let Some(fault) = case.fault(output, said) {
        return Some(fault);
    }
    let name = case.name;
    let tidy = said.starts_with("error: ") && output.stdout.is_empty() && said.lines().count() <= 3;
    (!tidy).then(|| format!("{name}: not one error and nothing else: {said}\n{}", output.stdout))
}

/// The good configuration is accepted and shown with all that is in it.
fn good(host: &mut LabHost) -> Result<(), Failure> {
    let shown = FOLDER.check(host, GOOD)?;
    let wanted = [
        "memory     128 MiB",
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/tmp/refusals/VARS.fd, to be created from the template",
        "/tmp/refusals/disk.img (8 MiB)",
        "from 0000:01:00.0 (class 038000",
        "from 0000:01:00.1 (class 0403",
        "from 0000:00:1b.0 (class 0403",
        "hidden from the guest",
    ];
    let missing = wanted.iter().find(|words| !shown.contains(**words));
    Failure::unless(missing.is_none(), || {
        format!("the dry run does not show {missing:?}:\n{shown}")
    })
}

/// The same as JSON.
fn json(host: &mut LabHost) -> Result<(), Failure> {
    let shown = FOLDER.check(host, &format!("{GOOD} --json"))?;
    let plan: serde_json::Value =
        serde_json::from_str(&shown).map_err(|error| Failure::Wrong(format!("--json is no JSON: {error}\n{shown}")))?;
    let hosts: Vec<&str> = (plan["devices"].as_array().into_iter().flatten())
        .filter_map(|device| device["host"].as_str())
        .collect();
    let right = plan["memory"] == 128 << 20
        && plan["cpus"] == 1
        && plan["hide-kvm"] == true
        && plan["vars-to-be-created"] == true
        && plan["disks"][0]["size"] == 8 << 20
        && ["0000:01:00.0", "0000:01:00.1", "0000:00:1b.0"]
            .iter()
            .all(|bdf| hosts.contains(bdf));
    Failure::unless(right, || format!("--json is not what was asked for:\n{shown}"))
}
