//! What is set aside for guests: whole cards, and the right ones.

use super::facts::{list, words};
use super::{Facts, Finding, Requirement, Section};
use crate::host::Bdf;
use crate::host::survey::{Anomaly, Function};

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
    if found.is_empty() {
        let aside: Vec<Bdf> = set_aside(facts).map(Function::bdf).collect();
        found.push(match aside.is_empty() {
            true => Finding::pass("nothing yet"),
            false => Finding::pass(format!("{}, whole", list(aside))),
        });
    }
    found
}

fn set_aside(facts: &Facts) -> impl Iterator<Item = &Function> {
    let functions = facts.survey.functions.iter();
    functions.filter(|function| function.facts.is_set_aside() && !function.facts.is_bridge())
}

fn judge(facts: &Facts, anomaly: &Anomaly) -> Option<Finding> {
    Some(match anomaly {
        Anomaly::HalfTaken { taken, missing, .. } => half_taken(facts, taken, missing),
        Anomaly::TakenInstead { function, missing } => {
            let driver = facts
                .survey
                .get(*function)
                .and_then(|function| function.facts.driver.clone());
            Finding::warn(format!(
                "{function} is on {}, but nothing of a guest: was {} meant?",
                driver.unwrap_or_else(|| "a stub".to_owned()),
                list(missing.iter().copied())
            ))
            .remedy(argument(facts).unwrap_or_else(|| format!("`tenon release {function}`")))
            .symptom("ids-match-twice")
        }
        Anomaly::NoDisplayLeft(displays) => Finding::warn(format!(
            "{}: no display is left to the host",
            list(displays.iter().copied())
        ))
        .remedy("see that you reach the host by ssh, or leave one display to it")
        .symptom("boot-display"),
        // Said of each function that it is not on vfio-pci.
        Anomaly::OnStub(_) => return None,
    })
}

fn half_taken(facts: &Facts, taken: &[Bdf], missing: &[Bdf]) -> Finding {
    let held: Vec<String> = missing
        .iter()
        .map(|bdf| {
            let function = facts.survey.get(*bdf);
            match function.and_then(|function| function.facts.driver.as_deref()) {
                Some(driver) => format!("{bdf} is left to {driver}"),
                None => format!("{bdf} is left to any driver that comes"),
            }
        })
        .collect();
    // Linux 5.19 learnt to own a group as a whole, and refuses the guest instead.
    let then = match facts.at_least(5, 19) {
        Some(true) => "a guest with it will not start",
        _ => "will crash the host at guest shutdown",
    };
    let bind = format!("`tenon bind {}` now", words(taken.iter().take(1).copied()));
    Finding::fail(format!(
        "{} {} set aside, but {}: {then}",
        list(taken.iter().copied()),
        if taken.len() == 1 { "is" } else { "are" },
        held.join(", ")
    ))
    .remedy(match argument(facts) {
        Some(argument) => format!("{bind}; {argument}"),
        None => bind,
    })
    .symptom("half-bound-slot")
}

/// The argument that claims what goes together with all that is rightly set aside, where the host claims by ID at all.
fn argument(facts: &Facts) -> Option<String> {
    let claims = facts.arguments.as_ref()?.claims();
    let name = claims.first()?.argument;
    let written = facts.arguments.as_ref()?.written(name)?;
    let mistaken: Vec<Bdf> = facts
        .survey
        .anomalies
        .iter()
        .filter_map(|anomaly| match anomaly {
            Anomaly::TakenInstead { function, .. } => Some(*function),
            _ => None,
        })
        .collect();
    let mut units: Vec<Vec<Bdf>> = Vec::new();
    for function in set_aside(facts).filter(|function| !mistaken.contains(&function.bdf())) {
        if !units.iter().any(|unit| unit.contains(&function.bdf())) {
            units.push(facts.survey.unit(&[function.bdf()]));
        }
    }
    // A card is what it is all about, and comes first.
    let is_card = |unit: &Vec<Bdf>| {
        let mut displays = unit.iter().filter_map(|bdf| facts.survey.get(*bdf));
        displays.any(|function| function.facts.is_display())
    };
    units.sort_by_key(|unit| !is_card(unit));
    let mut ids: Vec<String> = Vec::new();
    for function in units.iter().flatten().filter_map(|bdf| facts.survey.get(*bdf)) {
        let id = format!("{:04x}:{:04x}", function.facts.vendor, function.facts.device);
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let right = format!("{name}={}", ids.join(","));
    (!ids.is_empty() && right != written)
        .then(|| format!("for every boot, {right} in place of {written}: `tenon boot-args` prints how"))
}
