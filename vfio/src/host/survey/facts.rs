//! What the survey says of a function and of a group.

use std::collections::BTreeMap;

use super::Verdict;
use super::verdict::Reason;
use crate::host::{Bdf, HostFunction, HostTree};

/// A function and all the survey found of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// What `/sys` says.
    pub facts: HostFunction,
    /// What it is called.
    pub names: Names,
    /// The kernel modules that drive such a function, without `.ko`.
    pub modules: Vec<String>,
    /// What the host uses it for.
    pub uses: Vec<Use>,
    /// Whether a guest can have it.
    pub verdict: Verdict,
}

impl Function {
    pub(super) fn new(facts: HostFunction) -> Self {
        Self {
            verdict: Verdict::No(Reason::NoGroup),
            names: Names::default(),
            modules: Vec::new(),
            uses: Vec::new(),
            facts,
        }
    }

    /// Its address.
    pub fn bdf(&self) -> Bdf {
        self.facts.bdf
    }

    /// The next PCI function on the way to the CPU.
    pub fn parent(&self) -> Option<Bdf> {
        self.facts.parent
    }
}

/// Names of the PCI ID database; `None` where it knows none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The vendor.
    pub vendor: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// Who sells it.
    pub subsystem_vendor: Option<String>,
    /// What it is sold as.
    pub subsystem: Option<String>,
    /// Base class and sub-class.
    pub class: Option<String>,
}

/// What a host uses a function for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A mounted file system is on a disk behind it.
    Mount {
        /// Where it is mounted.
        at: String,
        /// The disk, as `/sys/class/block` names it.
        disk: String,
    },
    /// Swap is on a disk behind it.
    Swap {
        /// The swap partition or file.
        on: String,
        /// The disk.
        disk: String,
    },
    /// A default route leaves through it.
    DefaultRoute {
        /// The interface of the route, which may be a bridge or a bond.
        through: String,
        /// The interface of the function itself.
        interface: String,
    },
    /// The host has no other display.
    OnlyDisplay,
    /// The console is on it, though there is another display.
    Console {
        /// How that is known: `boot_vga`, `fb0`.
        by: String,
    },
    /// Screens are connected to it, though there is another display.
    Screens(Vec<String>),
    /// A keyboard is on it.
    Keyboard {
        /// Whether there is no keyboard elsewhere.
        only: bool,
    },
    /// Another virtual machine has it.
    Vm {
        /// The process that holds it.
        pid: u32,
        /// What the process is called.
        name: String,
    },
    /// Virtual functions of it are enabled.
    VirtualFunctions(u32),
}

impl Use {
    /// Whether the host would break, rather than only miss something.
    pub fn forbids(&self) -> bool {
        match self {
            Self::Mount { .. }
            | Self::Swap { .. }
            | Self::DefaultRoute { .. }
            | Self::OnlyDisplay
            | Self::Vm { .. }
            | Self::VirtualFunctions(_) => true,
            Self::Console { .. } | Self::Screens(_) | Self::Keyboard { .. } => false,
        }
    }
}

/// A function that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its address.
    pub bdf: Bdf,
    /// Why.
    pub reason: String,
}

/// An address range that an IOMMU group reserves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Last address.
    pub end: u64,
    /// `direct`, `direct-relaxable`, `msi` or `reserved`.
    pub kind: String,
}

/// An IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The functions in it, in order of address.
    pub members: Vec<Bdf>,
    /// Its reserved address ranges.
    pub reserved: Vec<Region>,
}

impl Group {
    /// The groups by what the functions say; the directories of the groups only add the reserved regions.
    pub(super) fn all(tree: &HostTree, functions: &[HostFunction]) -> BTreeMap<u32, Self> {
        let mut groups: BTreeMap<u32, Self> = BTreeMap::new();
        for function in functions {
            if let Some(group) = function.group {
                groups.entry(group).or_default().members.push(function.bdf);
            }
        }
        let Ok(folder) = tree.folder("/sys/kernel/iommu_groups") else {
            return groups;
        };
        for (number, group) in &mut groups {
            let own = folder.folder(&number.to_string());
            let text = own
                .and_then(|own| own.attribute("reserved_regions"))
                .unwrap_or_default();
            group.reserved = text.lines().filter_map(region).collect();
        }
        groups
    }

    /// The ranges that the firmware wants mapped one to one for a device of the group, which forbids assigning it.
    pub fn direct(&self) -> impl Iterator<Item = &Region> {
        self.reserved.iter().filter(|region| region.kind == "direct")
    }
}

fn region(line: &str) -> Option<Region> {
    let address = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let mut words = line.split_whitespace();
    Some(Region {
        start: address(words.next()?)?,
        end: address(words.next()?)?,
        kind: words.next()?.to_owned(),
    })
}
