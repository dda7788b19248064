//! What is set aside for guests: whole cards, and the right ones.

use super::facts::{list, words};
use super::{Facts, Finding, Requirement, Section};
use crate::host::Bdf;
use crate::host::survey::{Anomaly, Function, short};

pub(super) const ISOLATION: Requirement = Requirement {
    id: "isolation",
    title: "Set aside",
    section: Section::Devices,
    look: isolation,
};

fn isolation(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts
        .survey
        .anomalies
        .iter()
        .filter_map(|anomaly| judge(facts, anomaly))
        .collect();
    found.extend(taken_instead(facts));
    if found.is_empty() {
        let aside: Vec<Bdf> = facts.set_aside().map(Function::bdf).collect();
        found.push(match aside.is_empty() {
            true => Finding::pass("nothing yet"),
            false => Finding::pass(format!("{}, whole", list(aside))),
        });
    }
    found
}

fn judge(facts: &Facts, anomaly: &Anomaly) -> Option<Finding> {
    match anomaly {
        Anomaly::HalfTaken { taken, missing, .. } => Some(half_taken(facts, taken, missing)),
        // The mistake itself says it already.
        Anomaly::NoDisplayLeft(displays) if facts.mistaken().iter().any(|bdf| displays.contains(bdf)) => None,
        Anomaly::NoDisplayLeft(displays) => Some(
            Finding::warn(format!(
                "{}: no display is left to the host",
                list(displays.iter().copied())
            ))
            .remedy("see that you reach the host by ssh, or leave one display to it")
            .symptom("boot-display"),
        ),
        // Told together, and of each device that it is not on vfio-pci.
        Anomaly::TakenInstead { .. } | Anomaly::OnStub(_) => None,
    }
}

fn half_taken(facts: &Facts, taken: &[Bdf], missing: &[Bdf]) -> Finding {
    let held: Vec<String> = missing
        .iter()
        .map(|bdf| {
            let function = facts.survey.get(*bdf);
            match function.and_then(|function| function.facts.driver.as_deref()) {
                Some(driver) => format!("{} is left to {driver}", short(*bdf)),
                None => format!("{} is left to any driver that comes", short(*bdf)),
            }
        })
        .collect();
    // A card is reset as a whole; Linux 5.19 learnt to own a group as a whole, and refuses the guest instead.
    let is_card = taken.iter().any(|bdf| is_display(facts, *bdf));
    let then = match facts.at_least(5, 19) {
        Some(true) => "a guest with it will not start",
        _ if is_card => "this will crash the host at guest shutdown",
        _ => "a guest with it will not start, or crash the host at its end",
    };
    let bind = format!("`tenon bind {}` now", words(taken.iter().take(1).copied()));
    Finding::fail(format!(
        "{} {} set aside, but {}: {then}",
        list(taken.iter().copied()),
        if taken.len() == 1 { "is" } else { "are" },
        held.join(", ")
    ))
    .remedy(match argument(facts) {
        Some((right, written)) => {
            format!("{bind}; for every boot `tenon boot-args` prints how to have {right} in place of {written}")
        }
        None => bind,
    })
    .symptom("half-bound-slot")
}

fn is_display(facts: &Facts, bdf: Bdf) -> bool {
    facts
        .survey
        .get(bdf)
        .is_some_and(|function| function.facts.is_display())
}

fn taken_instead(facts: &Facts) -> Option<Finding> {
    let mistaken = facts.mistaken();
    let first = facts.survey.get(*mistaken.first()?)?;
    let meant = facts.survey.anomalies.iter().find_map(|anomaly| match anomaly {
        Anomaly::TakenInstead { missing, .. } => Some(list(missing.iter().copied())),
        _ => None,
    })?;
    let driver = first.facts.driver.as_deref().unwrap_or("no driver");
    let are = if mistaken.len() == 1 { "is" } else { "are" };
    Some(
        Finding::warn(format!(
            "{} {are} on {driver}, but no guest's: was {meant} meant?",
            list(mistaken.iter().copied())
        ))
        .remedy(match argument(facts) {
            Some(_) => "leave their IDs off the kernel command line, as above".to_owned(),
            None => format!("`tenon release {}`", words(mistaken)),
        })
        .symptom("ids-match-twice"),
    )
}

/// The argument that claims what goes together with all that is rightly set aside, and the one it is to replace; where
/// the host claims by ID at all.
fn argument(facts: &Facts) -> Option<(String, String)> {
    let arguments = facts.arguments.as_ref()?;
    let name = arguments.claims().first()?.argument;
    let written = arguments.written(name)?;
    let mut units: Vec<Vec<Bdf>> = Vec::new();
    for function in facts.set_aside() {
        if !units.iter().any(|unit| unit.contains(&function.bdf())) {
            units.push(facts.survey.unit(&[function.bdf()]));
        }
    }
    // A card is what it is all about, and comes first.
    units.sort_by_key(|unit| !unit.iter().any(|bdf| is_display(facts, *bdf)));
    let mut ids: Vec<String> = Vec::new();
    for function in units.iter().flatten().filter_map(|bdf| facts.survey.get(*bdf)) {
        let id = format!("{:04x}:{:04x}", function.facts.vendor, function.facts.device);
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let right = format!("{name}={}", ids.join(","));
    (!ids.is_empty() && right != written).then_some((right, written))
}
