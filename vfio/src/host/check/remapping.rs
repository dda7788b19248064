//! Interrupt remapping, without which VFIO refuses the IOMMU.

use super::{Facts, Finding, Requirement, Section};
use crate::host::symptom::{Scanner, quote};

pub(super) const REMAPPING: Requirement = Requirement {
    id: "interrupt-remapping",
    title: "IRQ remapping",
    section: Section::Iommu,
    look: remapping,
};

const SYMPTOM: &str = "no-interrupt-remapping";
const UNSAFE: &str = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
/// What the kernel says once it is on.
const ON: [&str; 2] = ["Enabled IRQ remapping in", "AMD-Vi: Interrupt remapping enabled"];

fn remapping(facts: &Facts) -> Vec<Finding> {
    if let Some(line) = ON.iter().find_map(|sign| facts.log.find(sign)) {
        return vec![Finding::pass(after_time(line))];
    }
    // Interrupt chips behind a remapping unit are named `IR-IO-APIC` and `IR-PCI-MSI`.
    let interrupts = facts.tree.text("/proc/interrupts").unwrap_or_default();
    if interrupts
        .lines()
        .any(|line| line.split_whitespace().any(|word| word.starts_with("IR-")))
    {
        return vec![Finding::pass("on, by /proc/interrupts")];
    }
    let lines = facts.log.lines().iter().map(String::as_str);
    let refused = Scanner::lines(lines)
        .sightings
        .into_iter()
        .find(|seen| seen.symptom.id == SYMPTOM);
    let told_off = facts
        .arguments
        .as_ref()
        .is_some_and(|all| all.has("intremap", "off") || all.has_word("nointremap"));
    let seen = match refused {
        Some(seen) => after_time(&seen.line),
        None if facts.survey.groups.is_empty() => return Vec::new(),
        None if told_off => "turned off on the kernel command line".to_owned(),
        None if interrupts.contains("IO-APIC") => "off, by /proc/interrupts".to_owned(),
        None => {
            return vec![Finding::unknown(match &facts.log.missing {
                Some(reason) => reason.clone(),
                None => "the kernel log says nothing of it".to_owned(),
            })];
        }
    };
    let allowed = facts.tree.text(UNSAFE).is_ok_and(|text| text == "Y")
        || facts
            .arguments
            .as_ref()
            .is_some_and(|all| all.has("vfio_iommu_type1.allow_unsafe_interrupts", "1"));
    vec![
        match allowed {
            true => Finding::warn(format!(
                "{seen}; allowed by allow_unsafe_interrupts: a guest can raise any interrupt of the host"
            )),
            false => Finding::fail(seen),
        }
        .remedy(match told_off {
            true => "take intremap=off and nointremap off the kernel command line",
            false => {
                "turn on `Interrupt Remapping` or `x2APIC` in the firmware setup, or update the firmware; for trusted \
                 guests only: vfio_iommu_type1.allow_unsafe_interrupts=1"
            }
        })
        .symptom(SYMPTOM),
    ]
}

/// A line of the kernel log without its time, fit to be shown.
pub(super) fn after_time(line: &str) -> String {
    let text = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .map_or(line, |(_, text)| text);
    quote(text)
}
