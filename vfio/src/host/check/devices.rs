//! Whether each function asked for, or set aside, can go to a guest as it stands.

use super::facts::{list, words};
use super::{Facts, Finding, Requirement, Section, Status};
use crate::host::Bdf;
use crate::host::survey::{Function, Reason, Use, Verdict};

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
            true => found.push(drivers(facts, &unit)),
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
            Finding::fail(format!("there is no PCI function {bdf}")).remedy("`tenon devices` lists those there are"),
        ),
        Some(function) if function.facts.is_bridge() => Some(
            Finding::fail(format!("{bdf} is a bridge, and stays with the host"))
                .remedy(format!("name what is behind it: `tenon devices {bdf}` shows it"))
                .symptom("bridge-on-vfio"),
        ),
        Some(_) => None,
    }
}

fn refused(function: &Function) -> Option<Finding> {
    let bdf = function.bdf();
    let Verdict::No(reason) = &function.verdict else {
        return None;
    };
    Some(match reason {
        Reason::Bridge => return None,
        Reason::NoGroup => Finding::fail(format!("{bdf} is in no IOMMU group"))
            .remedy("see what is said of the IOMMU above")
            .symptom("no-iommu"),
        Reason::InUse {
            by,
            what: Use::VirtualFunctions(count),
        } => Finding::fail(format!("{by} has {count} virtual functions switched on"))
            .remedy(format!(
                "`echo 0 > /sys/bus/pci/devices/{by}/sriov_numvfs`, or give the guest a virtual function"
            ))
            .symptom("sriov-enabled"),
        Reason::InUse { by, what } => {
            let (seen, remedy, symptom) = in_use(*by, what);
            let with = if *by == bdf {
                String::new()
            } else {
                format!("{bdf} goes with {by}: ")
            };
            let finding = Finding::fail(with + &seen).remedy(remedy);
            match symptom {
                Some(symptom) => finding.symptom(symptom),
                None => finding,
            }
        }
        Reason::Reserved { group, .. } => Finding::fail(format!(
            "{bdf}: the firmware wants memory mapped for its group {group} (direct)"
        ))
        .remedy("turn `Pre-boot DMA Protection` off in the firmware setup, update the firmware, or use another slot")
        .symptom("direct-mapping"),
        Reason::BridgeDriver { bridge, driver } => Finding::fail(format!(
            "{bdf}: {driver} drives the bridge {bridge} of its group, so Linux refuses the group"
        ))
        .remedy(format!(
            "`tenon bind {bdf}` names what to unbind: the bridge needs no driver, and not vfio-pci either"
        ))
        .symptom("group-not-viable"),
    })
}

fn in_use(bdf: Bdf, what: &Use) -> (String, String, Option<&'static str>) {
    match what {
        Use::Mount { at, disk } => (
            format!("{bdf} holds the disk {disk}, mounted at {at}"),
            "unmount it, or leave the controller to the host".to_owned(),
            None,
        ),
        Use::Swap { on, .. } => (
            format!("{bdf} holds the swap {on}"),
            format!("`swapoff {on}`, or leave the controller to the host"),
            None,
        ),
        Use::DefaultRoute { interface, .. } => (
            format!("{bdf} carries the default route ({interface})"),
            "leave it to the host, or move the route to another interface first".to_owned(),
            None,
        ),
        Use::OnlyDisplay => (
            format!("{bdf} is the only display of this host"),
            format!("`tenon bind {bdf} --yes-this-is-my-display`, with ssh to the host at hand"),
            Some("boot-display"),
        ),
        Use::Vm { pid, name } => (
            format!("{bdf} is held by {name} (process {pid})"),
            "stop that virtual machine first".to_owned(),
            Some("group-busy"),
        ),
        other => (
            format!("{bdf} {other}"),
            format!("`tenon devices {bdf}` says for what"),
            None,
        ),
    }
}

/// Which functions of a unit are where a guest can have them from.
fn drivers(facts: &Facts, unit: &[&Function]) -> Finding {
    let elsewhere: Vec<&Function> = unit
        .iter()
        .copied()
        .filter(|function| !function.facts.on_vfio())
        .collect();
    let all = list(unit.iter().map(|function| function.bdf()));
    let Some(first) = unit.first() else {
        return Finding::pass("nothing");
    };
    if elsewhere.is_empty() {
        let unnamed = unit
            .iter()
            .map(|function| function.bdf())
            .filter(|bdf| !facts.wanted.devices.contains(bdf));
        let unnamed: Vec<Bdf> = unnamed.collect();
        if !facts.wanted.devices.is_empty() && !unnamed.is_empty() {
            return Finding::fail(format!(
                "{} must go along and is not named",
                list(unnamed.iter().copied())
            ))
            .remedy(format!(
                "name it too: --device {}",
                words(unnamed).replace(' ', " --device ")
            ))
            .symptom("group-not-viable");
        }
        return Finding::pass(format!("{all} on vfio-pci"));
    }
    let said: Vec<String> = elsewhere
        .iter()
        .map(|function| match &function.facts.driver {
            Some(driver) => format!("{} is on {driver}", function.bdf()),
            None => format!("{} has no driver", function.bdf()),
        })
        .collect();
    // What nobody asked for by name may wait until somebody does.
    let status = if facts.wanted.devices.is_empty() {
        Status::Warn
    } else {
        Status::Fail
    };
    Finding::new(status, format!("{}, not on vfio-pci", said.join(", ")))
        .remedy(format!("`tenon bind {}`, or `tenon run --bind`", first.bdf()))
        .symptom("not-on-vfio")
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
                .remedy(format!("`tenon bind {}`", function.bdf()))
        }
        (None, Some(display)) => match refused(display) {
            Some(Finding {
                seen, remedy, symptom, ..
            }) => Finding {
                status: Status::Warn,
                seen: format!("no GPU can be assigned: {seen}"),
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
        Finding::warn(format!("{bdf} sleeps without power (D3cold), and may not wake"))
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
