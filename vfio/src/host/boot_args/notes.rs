//! What else there is to know of a plan: what is not known yet, what will not do, what an old kernel needs besides.

use super::super::HostTree;
use super::super::survey::{Reason, Survey, Verdict};
use super::claim::Claim;
use super::plan::BootPlan;
use super::processor::Processor;
use super::system::Initramfs;

pub(super) fn notes(plan: &BootPlan, survey: &Survey, host: &HostTree, vfio_built_in: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !plan.functions.is_empty() {
        notes.extend(no_groups(survey));
        notes.extend(not_assignable(plan, survey));
        notes.extend(old_frame_buffer(plan, survey, host));
        notes.extend(no_script(plan));
        let built_in = "vfio-pci is built into this kernel: the arguments alone are enough for what is claimed by ID";
        notes.extend(vfio_built_in.then(|| built_in.to_owned()));
    }
    if plan.processor == Processor::Unknown {
        let unknown = "/proc/cpuinfo names neither Intel nor AMD; intel_iommu=on does nothing on another processor";
        notes.push(unknown.to_owned());
    }
    notes
}

fn no_groups(survey: &Survey) -> Option<String> {
    survey.groups.is_empty().then(|| {
        "no IOMMU is active, so the groups are not known yet: after the reboot run the same command again, which brings \
         in what shares a group with these devices"
            .to_owned()
    })
}

/// What is in use is told as a loss, and without an IOMMU there is no verdict yet.
fn not_assignable(plan: &BootPlan, survey: &Survey) -> Vec<String> {
    let functions = plan.functions.iter().filter_map(|claimed| survey.get(claimed.bdf));
    functions
        .filter_map(|function| match &function.verdict {
            Verdict::No(reason @ (Reason::Reserved { .. } | Reason::BridgeDriver { .. })) => Some(format!(
                "{} could still not be assigned: {}; {}",
                function.bdf(),
                reason.brief(function.bdf()),
                reason.remedy().unwrap_or_default()
            )),
            _ => None,
        })
        .collect()
}

/// vfio-pci has sent the firmware's frame buffer away since Linux 6.0 (d17378062079).
fn old_frame_buffer(plan: &BootPlan, survey: &Survey, host: &HostTree) -> Vec<String> {
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major >= 6) {
        return Vec::new();
    }
    let functions = plan.functions.iter().filter_map(|claimed| survey.get(claimed.bdf));
    functions
        .filter(|function| function.facts.boot_vga == Some(true))
        .map(|function| {
            format!(
                "the firmware lit the screen through {}: before Linux 6.0 its frame buffer keeps the card's memory, \
                 unless the kernel is also started with initcall_blacklist=sysfb_init (5.15 and later) or video=efifb:off",
                function.bdf()
            )
        })
        .collect()
}

fn no_script(plan: &BootPlan) -> Option<String> {
    let scripted = plan.functions.iter().any(|function| function.claim != Claim::ById);
    let cannot = matches!(plan.system.initramfs, Initramfs::RpmOstree | Initramfs::Unknown);
    (scripted && cannot).then(|| {
        "what is claimed by address needs a script in the initramfs, which tenon does not make here: take those with \
         `tenon bind` after each boot"
            .to_owned()
    })
}
