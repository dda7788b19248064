//! Memory that the firmware wants mapped for devices (RMRR, IVMD): VFIO refuses their groups.

use super::{Facts, Finding, Requirement, Section};

pub(super) const RESERVED: Requirement = Requirement {
    id: "reserved-memory",
    title: "Reserved memory",
    section: Section::Devices,
    look: reserved,
};

fn reserved(facts: &Facts) -> Vec<Finding> {
    let asked: Vec<u32> = facts
        .subjects()
        .iter()
        .filter_map(|function| function.facts.group)
        .collect();
    let direct: Vec<u32> = facts
        .survey
        .groups
        .iter()
        .filter(|(_, group)| group.direct().next().is_some())
        .map(|(number, _)| *number)
        .collect();
    let total = facts.survey.groups.len();
    // What is asked for is judged with the device itself.
    if direct.is_empty() || direct.iter().any(|group| asked.contains(group)) {
        return Vec::new();
    }
    let numbers: Vec<String> = direct.iter().take(8).map(ToString::to_string).collect();
    let more = if direct.len() > 8 { " and more" } else { "" };
    let seen = format!(
        "the firmware wants memory mapped for groups {}{more}, which guests cannot have",
        numbers.join(", ")
    );
    vec![match direct.len() * 2 > total {
        // A few are a server's management controller; most of them are a mistake of the firmware.
        true => Finding::warn(seen)
            .remedy("turn `Pre-boot DMA Protection` off in the firmware setup, or update the firmware")
            .symptom("direct-mapping"),
        false => Finding::pass(seen).symptom("direct-mapping"),
    }]
}
