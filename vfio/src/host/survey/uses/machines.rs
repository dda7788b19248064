//! Which functions a virtual machine has: somebody holds the file that VFIO gives for their group, or for themselves.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Found, Use};
use crate::host::Bdf;

/// More open files than a host has; a capture of more is no capture of a host.
const MOST_FILES: usize = 1 << 20;

pub(super) fn find(found: &mut Found<'_>) {
    let mut files: BTreeMap<String, Vec<Bdf>> = BTreeMap::new();
    for function in found.functions.values().filter(|function| function.on_vfio()) {
        if is_idle(found, function.driver.as_deref().unwrap_or_default()) {
            continue;
        }
        if let Some(group) = function.group {
            for file in [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")] {
                files.entry(file).or_default().push(function.bdf);
            }
        }
        let folder = format!("/sys/bus/pci/devices/{}/vfio-dev", function.bdf);
        for name in found.tree.list(folder).unwrap_or_default() {
            files
                .entry(format!("/dev/vfio/devices/{name}"))
                .or_default()
                .push(function.bdf);
        }
    }
    if files.is_empty() {
        return;
    }
    for (file, pid) in holders(found, &files) {
        let name = found.tree.text(format!("/proc/{pid}/comm")).unwrap_or_default();
        for bdf in files.get(&file).into_iter().flatten() {
            let name = name.clone();
            found.uses.entry(*bdf).or_default().push(Use::Vm { pid, name });
        }
    }
}

/// Whether the driver's module counts no user, which saves a walk through all processes.
fn is_idle(found: &Found<'_>, driver: &str) -> bool {
    let count = found
        .tree
        .text(format!("/sys/module/{}/refcnt", driver.replace('-', "_")));
    count.is_ok_and(|count| count == "0")
}

/// The processes that hold one of these files. Those of other users are not shown to all; nothing is known of them.
fn holders(found: &Found<'_>, files: &BTreeMap<String, Vec<Bdf>>) -> Vec<(String, u32)> {
    let own = found.tree.is_live().then(std::process::id);
    let mut left = MOST_FILES;
    let mut holders = Vec::new();
    for name in found.tree.list("/proc").unwrap_or_default() {
        let Ok(pid) = name.parse::<u32>() else { continue };
        if Some(pid) == own {
            continue;
        }
        let folder = Path::new("/proc").join(&name).join("fd");
        for open in found.tree.list(&folder).unwrap_or_default() {
            let Some(rest) = left.checked_sub(1) else {
                return holders;
            };
            left = rest;
            let target = found.tree.link(folder.join(open)).ok();
            if let Some(file) = target.and_then(|target| files.get_key_value(target.to_str()?)) {
                holders.push((file.0.clone(), pid));
            }
        }
    }
    holders
}
