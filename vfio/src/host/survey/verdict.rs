//! Whether a guest can have a function.

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

impl Verdict {
    pub(super) fn on(survey: &Survey, function: &Function) -> Self {
        if function.facts.is_bridge() {
            return Self::No(Reason::Bridge);
        }
        if function.facts.group.is_none() {
            return Self::No(Reason::NoGroup);
        }
        let unit = survey.unit(&[function.bdf()]);
        match obstacle(survey, function.bdf(), &unit) {
            Some(reason) => Self::No(reason),
            None if unit.len() == 1 => Self::Yes,
            None => Self::WithSiblings(unit.into_iter().filter(|bdf| *bdf != function.bdf()).collect()),
        }
    }
}

/// What stands in the way, the function's own obstacles before those of its siblings.
fn obstacle(survey: &Survey, own: Bdf, unit: &[Bdf]) -> Option<Reason> {
    let members = std::iter::once(own)
        .chain(unit.iter().copied().filter(|bdf| *bdf != own))
        .filter_map(|bdf| survey.get(bdf));
    let mut groups: Vec<u32> = Vec::new();
    for member in members {
        if let Some(what) = member.uses.iter().find(|what| what.forbids()) {
            let (by, what) = (member.bdf(), what.clone());
            return Some(Reason::InUse { by, what });
        }
        match member.facts.group {
            None => return Some(Reason::NoGroup),
            Some(group) if !groups.contains(&group) => groups.push(group),
            Some(_) => (),
        }
    }
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
