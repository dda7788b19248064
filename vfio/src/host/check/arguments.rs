//! What the kernel was told: arguments that do nothing, and those that claim functions by ID.

use std::fmt;

use super::facts::list;
use super::{Facts, Finding, Requirement, Section, Vendor, iommu};
use crate::host::survey::{Function, short};
use crate::host::{HostTree, KernelLog};

/// More than any kernel takes (`COMMAND_LINE_SIZE` is 2048).
const MOST: usize = 512;

/// The kernel's command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    all: Vec<(String, Option<String>)>,
}

impl Arguments {
    /// Of a capture it may stand in the log alone.
    pub(super) fn read(tree: &HostTree, log: &KernelLog) -> Option<Self> {
        let logged = || {
            let line = log
                .find("Kernel command line: ")
                .or_else(|| log.find("Command line: "))?;
            Some(line.split_once("ommand line: ")?.1.to_owned())
        };
        tree.text("/proc/cmdline")
            .ok()
            .or_else(logged)
            .map(|text| Self::parse(&text))
    }

    /// Splits as the kernel does: at spaces that are not inside quotes.
    pub(super) fn parse(text: &str) -> Self {
        let mut quoted = false;
        let words = text.split(|letter: char| {
            quoted ^= letter == '"';
            letter.is_whitespace() && !quoted
        });
        let all = words
            .filter(|word| !word.is_empty())
            .take(MOST)
            .map(|word| match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.trim_matches('"').to_owned())),
                None => (word.to_owned(), None),
            });
        Self { all: all.collect() }
    }

    /// The values of an argument, each time it was given. Names of modules may be written with either dash.
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.replace('-', "_");
        self.all
            .iter()
            .filter(move |(own, _)| own.replace('-', "_") == name)
            .filter_map(|(_, value)| value.as_deref())
    }

    /// Whether an argument was given this value, alone or in a list.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.values(name)
            .any(|values| values.split(',').any(|own| own == value))
    }

    /// Whether a word without a value was given.
    pub fn has_word(&self, name: &str) -> bool {
        self.all.iter().any(|(own, value)| own == name && value.is_none())
    }

    /// The first argument of this name as it stands.
    pub fn written(&self, name: &str) -> Option<String> {
        let value = self.values(name).next()?;
        Some(format!("{name}={value}"))
    }

    /// The claims by ID, in the order written.
    pub fn claims(&self) -> Vec<Claim> {
        ["vfio-pci.ids", "pci-stub.ids"]
            .into_iter()
            .flat_map(|argument| {
                let ids = self.values(argument).flat_map(|values| values.split(','));
                ids.filter_map(move |id| Claim::parse(argument, id)).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// One ID of `vfio-pci.ids=` or `pci-stub.ids=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The argument.
    pub argument: &'static str,
    /// Vendor and device.
    pub ids: (u16, u16),
}

impl Claim {
    /// `VENDOR:DEVICE`, and what may follow to narrow it down, which is left out of account.
    fn parse(argument: &'static str, text: &str) -> Option<Self> {
        let mut fields = text.trim().split(':');
        let mut next = || u16::from_str_radix(fields.next()?, 16).ok();
        Some(Self {
            argument,
            ids: (next()?, next()?),
        })
    }

    /// Whether the function is meant.
    pub fn meets(&self, function: &Function) -> bool {
        (function.facts.vendor, function.facts.device) == self.ids
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.ids.0, self.ids.1)
    }
}

pub(super) const USELESS: Requirement = Requirement {
    id: "kernel-arguments",
    title: "Kernel arguments",
    section: Section::Iommu,
    look: useless,
};

fn useless(facts: &Facts) -> Vec<Finding> {
    let Some(arguments) = &facts.arguments else {
        return vec![facts.not_said("/proc/cmdline")];
    };
    let mut found = Vec::new();
    let mut warn = |seen: &str, remedy: &str| found.push(Finding::warn(seen).remedy(remedy));
    if arguments.has("amd_iommu", "on") {
        warn(
            "amd_iommu=on means nothing: the kernel knows no such value, and AMD's IOMMU is on by itself",
            "take it off; iommu=pt beside it does mean something",
        );
    }
    // A virtual machine may have Intel's IOMMU beside an AMD processor.
    let intel_iommu = iommu::table(facts).flatten() == Some("DMAR");
    if facts.vendor() == Vendor::Amd && !intel_iommu && arguments.has("intel_iommu", "on") {
        warn("intel_iommu=on does nothing on an AMD processor", "take it off");
    }
    if arguments.has("rd.driver.pre", "vfio_virqfd") && facts.at_least(6, 2) == Some(true) {
        warn(
            "rd.driver.pre=vfio_virqfd: no such module since Linux 6.2",
            "take it off",
        );
    }
    if arguments.has("video", "efifb:off") && facts.at_least(5, 15) == Some(true) {
        warn(
            "video=efifb:off no longer keeps the boot framebuffer away since Linux 5.15",
            "initcall_blacklist=sysfb_init does, where it is needed at all",
        );
    }
    if !found.is_empty() {
        return found;
    }
    let about = ["intel_iommu", "amd_iommu", "iommu", "vfio-pci.ids", "pci-stub.ids"];
    let said: Vec<String> = about.iter().filter_map(|name| arguments.written(name)).collect();
    vec![Finding::pass(match said.is_empty() {
        true => "none about the IOMMU or VFIO".to_owned(),
        false => said.join(" "),
    })]
}

pub(super) const CLAIMS: Requirement = Requirement {
    id: "claims-by-id",
    title: "Claims by ID",
    section: Section::Iommu,
    look: claims,
};

/// An ID that claims more than one function, none, or a bridge.
fn claims(facts: &Facts) -> Vec<Finding> {
    let claims = facts.arguments.as_ref().map(Arguments::claims).unwrap_or_default();
    let judge = |claim: &Claim| {
        let met: Vec<&Function> = facts
            .survey
            .functions
            .iter()
            .filter(|function| claim.meets(function))
            .collect();
        let argument = claim.argument;
        if met.is_empty() {
            return Some(
                Finding::warn(format!("{argument}={claim} claims nothing: no function has that ID"))
                    .remedy("take it off; `tenon boot-args BDF` prints the right ones"),
            );
        }
        if let Some(bridge) = met.iter().find(|function| function.facts.is_bridge()) {
            return Some(
                Finding::warn(format!(
                    "{argument}={claim} claims the bridge {}, which a guest cannot have",
                    short(bridge.bdf())
                ))
                .remedy("take the ID off: bridges stay with the host, and do not spoil their group there")
                .symptom("ids-match-twice"),
            );
        }
        if met.len() == 1 {
            return None;
        }
        let bdfs = list(met.iter().map(|function| function.bdf()));
        let left = met.iter().find(|function| !function.facts.is_set_aside());
        let first = short(met.first()?.bdf());
        Some(
            Finding::warn(match left {
                Some(left) => format!(
                    "{argument}={claim} means {bdfs} alike, but {} is not claimed",
                    short(left.bdf())
                ),
                None => format!("{argument}={claim} claims {bdfs} alike"),
            })
            .remedy(format!(
                "take the ID off; `tenon boot-args {first}` binds by address where an ID is shared"
            ))
            .symptom("ids-match-twice"),
        )
    };
    claims.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_split_as_the_kernel_splits_it() {
        let line = r#"ro quiet dyndbg="file a +p" intel_iommu=on,sm_on vfio_pci.ids=10de:1401,10de:0fba:ffffffff
                      vfio-pci.ids=8086:1e20 nointremap"#;
        let arguments = Arguments::parse(line);
        assert!(arguments.has("intel_iommu", "on") && arguments.has("intel-iommu", "sm_on"));
        assert!(arguments.has("dyndbg", "file a +p") && arguments.has_word("nointremap"));
        assert!(!arguments.has("a", "+p") && !arguments.has_word("intel_iommu"));
        let claims: Vec<String> = arguments.claims().iter().map(ToString::to_string).collect();
        assert_eq!(claims, ["10de:1401", "10de:0fba", "8086:1e20"]);
        assert!(Arguments::parse("vfio-pci.ids=zz,1,:,10de").claims().is_empty());
        assert_eq!(Arguments::parse("a=1 a=2").written("a").as_deref(), Some("a=1"));
    }
}
