//! Isolation between devices: claimed by an override, or missing.

use super::facts::list;
use super::{Facts, Finding, Requirement, Section};
use crate::host::Bdf;
use crate::host::survey::short;

pub(super) const OVERRIDE: Requirement = Requirement {
    id: "acs-override",
    title: "ACS override",
    section: Section::Iommu,
    look: override_in_use,
};

fn override_in_use(facts: &Facts) -> Vec<Finding> {
    let written = facts
        .arguments
        .as_ref()
        .and_then(|all| all.written("pcie_acs_override"));
    let logged = facts.log.find("PCIe ACS overrides enabled").is_some();
    let Some(argument) = written.or_else(|| logged.then(|| "pcie_acs_override".to_owned())) else {
        return Vec::new();
    };
    vec![if logged || facts.log.begins_late || facts.log.missing.is_some() {
        Finding::warn(format!("{argument}: groups are split that the hardware does not keep apart, so a guest may reach devices of the host"))
            .remedy("run only guests that are trusted, or use a slot whose group is its own without it")
            .symptom("shared-group")
    } else {
        Finding::warn(format!("{argument} does nothing: this kernel has no such patch"))
            .remedy("take it off, or boot a kernel that has the patch (zen, CachyOS, Proxmox VE)")
            .symptom("shared-group")
    }]
}

pub(super) const SHARED: Requirement = Requirement {
    id: "shared-group",
    title: "Shared groups",
    section: Section::Devices,
    look: shared,
};

/// Units that reach over more than one slot.
fn shared(facts: &Facts) -> Vec<Finding> {
    let say = |unit: Vec<Bdf>| {
        let first = *unit.first()?;
        let others: Vec<Bdf> = unit.iter().copied().filter(|bdf| !bdf.same_slot(&first)).collect();
        (!others.is_empty()).then(|| {
            Finding::warn(format!(
                "{} goes to a guest only together with {}",
                short(first),
                list(others)
            ))
            .remedy("another slot, or `ACS` in the firmware setup, may part them")
            .symptom("shared-group")
        })
    };
    let units = facts.units().into_iter();
    units
        .filter_map(|unit| say(unit.iter().map(|function| function.bdf()).collect()))
        .collect()
}
