//! Which functions are taken at boot, and how vfio-pci comes by each: by its ID on the command line, or by its address
//! through `driver_override`, set in the initramfs.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::survey::{Function, Survey};
use super::super::{Bdf, HostFunction, HostTree, Sysfs};

/// How vfio-pci comes by a function at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Claim {
    /// `vfio-pci.ids=`: every function with this ID is taken, and these are all there are.
    #[serde(rename = "id")]
    ById,
    /// `driver_override` for this address.
    #[serde(rename = "address")]
    ByAddress {
        /// Why the ID will not do.
        why: String,
    },
}

/// A function that is taken at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claimed {
    /// Its address.
    #[serde(serialize_with = "as_text")]
    pub bdf: Bdf,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// The driver that has it now.
    pub driver: Option<String>,
    /// Kernel modules that would take it, so that vfio-pci must come before them.
    pub modules: Vec<String>,
    /// Whether it was named, and not brought in by its group or its slot.
    pub named: bool,
    /// How vfio-pci comes by it.
    #[serde(flatten)]
    pub claim: Claim,
}

impl Claimed {
    /// Vendor and device as `vfio-pci.ids=` takes them.
    pub fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.device)
    }
}

fn as_text<S: serde::Serializer>(bdf: &Bdf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(bdf)
}

/// How the kernel has its drivers: as modules, or built in.
#[derive(Debug, Clone, Default)]
pub(super) struct BuiltIn(BTreeSet<String>);

impl BuiltIn {
    /// `modules.builtin` of the kernel that runs; of the newest one in the tree where none runs there.
    pub(super) fn of(tree: &HostTree) -> Self {
        let running = tree.text("/proc/sys/kernel/osrelease").ok();
        let at = |release: &str| {
            ["/lib/modules", "/usr/lib/modules"]
                .iter()
                .find_map(|folder| tree.text(format!("{folder}/{release}/modules.builtin")).ok())
        };
        let newest = || {
            tree.list("/lib/modules")
                .ok()?
                .into_iter()
                .rev()
                .find_map(|name| at(&name))
        };
        let text = running.as_deref().and_then(at).or_else(newest).unwrap_or_default();
        let name = |line: &str| Some(module_name(line.rsplit('/').next()?.split_once(".ko")?.0));
        Self(text.lines().filter_map(name).collect())
    }

    pub(super) fn has(&self, driver: &str) -> bool {
        self.0.contains(&module_name(driver))
    }
}

/// Modules are told apart without regard to `-` and `_`.
fn module_name(driver: &str) -> String {
    driver.replace('-', "_")
}

/// The functions to take for those that were named: everything that must go with them, and how each is claimed.
pub(super) fn claims(tree: &HostTree, survey: &Survey, named: &[Bdf], built_in: &BuiltIn) -> Vec<Claimed> {
    let unit = survey.unit(named);
    unit.iter()
        .filter_map(|bdf| survey.get(*bdf))
        .map(|function| Claimed {
            bdf: function.bdf(),
            vendor: function.facts.vendor,
            device: function.facts.device,
            driver: function.facts.driver.clone(),
            modules: modules(tree, function, built_in),
            named: named.contains(&function.bdf()),
            claim: how(&function.facts, survey, &unit, built_in),
        })
        .collect()
}

fn how(function: &HostFunction, survey: &Survey, unit: &[Bdf], built_in: &BuiltIn) -> Claim {
    let twin = survey
        .facts()
        .find(|other| !unit.contains(&other.bdf) && (other.vendor, other.device) == (function.vendor, function.device));
    if let Some(twin) = twin {
        return Claim::ByAddress {
            why: format!("{} has the same ID and was not named", twin.bdf),
        };
    }
    match &function.driver {
        Some(driver) if !function.on_vfio() && driver != "pci-stub" && built_in.has(driver) => Claim::ByAddress {
            why: format!("{driver} is built into the kernel and takes it before any module can be loaded"),
        },
        _ => Claim::ById,
    }
}

/// The modules that would take the function: those that know its ID, and the one whose driver has it now. What is
/// built in is loaded by nobody.
fn modules(tree: &HostTree, function: &Function, built_in: &BuiltIn) -> Vec<String> {
    let mut all: BTreeSet<String> = function.modules.iter().map(|module| module_name(module)).collect();
    let path = Sysfs::function_path(function.bdf()).join("driver/module");
    // A driver may go by another name than its module, which only the running host tells.
    match (tree.link_name(path), &function.facts.driver) {
        (Some(module), _) => _ = all.insert(module),
        (None, Some(driver)) if all.is_empty() => _ = all.insert(module_name(driver)),
        _ => (),
    }
    let ours = |module: &String| module == "pci_stub" || module.ends_with("vfio_pci");
    all.into_iter()
        .filter(|module| !ours(module) && !built_in.has(module))
        .collect()
}
