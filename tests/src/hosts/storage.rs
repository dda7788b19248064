//! Disks, what is made of them, and where they are mounted.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::function::place;
use super::source::{Host, Stacked};
use super::{HostError, Tree};

/// Sectors that a disk is said to have; how large it is matters to nobody.
const SECTORS: &str = "1953525168\n";

pub(super) fn put(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    let mut known: BTreeMap<&str, (String, String)> = BTreeMap::new();
    for disk in &host.disks {
        let on = full(&disk.on);
        let at = format!("{}/{}/block/{}", place(host, &on)?, disk.through, disk.name);
        device(tree, &at, &disk.name, &disk.number)?;
        if let Some(controller) = disk.through.strip_prefix("nvme/") {
            let above = at
                .rsplit_once("/block/")
                .map_or(at.as_str(), |(above, _)| above)
                .to_owned();
            tree.link(format!("{above}/device"), place(host, &on)?)?;
            tree.link(format!("sys/class/nvme/{controller}"), &above)?;
        }
        known.insert(&disk.name, (at.clone(), disk.number.clone()));
        let (major, first) = number(&disk.number)?;
        for (index, part) in (1u32..).zip(&disk.partitions) {
            let number = format!("{major}:{}", first + index);
            let below = format!("{at}/{part}");
            device(tree, &below, part, &number)?;
            tree.file(format!("{below}/partition"), format!("{index}\n"))?;
            known.insert(part, (below, number));
        }
    }
    for made in &host.stacked {
        let at = format!("sys/devices/virtual/block/{}", made.name);
        device(tree, &at, &made.name, &made.number)?;
        mapped(tree, &at, made)?;
        for name in &made.of {
            let (below, _) = known
                .get(name.as_str())
                .ok_or_else(|| HostError::Wrong(format!("{}: no block device {name}", made.name)))?;
            tree.link(format!("{at}/slaves/{name}"), below)?;
            tree.link(format!("{below}/holders/{}", made.name), &at)?;
        }
        known.insert(&made.name, (at, made.number.clone()));
    }
    mounts(host, tree, &known)
}

pub(super) fn full(bdf: &str) -> String {
    if bdf.matches(':').count() == 1 {
        format!("0000:{bdf}")
    } else {
        bdf.to_owned()
    }
}

fn number(text: &str) -> Result<(u32, u32), HostError> {
    text.split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| HostError::Wrong(format!("device number {text}")))
}

fn device(tree: &mut Tree, at: &str, name: &str, number: &str) -> Result<(), HostError> {
    tree.file(format!("{at}/dev"), format!("{number}\n"))?;
    tree.file(format!("{at}/size"), SECTORS)?;
    tree.link(format!("sys/dev/block/{number}"), at)?;
    tree.link(format!("sys/class/block/{name}"), at)
}

fn mapped(tree: &mut Tree, at: &str, made: &Stacked) -> Result<(), HostError> {
    if let Some(label) = &made.label {
        tree.file(format!("{at}/dm/name"), format!("{label}\n"))?;
    }
    if let Some(kind) = &made.kind {
        tree.file(format!("{at}/dm/uuid"), format!("{kind}-\n"))?;
    }
    Ok(())
}

fn mounts(host: &Host, tree: &mut Tree, known: &BTreeMap<&str, (String, String)>) -> Result<(), HostError> {
    let mut info = String::new();
    let mut table = String::new();
    for (index, mount) in host.mounts.iter().enumerate() {
        let number = match &mount.device {
            Some(name) => {
                let found = known.get(name.as_str());
                let (_, number) = found.ok_or_else(|| HostError::Wrong(format!("{}: no {name}", mount.at)))?;
                number.clone()
            }
            None => format!("0:{}", 30 + index),
        };
        let (at, kind, source) = (&mount.at, &mount.kind, &mount.source);
        let _ = writeln!(
            info,
            "{} 1 {number} / {at} rw,relatime shared:{index} - {kind} {source} rw",
            20 + index
        );
        let _ = writeln!(table, "{source} {at} {kind} rw,relatime 0 0");
    }
    tree.file("proc/self/mountinfo", info)?;
    tree.file("proc/self/mounts", table)?;
    tree.link("proc/mounts", "proc/self/mounts")?;
    let mut swaps = String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    for swap in &host.swaps {
        let _ = writeln!(swaps, "{swap}\t\t\tpartition\t8388604\t\t0\t\t-2");
    }
    tree.file("proc/swaps", swaps)
}
