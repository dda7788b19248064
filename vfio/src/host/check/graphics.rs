//! The GPU the host itself shows things on, and laptops with two.

use super::facts::list;
use super::{Facts, Finding, Requirement, Section};
use crate::host::Bdf;
use crate::host::survey::{Function, Use, short};

pub(super) const BOOT_DISPLAY: Requirement = Requirement {
    id: "boot-display",
    title: "Boot display",
    section: Section::Devices,
    look: boot_display,
};

/// Warns of what the survey lets pass: the host's console, while there is another display.
fn boot_display(facts: &Facts) -> Vec<Finding> {
    let console = |function: &Function| {
        function.uses.iter().find_map(|used| match used {
            Use::Console { by } if by != "boot_vga" => Some(format!("the console is on it ({by})")),
            _ => None,
        })
    };
    let say = |function: &Function| {
        let bdf = function.bdf();
        let lit = function.facts.boot_vga == Some(true) && !function.uses.contains(&Use::OnlyDisplay);
        let finding = match (lit, console(function)) {
            (true, _) => Finding::warn(format!(
                "{}: the firmware lit the screen through it, so its ROM may be a shadow copy",
                short(bdf)
            ))
            .remedy(format!(
                "make the other GPU primary in the firmware setup, or give it its ROM: --device {},romfile=FILE",
                short(bdf)
            )),
            (false, Some(console)) => Finding::warn(format!("{}: {console}", short(bdf))).remedy(format!(
                "`tenon bind {bdf} --yes-this-is-my-display` takes it all the same"
            )),
            (false, None) => return None,
        };
        Some(finding.symptom("boot-display"))
    };
    facts
        .subjects()
        .into_iter()
        .filter(|function| function.facts.is_display())
        .filter_map(say)
        .collect()
}

pub(super) const HYBRID: Requirement = Requirement {
    id: "hybrid-graphics",
    title: "Laptop graphics",
    section: Section::Devices,
    look: hybrid,
};

/// Chassis that carry their own screen (SMBIOS 3.7, table 17): portable, laptop, notebook, sub-notebook, convertible,
/// detachable.
const PORTABLE: [&str; 6] = ["8", "9", "10", "14", "31", "32"];

fn hybrid(facts: &Facts) -> Vec<Finding> {
    let chassis = facts.tree.text("/sys/class/dmi/id/chassis_type").unwrap_or_default();
    if !PORTABLE.contains(&chassis.as_str()) {
        return Vec::new();
    }
    let displays: Vec<Bdf> = facts
        .survey
        .functions
        .iter()
        .filter(|function| function.facts.is_display())
        .map(Function::bdf)
        .collect();
    match displays.as_slice() {
        [_, _, ..] => vec![
            Finding::warn(format!(
                "a laptop with {}: the panel may hang on the GPU that stays",
                list(displays)
            ))
            .remedy("a screen or dummy plug on a port of the other GPU, or Looking Glass; keep it out of D3cold")
            .symptom("hybrid-graphics"),
        ],
        [only] => vec![
            Finding::warn(format!(
                "a laptop with one GPU, {}: the panel goes dark while a guest has it",
                short(*only)
            ))
            .symptom("boot-display"),
        ],
        [] => Vec::new(),
    }
}
