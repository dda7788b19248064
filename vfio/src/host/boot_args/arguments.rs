//! What kernel arguments mean for one another: which are there already under another spelling, which of those there
//! would undo what is added.

use serde::Serialize;

use super::super::{Bdf, HostFunction};
use super::claim::{Claim, Claimed};

/// An argument on the kernel's command line that does not fit what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrongArgument {
    /// The argument as it stands.
    pub argument: String,
    /// What is wrong with it.
    pub why: String,
    /// Whether the devices cannot be assigned while it stands.
    pub defeats: bool,
}

/// The name of an argument; the kernel does not tell `-` from `_` in it.
fn key(argument: &str) -> String {
    let name = argument.split_once('=').map_or(argument, |(name, _)| name);
    name.replace('_', "-")
}

fn values(argument: &str) -> Vec<&str> {
    argument
        .split_once('=')
        .map(|(_, value)| value.split(',').collect())
        .unwrap_or_default()
}

fn same_key<'a>(there: &'a [String], wanted: &str) -> impl DoubleEndedIterator<Item = &'a String> {
    let name = key(wanted);
    there.iter().filter(move |argument| key(argument) == name)
}

/// What has to be added so that each wanted argument is in force. Of several `vfio-pci.ids=` the kernel heeds the last
/// alone, so that one takes over the IDs of the one before it.
pub(super) fn missing(there: &[String], wanted: &[String]) -> Vec<String> {
    wanted.iter().filter_map(|wanted| one_missing(there, wanted)).collect()
}

fn one_missing(there: &[String], wanted: &str) -> Option<String> {
    match key(wanted).as_str() {
        "vfio-pci.ids" => {
            let before = same_key(there, wanted)
                .next_back()
                .map(|last| values(last))
                .unwrap_or_default();
            let has = |id: &&str| before.iter().any(|other| other.eq_ignore_ascii_case(id));
            let new: Vec<&str> = values(wanted).into_iter().filter(|id| !has(id)).collect();
            let all: Vec<&str> = before
                .iter()
                .copied()
                .filter(|id| !id.is_empty())
                .chain(new.iter().copied())
                .collect();
            (!new.is_empty()).then(|| format!("vfio-pci.ids={}", all.join(",")))
        }
        "intel-iommu" | "iommu" | "rd.driver.pre" => {
            let in_force = values(wanted)
                .iter()
                .all(|value| same_key(there, wanted).any(|argument| values(argument).contains(value)));
            (!in_force).then(|| wanted.to_owned())
        }
        _ => (!there.iter().any(|argument| argument == wanted)).then(|| wanted.to_owned()),
    }
}

/// The arguments among those there that do not fit the devices claimed.
pub(super) fn wrong(there: &[String], claimed: &[Claimed], host: &[&HostFunction]) -> Vec<WrongArgument> {
    let mut found: Vec<WrongArgument> = Vec::new();
    for argument in there {
        let why = match key(argument).as_str() {
            "intel-iommu" | "iommu" | "amd-iommu" if values(argument).contains(&"off") => Some((OFF.to_owned(), true)),
            "pci-stub.ids" => stubbed(&values(argument), claimed, host),
            "vfio-pci.ids" => taken_too(&values(argument), claimed, host).map(|why| (why, false)),
            _ => None,
        };
        if let Some((why, defeats)) = why {
            found.push(WrongArgument {
                argument: argument.clone(),
                why,
                defeats,
            });
        }
    }
    found
}

/// Why devices cannot be assigned while an argument stands; `None` where they can.
pub(super) fn defeats(argument: &str, claimed: &[Claimed]) -> Option<String> {
    match key(argument).as_str() {
        "intel-iommu" | "iommu" | "amd-iommu" if values(argument).contains(&"off") => Some(OFF.into()),
        "pci-stub.ids" => {
            let ids = values(argument);
            let held = claimed
                .iter()
                .find(|ours| ids.iter().any(|id| is_id(id, ours.vendor, ours.device)))?;
            Some(format!(
                "gives {} [{}] to pci-stub before vfio-pci can have it",
                held.bdf,
                held.id()
            ))
        }
        _ => None,
    }
}

const OFF: &str = "turns the IOMMU off, whatever else is said";

/// An ID may be followed by those of a subsystem.
fn is_id(listed: &str, vendor: u16, device: u16) -> bool {
    let listed = listed.to_ascii_lowercase();
    listed
        .strip_prefix(&format!("{vendor:04x}:{device:04x}"))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Whether `--replace` takes the argument away: it turns the IOMMU off, or claims devices by ID that were not asked for.
pub(super) fn replaced(argument: &str, wanted: &[String]) -> bool {
    match key(argument).as_str() {
        "intel-iommu" | "iommu" | "amd-iommu" => values(argument).contains(&"off"),
        "pci-stub.ids" | "vfio-pci.ids" => !wanted.iter().any(|ours| ours == argument),
        _ => false,
    }
}

fn holders<'a>(ids: &[&str], host: &[&'a HostFunction]) -> Vec<&'a HostFunction> {
    let matches = |function: &&HostFunction| ids.iter().any(|id| is_id(id, function.vendor, function.device));
    host.iter().copied().filter(matches).collect()
}

/// pci-stub is built into many kernels and claims before any module can: what it holds vfio-pci does not get.
fn stubbed(ids: &[&str], claimed: &[Claimed], host: &[&HostFunction]) -> Option<(String, bool)> {
    let held = holders(ids, host);
    let is_ours = |bdf: Bdf| claimed.iter().any(|ours| ours.bdf == bdf);
    let (ours, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|function| is_ours(function.bdf));
    let left_out: Vec<&Claimed> = claimed
        .iter()
        .filter(|ours_too| !ours.iter().any(|function| function.bdf == ours_too.bdf))
        .collect();
    let mut parts = Vec::new();
    for function in &ours {
        parts.push(format!(
            "holds {} on pci-stub, so that vfio-pci does not get it",
            name(function)
        ));
    }
    for function in &others {
        let what = if function.is_display() {
            ", a display controller"
        } else {
            ""
        };
        parts.push(format!("claims {}{what}, which was not asked for", name(function)));
    }
    if !ours.is_empty() {
        for function in left_out {
            parts.push(format!(
                "leaves {} [{}], which goes with them, to the host",
                function.bdf,
                function.id()
            ));
        }
    }
    let defeats = !ours.is_empty();
    (!parts.is_empty()).then(|| (parts.join("; "), defeats))
}

fn taken_too(ids: &[&str], claimed: &[Claimed], host: &[&HostFunction]) -> Option<String> {
    let by_id = |bdf: Bdf| claimed.iter().any(|ours| ours.bdf == bdf && ours.claim == Claim::ById);
    let too: Vec<String> = holders(ids, host)
        .into_iter()
        .filter(|function| !by_id(function.bdf) && !claimed.iter().any(|ours| ours.bdf == function.bdf))
        .map(|function| format!("also takes {}, which was not asked for", name(function)))
        .collect();
    (!too.is_empty()).then(|| too.join("; "))
}

fn name(function: &HostFunction) -> String {
    format!("{} [{:04x}:{:04x}]", function.bdf, function.vendor, function.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_not_in_force_is_missing() {
        for (there, wanted, expected) in [
            (&["ro"][..], "iommu=pt", Some("iommu=pt")),
            (&["iommu=pt"], "iommu=pt", None),
            (&["intel_iommu=on,sm_on"], "intel_iommu=on", None),
            (&["intel_iommu=off"], "intel_iommu=on", Some("intel_iommu=on")),
            (&["rd.driver.pre=vfio-pci,nvme"], "rd.driver.pre=vfio-pci", None),
            (&["vfio_pci.ids=10de:1401"], "vfio-pci.ids=10DE:1401", None),
            (
                &["vfio-pci.ids=1:2", "vfio-pci.ids=8086:1e20"],
                "vfio-pci.ids=10de:1401,10de:0fba",
                Some("vfio-pci.ids=8086:1e20,10de:1401,10de:0fba"),
            ),
            (&["vfio-pci.ids="], "vfio-pci.ids=1:2", Some("vfio-pci.ids=1:2")),
        ] {
            let found = missing(&of(there), &of(&[wanted]));
            assert_eq!(found.first().map(String::as_str), expected, "{there:?} {wanted}");
        }
    }

    #[test]
    fn replaced_are_claims_by_id_and_what_turns_the_iommu_off() {
        let wanted = of(&["vfio-pci.ids=10de:1401"]);
        for (argument, expected) in [
            ("pci-stub.ids=8086:0152", true),
            ("pci_stub.ids=8086:0152", true),
            ("vfio-pci.ids=10de:1401", false),
            ("vfio-pci.ids=10de:0fba", true),
            ("amd_iommu=off", true),
            ("intel_iommu=on", false),
            ("quiet", false),
        ] {
            assert_eq!(replaced(argument, &wanted), expected, "{argument}");
        }
    }
}
