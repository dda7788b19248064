//! What is set aside for guests: whole cards, and the right ones.

use super::facts::{list, words};
use super::{Facts, Finding, Requirement, Section};
use crate::host::Bdf;
use crate::host::boot_args::{BootPlan, Claim, Claimed};
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
    .remedy(match for_every_boot(facts) {
        Some(boot) => format!("{bind}; {boot}"),
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
        .remedy(match for_every_boot(facts) {
            Some(_) => "leave their IDs off the kernel command line, as above".to_owned(),
            None => format!("`tenon release {}`", words(mistaken)),
        })
        .symptom("ids-match-twice"),
    )
}

/// How what is rightly set aside is claimed at every boot, with all that goes along, in place of the claims there are.
fn for_every_boot(facts: &Facts) -> Option<String> {
    let claims = facts.arguments.as_ref()?.claims();
    let argument = claims.first()?.argument;
    let mut named: Vec<Bdf> = facts.set_aside().map(Function::bdf).collect();
    // A card is what it is all about, and comes first.
    named.sort_by_key(|bdf| !is_display(facts, *bdf));
    let plan = BootPlan::for_system(&facts.tree, &facts.tree, &named, true).ok()?;
    let command = format!("`tenon boot-args {} --replace`", words(named.iter().copied()));
    let mut ids: Vec<String> = Vec::new();
    for bdf in named.iter().flat_map(|bdf| facts.survey.unit(&[*bdf])) {
        let claimed = plan.functions.iter().find(|claimed| claimed.bdf == bdf);
        let by_id = claimed.filter(|claimed| claimed.claim == Claim::ById).map(Claimed::id);
        ids.extend(by_id.filter(|id| !ids.contains(id)));
    }
    Some(match ids.is_empty() {
        true => format!("for every boot {command}"),
        false => format!(
            "for every boot vfio-pci.ids={} in place of {argument}=: {command}",
            ids.join(",")
        ),
    })
}
