//! What taking functions would come to, before anything is done: which ones, why each, and what stands against it.

use std::fmt;

use serde::{Serialize, Serializer};

use super::holders::{Grip, Holder, holders, list};
use crate::host::survey::{Function, Reason, Survey, Use, Verdict};
use crate::host::{Bdf, HostFunction, HostTree};
use crate::selection::SelectionError;

/// How much is taken with the functions named, and over what warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// Bring in what must go along: the rest of the group, and of the card. Else it must have been named.
    pub whole_units: bool,
    /// Leave functions on pci-stub that only come along: they do not spoil their group.
    pub keep_stubs: bool,
    /// The user knows that the screen goes dark.
    pub my_display: bool,
}

/// Why a function is in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The user named it.
    Named,
    /// The kernel gives its IOMMU group to one owner only.
    Group {
        /// The group.
        group: u32,
    },
    /// It is a function of the same card, which is reset as a whole.
    Card,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("named"),
            Self::Group { group } => write!(f, "in IOMMU group {group}, which goes as a whole"),
            Self::Card => f.write_str("a function of the same card, which is reset as a whole"),
        }
    }
}

/// What is done with a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It goes to vfio-pci.
    Take,
    /// It is on vfio-pci already, and stays there when the others are given back.
    Keep,
    /// It stays on pci-stub.
    KeepStub,
}

/// One function of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// The function.
    #[serde(serialize_with = "as_text")]
    pub bdf: Bdf,
    /// What it is called.
    pub name: String,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The driver it is on now.
    pub driver: Option<String>,
    /// What is done with it.
    pub action: Action,
    /// Why it is in the plan.
    pub why: Why,
    /// The processes that have it open.
    pub holders: Vec<Holder>,
    /// What the user should know.
    pub notes: Vec<String>,
}

fn as_text<S: Serializer>(bdf: &Bdf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(bdf)
}

/// Why functions are not taken. Nothing has been done.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// What was named is not there, is a bridge, is in no group or not whole.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// There is no such function.
    #[error("there is no PCI function {0} on this host; `tenon devices` lists those there are")]
    NoSuchFunction(Bdf),
    /// The host needs it.
    #[error("{function}{} {what}. {}", brought_along(why), what.consequence())]
    InUse {
        /// The function.
        function: Box<HostFunction>,
        /// Why it would be taken.
        why: Why,
        /// What the host uses it for.
        what: Use,
    },
    /// A process would be hung or lose what it has.
    #[error(
        "{function}{} is held by {}; taking it away would hang or lose data",
        brought_along(why),
        list(holders)
    )]
    Held {
        /// The function.
        function: Box<HostFunction>,
        /// Why it would be taken.
        why: Why,
        /// By whom.
        holders: Vec<Holder>,
    },
    /// The whole group is of no use to a guest.
    #[error(
        "{function} cannot go to a guest: {}. {}", reason.brief(function.bdf), reason.explanation(function.bdf)
    )]
    Unfit {
        /// The function.
        function: Box<HostFunction>,
        /// Why not.
        reason: Reason,
    },
    /// The screen would go dark.
    #[error(
        "{function} is {} of this host: {DARK}. If that is what you want, say --yes-this-is-my-display",
        display(*only)
    )]
    Display {
        /// The display.
        function: Box<HostFunction>,
        /// Whether there is no other.
        only: bool,
    },
}

/// For the errors and notes about the host's own display.
pub const DARK: &str = "its screen goes dark when it is taken and shows nothing of the host until it is given back; \
                        have another way in (SSH) to type `tenon release --all`, or reboot";

impl PlanError {
    /// What to do about it, where there is something.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::InUse { function, what, .. } => what.remedy(function.bdf),
            Self::Unfit { reason, .. } => reason.remedy(),
            Self::Held { function, .. } if function.is_display() => Some(
                "end these first: log out, `systemctl stop display-manager`, and with NVIDIA's driver `systemctl stop \
                 nvidia-persistenced`"
                    .to_owned(),
            ),
            Self::Held { .. } => Some("end these first".to_owned()),
            Self::Selection(_) | Self::NoSuchFunction(_) | Self::Display { .. } => None,
        }
    }
}

fn display(only: bool) -> &'static str {
    match only {
        true => "the only display",
        false => "the display of the console",
    }
}

fn brought_along(why: &Why) -> String {
    match why {
        Why::Named => String::new(),
        why => format!(", which must come along ({why}),"),
    }
}

/// What taking functions comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BindPlan {
    /// The functions in order of address.
    pub functions: Vec<Row>,
    /// The host's own display, if it is among them.
    #[serde(serialize_with = "as_optional_text")]
    pub display: Option<Bdf>,
}

fn as_optional_text<S: Serializer>(bdf: &Option<Bdf>, serializer: S) -> Result<S::Ok, S::Error> {
    match bdf {
        Some(bdf) => serializer.collect_str(bdf),
        None => serializer.serialize_none(),
    }
}

impl BindPlan {
    /// Plans to take the functions named.
    ///
    /// # Errors
    /// The first reason not to.
    pub fn new(tree: &HostTree, survey: &Survey, named: &[Bdf], options: PlanOptions) -> Result<Self, PlanError> {
        for bdf in named {
            let facts = &survey.get(*bdf).ok_or(PlanError::NoSuchFunction(*bdf))?.facts;
            if facts.is_bridge() {
                return Err(SelectionError::Bridge(Box::new(facts.clone())).into());
            }
        }
        let unit = match options.whole_units {
            true => survey.unit(named),
            false => whole_groups(survey, named)?,
        };
        let planned: Vec<(&Function, Why)> = unit
            .iter()
            .filter_map(|bdf| survey.get(*bdf))
            .map(|function| (function, why(survey, function, named)))
            .collect();
        for (function, why) in &planned {
            refuse(function, *why)?;
        }
        let display = display_among(&planned, options.my_display)?;
        let functions = planned
            .into_iter()
            .map(|(function, why)| row(tree, function, why, options))
            .collect::<Result<_, _>>()?;
        Ok(Self { functions, display })
    }

    /// The functions that go to vfio-pci.
    pub fn to_take(&self) -> Vec<Bdf> {
        self.functions
            .iter()
            .filter(|row| row.action == Action::Take)
            .map(|row| row.bdf)
            .collect()
    }

    /// All functions that a guest has in the end.
    pub fn for_guest(&self) -> Vec<Bdf> {
        self.functions
            .iter()
            .filter(|row| row.action != Action::KeepStub)
            .map(|row| row.bdf)
            .collect()
    }
}

/// The functions named, if nothing of their groups is missing.
fn whole_groups(survey: &Survey, named: &[Bdf]) -> Result<Vec<Bdf>, PlanError> {
    let mut all = named.to_vec();
    all.sort_unstable();
    all.dedup();
    for bdf in &all {
        let Some(group) = survey.get(*bdf).and_then(|function| function.facts.group) else {
            continue;
        };
        let missing: Vec<HostFunction> = survey
            .group(group)
            .into_iter()
            .filter(|member| !member.facts.is_bridge() && !member.facts.on_stub() && !all.contains(&member.bdf()))
            .map(|member| member.facts.clone())
            .collect();
        if !missing.is_empty() {
            return Err(SelectionError::Incomplete {
                named: *bdf,
                group,
                missing,
            }
            .into());
        }
    }
    Ok(all)
}

fn why(survey: &Survey, function: &Function, named: &[Bdf]) -> Why {
    let card = |bdf: &Bdf| bdf.same_slot(&function.bdf());
    match function.facts.group {
        _ if named.contains(&function.bdf()) => Why::Named,
        Some(group) if survey.group(group).iter().any(|member| named.contains(&member.bdf())) => Why::Group { group },
        _ if named.iter().any(card) => Why::Card,
        Some(group) => Why::Group { group },
        None => Why::Card,
    }
}

/// What no consent of the user changes.
fn refuse(function: &Function, why: Why) -> Result<(), PlanError> {
    let in_use = |what: &&Use| what.forbids() && **what != Use::OnlyDisplay;
    // A function that is on vfio-pci for a running machine is not touched, but named it is a mistake.
    if let Some(what) = function.uses.iter().find(in_use) {
        return Err(PlanError::InUse {
            function: Box::new(function.facts.clone()),
            why,
            what: what.clone(),
        });
    }
    match &function.verdict {
        Verdict::No(reason @ (Reason::NoGroup | Reason::Reserved { .. } | Reason::BridgeDriver { .. })) => {
            Err(PlanError::Unfit {
                function: Box::new(function.facts.clone()),
                reason: reason.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// The host's own display among the functions, which takes the user's word.
fn display_among(planned: &[(&Function, Why)], consent: bool) -> Result<Option<Bdf>, PlanError> {
    for (function, _) in planned {
        let facts = &function.facts;
        if facts.is_set_aside() {
            continue;
        }
        let only = function.uses.contains(&Use::OnlyDisplay);
        let console = function.uses.iter().any(|what| matches!(what, Use::Console { .. }));
        if only || console {
            return match consent {
                true => Ok(Some(facts.bdf)),
                false => Err(PlanError::Display {
                    function: Box::new(facts.clone()),
                    only,
                }),
            };
        }
    }
    Ok(None)
}

fn row(tree: &HostTree, function: &Function, why: Why, options: PlanOptions) -> Result<Row, PlanError> {
    let facts = &function.facts;
    let action = match () {
        () if facts.on_vfio() => Action::Keep,
        () if facts.on_stub() && options.keep_stubs && why != Why::Named => Action::KeepStub,
        () => Action::Take,
    };
    let holders = match action {
        Action::Take => holders(tree, facts.bdf),
        Action::Keep | Action::KeepStub => Vec::new(),
    };
    let hard: Vec<Holder> = (holders.iter())
        .filter(|holder| holder.grip == Grip::Holds)
        .cloned()
        .collect();
    if !hard.is_empty() {
        return Err(PlanError::Held {
            function: Box::new(facts.clone()),
            why,
            holders: hard,
        });
    }
    Ok(Row {
        bdf: facts.bdf,
        name: name(function),
        group: facts.group,
        driver: facts.driver.clone(),
        action,
        why,
        notes: notes(function, action, &holders),
        holders,
    })
}

fn notes(function: &Function, action: Action, holders: &[Holder]) -> Vec<String> {
    let mut notes = Vec::new();
    if function.facts.on_stub() {
        notes.push(match action {
            Action::KeepStub => "isolated on pci-stub, which cannot reset it with its card".to_owned(),
            _ => "isolated on pci-stub, which can neither give it to a guest nor reset it".to_owned(),
        });
    }
    if action == Action::Take {
        let told = function
            .uses
            .iter()
            .filter(|what| !what.forbids() || **what == Use::OnlyDisplay);
        notes.extend(told.map(ToString::to_string));
        notes.extend(holders.iter().map(|holder| match holder.grip {
            Grip::Waits => format!("{holder} has it open and must close it when it is told that it is gone"),
            Grip::Yields | Grip::Holds => format!("{holder} has it open and loses it"),
        }));
    }
    notes
}

/// What the ID database calls it, else its class and IDs.
fn name(function: &Function) -> String {
    let facts = &function.facts;
    let ids = format!("[{:04x}:{:04x}]", facts.vendor, facts.device);
    let names = &function.names;
    match (&names.device, &names.vendor, &names.class) {
        (Some(device), _, _) => format!("{device} {ids}"),
        (None, Some(vendor), Some(class)) => format!("{vendor} {class} {ids}"),
        (None, _, Some(class)) => format!("{class} {ids}"),
        (None, Some(vendor), None) => format!("{vendor} {ids}"),
        (None, None, None) => format!("class {:06x} {ids}", facts.class),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
