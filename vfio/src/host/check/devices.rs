//! Whether each function asked for, or set aside, can go to a guest as it stands.

use super::facts::{list, words};
use super::{Facts, Finding, Requirement, Section, Status};
use crate::host::Bdf;
use crate::host::survey::{Function, Reason, Use, Verdict, short};

pub(super) const DEVICES: Requirement = Requirement {
    id: "devices",
    title: "Devices",
    section: Section::Devices,
    look: devices,
};

fn devices(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts
        .wanted
        .devices
        .iter()
        .filter_map(|bdf| nowhere(facts, *bdf))
        .collect();
    let units = facts.units();
    if units.is_empty() && found.is_empty() {
        return vec![candidates(facts)];
    }
    for unit in units {
        if told_as_half(facts, &unit) {
            continue;
        }
        let refused: Vec<Finding> = unit.iter().filter_map(|function| refused(function)).take(1).collect();
        match refused.is_empty() {
            true => found.extend(unnamed(facts, &unit).into_iter().chain(drivers(facts, &unit))),
            false => found.extend(refused),
        }
    }
    found
}

/// Whether [`super::isolation`] says of the unit already that it is set aside in part; what is asked for by name is told
/// of each time.
fn told_as_half(facts: &Facts, unit: &[&Function]) -> bool {
    facts.wanted.devices.is_empty()
        && unit.iter().any(|function| function.facts.is_set_aside())
        && !unit.iter().all(|function| function.facts.is_set_aside())
}

/// What can be said of an address without a function that goes to guests.
fn nowhere(facts: &Facts, bdf: Bdf) -> Option<Finding> {
    match facts.survey.get(bdf) {
        None => Some(
            Finding::fail(format!("there is no PCI function {}", short(bdf)))
                .remedy("`tenon devices` lists those there are"),
        ),
        Some(function) if function.facts.is_bridge() => Some(
            Finding::fail(format!("{} is a bridge, and stays with the host", short(bdf)))
                .remedy("name what is behind it: `tenon devices --tree` shows it")
                .symptom("bridge-on-vfio"),
        ),
        Some(_) => None,
    }
}

fn refused(function: &Function) -> Option<Finding> {
    let Verdict::No(reason) = &function.verdict else {
        return None;
    };
    let symptom = match reason {
        Reason::Bridge => return None,
        Reason::NoGroup => Some("no-iommu"),
        Reason::Reserved { .. } => Some("direct-mapping"),
        Reason::BridgeDriver { .. } => Some("group-not-viable"),
        Reason::InUse { what, .. } => match what {
            Use::OnlyDisplay => Some("boot-display"),
            Use::Vm { .. } => Some("group-busy"),
            Use::VirtualFunctions(_) => Some("sriov-enabled"),
            _ => None,
        },
    };
    let bdf = function.bdf();
    Some(Finding {
        remedy: match reason {
            Reason::NoGroup => Some("see what is said of the IOMMU above".to_owned()),
            _ => reason.remedy().or_else(|| Some("leave it to the host".to_owned())),
        },
        symptom,
        ..Finding::fail(format!("{}: {}", short(bdf), reason.brief(bdf)))
    })
}

/// What must go along and was not named.
fn unnamed(facts: &Facts, unit: &[&Function]) -> Option<Finding> {
    let wanted = &facts.wanted;
    let all = unit.iter().map(|function| function.bdf());
    let unnamed: Vec<Bdf> = all.filter(|bdf| !wanted.devices.contains(bdf)).collect();
    if wanted.devices.is_empty() || wanted.along || unnamed.is_empty() {
        return None;
    }
    let flags = format!("--device {}", words(unnamed.iter().copied()).replace(' ', " --device "));
    Some(
        Finding::fail(format!("not named, but must go along: {}", list(unnamed)))
            .remedy(format!("name it too: {flags}"))
            .symptom("group-not-viable"),
    )
}

/// Which functions of a unit are where a guest can have them from.
fn drivers(facts: &Facts, unit: &[&Function]) -> Option<Finding> {
    let first = unit.first()?;
    let all = list(unit.iter().map(|function| function.bdf()));
    let elsewhere = unit.iter().filter(|function| !function.facts.on_vfio());
    let said: Vec<String> = elsewhere
        .map(|function| match &function.facts.driver {
            Some(driver) => format!("{} is on {driver}", short(function.bdf())),
            None => format!("{} has no driver", short(function.bdf())),
        })
        .collect();
    if said.is_empty() {
        return Some(Finding::pass(format!("{all} on vfio-pci")));
    }
    if facts.wanted.taken {
        return Some(Finding::pass(format!("{all}, taken from the host for the run")));
    }
    // What nobody asked for by name may wait until somebody does.
    let status = match facts.wanted.devices.is_empty() {
        true => Status::Warn,
        false => Status::Fail,
    };
    Some(
        Finding::new(status, format!("{}, not on vfio-pci", said.join(", ")))
            .remedy(format!("`tenon bind {}`, or `tenon run --bind`", short(first.bdf())))
            .symptom("not-on-vfio"),
    )
}

/// Where nothing is asked for and nothing set aside: what could be.
fn candidates(facts: &Facts) -> Finding {
    let mut displays: Vec<&Function> = facts
        .survey
        .functions
        .iter()
        .filter(|function| function.facts.is_display())
        .collect();
    // Rather a card than what the host itself shows things on.
    displays.sort_by_key(|function| {
        (
            !function.uses.is_empty(),
            function.facts.boot_vga == Some(true),
            function.bdf().bus == 0,
        )
    });
    let free = displays.iter().find(|function| function.verdict.is_assignable());
    match (free, displays.first()) {
        (Some(function), _) => {
            let unit = facts.survey.unit(&[function.bdf()]);
            Finding::pass(format!("none asked for; {} can be assigned", list(unit)))
                .remedy(format!("`tenon bind {}`", short(function.bdf())))
        }
        (None, Some(display)) => match refused(display) {
            Some(Finding {
                seen, remedy, symptom, ..
            }) => Finding {
                status: Status::Warn,
                seen: format!("no GPU can be assigned ({seen})"),
                remedy,
                symptom,
            },
            None => Finding::warn("no GPU can be assigned").remedy("`tenon devices` says why"),
        },
        (None, None) => {
            Finding::pass("none asked for; there is no GPU").remedy("`tenon devices` lists what can be assigned")
        }
    }
}

pub(super) const POWER: Requirement = Requirement {
    id: "power",
    title: "Power state",
    section: Section::Devices,
    look: power,
};

fn power(facts: &Facts) -> Vec<Finding> {
    let asleep = |function: &&Function| function.facts.power_state.as_deref() == Some("D3cold");
    let said = |function: &Function| {
        let bdf = function.bdf();
        Finding::warn(format!(
            "{} sleeps without power (D3cold), and may not wake",
            short(bdf)
        ))
        .remedy(format!(
            "`echo 0 > /sys/bus/pci/devices/{bdf}/d3cold_allowed`, or boot with vfio-pci.disable_idle_d3=1"
        ))
        .symptom("stuck-in-d3")
    };
    facts.subjects().into_iter().filter(asleep).map(said).collect()
}

pub(super) const RESET: Requirement = Requirement {
    id: "reset",
    title: "Reset",
    section: Section::Devices,
    look: reset,
};

fn reset(facts: &Facts) -> Vec<Finding> {
    let without: Vec<Bdf> = facts
        .subjects()
        .into_iter()
        .filter(|function| function.facts.reset_methods.as_ref().is_some_and(Vec::is_empty))
        .map(Function::bdf)
        .collect();
    match without.is_empty() {
        true => Vec::new(),
        false => vec![
            Finding::warn(format!("{}: Linux knows no way to reset it", list(without)))
                .remedy("if the guest's driver does not find it well, power the guest off before the next start")
                .symptom("no-reset"),
        ],
    }
}
