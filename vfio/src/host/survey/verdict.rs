//! Whether a guest can have a function.

use std::collections::{BTreeMap, BTreeSet};

use super::{Function, Region, Survey, Use};
use crate::host::Bdf;

/// Drivers that may stay in a group whose other members go to a guest: they do no DMA of their own
/// (`driver_managed_dma` in Linux 5.19 and later, a list in vfio before).
const HARMLESS_DRIVERS: [&str; 2] = ["pcieport", "pci-stub"];

/// Whether a guest can have a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, alone.
    Yes,
    /// Yes, if these go with it.
    WithSiblings(Vec<Bdf>),
    /// No.
    No(Reason),
}

impl Verdict {
    /// Whether a guest can have it, alone or not.
    pub fn is_assignable(&self) -> bool {
        !matches!(self, Self::No(_))
    }
}

/// Why a guest cannot have a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is a bridge.
    Bridge,
    /// It is in no IOMMU group.
    NoGroup,
    /// The host uses it, or one that must go with it.
    InUse {
        /// The function in use.
        by: Bdf,
        /// What for.
        what: Use,
    },
    /// The firmware keeps memory mapped for a device of the group.
    Reserved {
        /// The group.
        group: u32,
        /// The first such range.
        region: Region,
    },
    /// A bridge in the group has a driver of its own, which makes Linux refuse the group.
    BridgeDriver {
        /// The bridge.
        bridge: Bdf,
        /// Its driver.
        driver: String,
    },
}

/// What stands in the way of each unit, found once for all its members.
pub(super) struct Obstacles(BTreeMap<Bdf, Reason>);

impl Obstacles {
    pub(super) fn find(survey: &Survey) -> Self {
        let units = survey.units.all().iter();
        Self(
            units
                .filter_map(|unit| Some((*unit.first()?, obstacle(survey, unit)?)))
                .collect(),
        )
    }

    /// Whether a guest can have a function; its own obstacles come before those of its siblings.
    pub(super) fn verdict(&self, survey: &Survey, function: &Function) -> Verdict {
        if function.facts.is_bridge() {
            return Verdict::No(Reason::Bridge);
        }
        if function.facts.group.is_none() {
            return Verdict::No(Reason::NoGroup);
        }
        if let Some(reason) = own_obstacle(function) {
            return Verdict::No(reason);
        }
        let unit = survey.units.with(function.bdf());
        match unit.first().and_then(|first| self.0.get(first)) {
            Some(reason) => Verdict::No(reason.clone()),
            None if unit.len() == 1 => Verdict::Yes,
            None => {
                let siblings = unit.iter().copied().filter(|bdf| *bdf != function.bdf());
                Verdict::WithSiblings(siblings.collect())
            }
        }
    }
}

fn own_obstacle(function: &Function) -> Option<Reason> {
    let what = function.uses.iter().find(|what| what.forbids())?.clone();
    let by = function.bdf();
    Some(Reason::InUse { by, what })
}

fn obstacle(survey: &Survey, unit: &[Bdf]) -> Option<Reason> {
    let members = || unit.iter().filter_map(|bdf| survey.get(*bdf));
    if let Some(reason) = members().find_map(own_obstacle) {
        return Some(reason);
    }
    if members().any(|member| member.facts.group.is_none()) {
        return Some(Reason::NoGroup);
    }
    let groups: BTreeSet<u32> = members().filter_map(|member| member.facts.group).collect();
    groups.into_iter().find_map(|group| spoilt(survey, group))
}

/// What keeps a whole group from guests.
fn spoilt(survey: &Survey, group: u32) -> Option<Reason> {
    if let Some(region) = survey.groups.get(&group).and_then(|facts| facts.direct().next()) {
        let region = region.clone();
        return Some(Reason::Reserved { group, region });
    }
    survey.group(group).into_iter().find_map(|member| {
        let driver = member.facts.driver.clone()?;
        let spoils =
            member.facts.is_bridge() && !member.facts.on_vfio() && !HARMLESS_DRIVERS.contains(&driver.as_str());
        let bridge = member.bdf();
        spoils.then_some(Reason::BridgeDriver { bridge, driver })
    })
}
