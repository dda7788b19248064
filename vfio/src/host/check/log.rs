//! Failures that the kernel has told of since it booted.

use super::remapping::after_time;
use super::{Facts, Finding, Requirement, Section};
use crate::host::symptom::{Scanner, Sighting};

pub(super) const LOG: Requirement = Requirement {
    id: "kernel-log",
    title: "Kernel log",
    section: Section::Log,
    look: log,
};

/// What is judged by the state itself is not said again.
const JUDGED: [&str; 2] = ["no-interrupt-remapping", "kvm-disabled"];

fn log(facts: &Facts) -> Vec<Finding> {
    if let Some(reason) = &facts.log.missing {
        return vec![Finding::unknown(reason.clone())];
    }
    let scan = Scanner::lines(facts.log.lines().iter().map(String::as_str));
    let seen: Vec<&Sighting> = scan
        .sightings
        .iter()
        .filter(|seen| !JUDGED.contains(&seen.symptom.id))
        .collect();
    if seen.is_empty() {
        let late = if facts.log.begins_late {
            ", the boot no longer among them"
        } else {
            ""
        };
        return vec![Finding::pass(format!(
            "nothing of concern in {} lines{late}",
            scan.lines
        ))];
    }
    let say = |seen: &Sighting| {
        let times = if seen.count > 1 {
            format!(" ({} times)", seen.count)
        } else {
            String::new()
        };
        Finding::warn(format!("{}{times}: {}", seen.symptom.title, after_time(&seen.line)))
            .remedy(seen.remedy())
            .symptom(seen.symptom.id)
    };
    seen.into_iter().map(say).collect()
}
