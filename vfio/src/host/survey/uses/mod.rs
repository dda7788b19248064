//! What the host uses its functions for: each file finds one kind of use.

mod disks;
mod keyboards;
mod machines;
mod mounts;
mod network;
mod screens;

use std::collections::BTreeMap;
use std::path::Path;

use super::Use;
use crate::host::{Bdf, HostFunction, HostTree};

/// The uses of the functions, in their order, the gravest of each first.
pub(super) fn of(tree: &HostTree, functions: &[HostFunction]) -> Vec<Vec<Use>> {
    let mut found = Found {
        tree,
        functions: functions.iter().map(|function| (function.bdf, function)).collect(),
        uses: BTreeMap::new(),
    };
    disks::find(&mut found);
    network::find(&mut found);
    screens::find(&mut found);
    keyboards::find(&mut found);
    machines::find(&mut found);
    for function in functions {
        if let Some(sriov) = function.sriov.filter(|sriov| sriov.enabled > 0) {
            found.add(function.bdf, Use::VirtualFunctions(sriov.enabled));
        }
    }
    let Found { mut uses, .. } = found;
    functions
        .iter()
        .map(|function| {
            let mut own = uses.remove(&function.bdf).unwrap_or_default();
            own.sort();
            own.dedup();
            own
        })
        .collect()
}

/// Where the finders put what they find.
struct Found<'t> {
    tree: &'t HostTree,
    functions: BTreeMap<Bdf, &'t HostFunction>,
    uses: BTreeMap<Bdf, Vec<Use>>,
}

impl Found<'_> {
    fn add(&mut self, bdf: Bdf, what: Use) {
        self.uses.entry(bdf).or_default().push(what);
    }

    fn add_all(&mut self, owners: &[Bdf], what: &Use) {
        for owner in owners {
            self.add(*owner, what.clone());
        }
    }

    /// The functions that something in `/sys` hangs on: the last one on its path, and those on the way that are no
    /// bridges, like a VMD controller with the whole bus of a disk behind it.
    fn owners(&self, path: impl AsRef<Path>) -> Vec<Bdf> {
        let Ok(real) = self.tree.real(path.as_ref()) else {
            return Vec::new();
        };
        let mut on_the_way: Vec<Bdf> = real
            .iter()
            .filter_map(|part| part.to_str()?.parse().ok())
            .filter(|bdf| self.functions.contains_key(bdf))
            .collect();
        let last = on_the_way.pop();
        on_the_way.retain(|bdf| self.functions.get(bdf).is_some_and(|function| !function.is_bridge()));
        on_the_way.extend(last);
        on_the_way
    }
}

#[cfg(test)]
mod tests;
