//! The kernel's version, and whether it is locked down.

use super::{Facts, Finding, Requirement, Section};

/// What tenon stands on (see `README.md`).
const OLDEST: (u32, u32) = (5, 10);

/// Releases in which VFIO is broken, and what is wrong in them.
const BAD: &[((u32, u32, u32), &str)] = &[
    (
        (6, 12, 23),
        "devices on vfio-pci are not reset on opening and closing; 6.12.24 is repaired",
    ),
    (
        (6, 14, 2),
        "devices on vfio-pci are not reset on opening and closing; 6.14.3 is repaired",
    ),
];

pub(super) const RELEASE: Requirement = Requirement {
    id: "kernel",
    title: "Linux",
    section: Section::Machine,
    look: release,
};

fn release(facts: &Facts) -> Vec<Finding> {
    let Some(release) = &facts.release else {
        return vec![facts.not_said("the kernel's version")];
    };
    let (major, minor, _) = release.number;
    if (major, minor) < OLDEST {
        return vec![
            Finding::fail(format!(
                "{release} is too old: tenon needs {}.{} or newer",
                OLDEST.0, OLDEST.1
            ))
            .remedy("update the distribution"),
        ];
    }
    let bad = BAD.iter().find(|(number, _)| *number == release.number);
    vec![match bad {
        Some((_, what)) => Finding::warn(format!("{release}: {what}"))
            .remedy("boot another kernel of the same series")
            .symptom("known-bad-kernel"),
        None => Finding::pass(release.text.clone()),
    }]
}

pub(super) const LOCKDOWN: Requirement = Requirement {
    id: "lockdown",
    title: "Lockdown",
    section: Section::Machine,
    look: lockdown,
};

fn lockdown(facts: &Facts) -> Vec<Finding> {
    let Ok(text) = facts.tree.text("/sys/kernel/security/lockdown") else {
        return Vec::new();
    };
    let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match mode {
        Some((mode @ ("integrity" | "confidentiality"), _)) => vec![
            Finding::pass(format!(
                "{mode}, as Secure Boot makes it: VFIO works; unsigned modules such as vendor-reset do not load"
            ))
            .symptom("lockdown"),
        ],
        _ => Vec::new(),
    }
}
