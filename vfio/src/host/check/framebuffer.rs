//! Whether the boot framebuffer lies in the BARs of a function for the guest.

use super::{Facts, Finding, Requirement, Section};
use crate::host::survey::{Function, short};

pub(super) const FRAMEBUFFER: Requirement = Requirement {
    id: "boot-framebuffer",
    title: "Boot framebuffer",
    section: Section::Devices,
    look: framebuffer,
};

/// What the kernel calls it in `/proc/iomem`.
const NAMES: [&str; 5] = ["BOOTFB", "efifb", "simplefb", "simple-framebuffer", "vesafb"];

fn framebuffer(facts: &Facts) -> Vec<Finding> {
    let subjects = facts.subjects();
    if !subjects.iter().any(|function| function.facts.is_display()) {
        return Vec::new();
    }
    let Ok(iomem) = facts.tree.text("/proc/iomem") else {
        return Vec::new();
    };
    let claims: Vec<(u64, &str)> = iomem.lines().filter_map(claim).collect();
    // Without privilege each address reads as zero.
    if claims.iter().all(|(start, _)| *start == 0) {
        return match claims.is_empty() {
            true => Vec::new(),
            false => vec![Finding::unknown("where it lies is shown to root only").remedy("run `tenon check` as root")],
        };
    }
    subjects
        .into_iter()
        .filter_map(|function| {
            let name = claims.iter().find(|(start, _)| lies_in(function, *start))?.1;
            Some(judge(facts, function, name))
        })
        .collect()
}

fn claim(line: &str) -> Option<(u64, &str)> {
    let (range, name) = line.trim().split_once(" : ")?;
    let name = NAMES
        .into_iter()
        .find(|known| name.trim().eq_ignore_ascii_case(known))?;
    Some((u64::from_str_radix(range.split_once('-')?.0, 16).ok()?, name))
}

fn lies_in(function: &Function, address: u64) -> bool {
    let inside = |start: u64, size: u64| address >= start && address - start < size;
    function.facts.resources.iter().any(|bar| inside(bar.start, bar.size))
}

fn judge(facts: &Facts, function: &Function, name: &str) -> Finding {
    let bdf = short(function.bdf());
    // d17378062079, in Linux 6.0: vfio-pci moves it away when it takes the function; pci-stub does not.
    if facts.at_least(6, 0) == Some(true) && !function.facts.on_stub() {
        return Finding::pass(format!("{name} lies in {bdf}; vfio-pci moves it away"));
    }
    Finding::warn(format!("{name} lies in a BAR of {bdf}: the guest would not get it"))
        .remedy("boot with initcall_blacklist=sysfb_init (video=efifb:off before Linux 5.15), or make another GPU primary in the firmware setup")
        .symptom("bar-taken")
}
