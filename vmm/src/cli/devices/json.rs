//! The survey for scripts. The schema is `docs/devices.schema.json`, which a test keeps in step with this file.

use serde::Serialize;
use vfio::host::survey::{self, Anomaly, Reason, Survey, Verdict};
use vfio::host::{Bdf, Resource};

/// Grows when a script that reads the present form would misread the new one; additions leave it as it is.
const FORMAT: u32 = 1;

/// What `tenon devices --json` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report<'s> {
    /// The version of this form; it grows only when something present changes its meaning.
    format: u32,
    /// The functions asked for, in order of address.
    functions: Vec<Function<'s>>,
    /// The IOMMU groups of these functions, in order of number, with all their members.
    groups: Vec<Group<'s>>,
    /// Mistakes in what is set aside for guests, whatever functions were asked for.
    anomalies: Vec<Finding>,
    /// Functions that the host lists but tells nothing of.
    unreadable: Vec<Unreadable<'s>>,
}

/// A PCI function.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Function<'s> {
    /// Its address, like `0000:01:00.0`.
    bdf: String,
    /// Its IOMMU group; null where no IOMMU is active.
    group: Option<u32>,
    /// The next PCI function on the way to the CPU; null on a root bus.
    parent: Option<String>,
    vendor: Id<'s>,
    device: Id<'s>,
    subsystem_vendor: Option<Id<'s>>,
    subsystem_device: Option<Id<'s>>,
    /// Base class and sub-class, like `0300`.
    class: Id<'s>,
    /// Programming interface of the class.
    interface: u8,
    revision: Option<u8>,
    /// The driver bound now.
    driver: Option<&'s str>,
    /// The only driver that may bind, where one was set.
    driver_override: Option<&'s str>,
    /// The kernel modules that could drive it.
    modules: &'s [String],
    /// Whether the firmware lit the screen through it; null for what is no VGA controller.
    boot_vga: Option<bool>,
    /// How Linux would reset it, in order of preference; null where the kernel does not say.
    reset_methods: Option<&'s [String]>,
    /// What that means for a guest.
    reset: Reset,
    /// The functions that are reset together where `reset` is `with-bus`.
    reset_together: Vec<String>,
    power_state: Option<&'s str>,
    d3cold_allowed: Option<bool>,
    numa_node: Option<u32>,
    link: Option<Link<'s>>,
    bars: Vec<Bar>,
    /// Bytes of the expansion ROM.
    rom: Option<u64>,
    /// Virtual functions, enabled and possible.
    sriov: Option<Sriov>,
    /// The physical function that it is a virtual one of.
    physical_function: Option<String>,
    /// What the host uses it for.
    uses: Vec<Use>,
    /// Whether a guest can have it.
    assignable: Assignable,
    /// All that goes to a guest together, itself included; empty for bridges.
    unit: Vec<String>,
    /// Why a guest cannot have it; null where it can.
    reason: Option<Refusal>,
}

/// A number of the PCI ID database and its name there.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Id<'s> {
    /// Four hexadecimal digits.
    id: String,
    name: Option<&'s str>,
}

/// A PCI Express link.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Link<'s> {
    /// Now, as Linux writes it.
    speed: &'s str,
    /// Lanes now.
    width: u32,
    max_speed: &'s str,
    max_width: u32,
}

/// A base address register in use.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Bar {
    /// 0 to 5.
    index: usize,
    kind: BarKind,
    prefetchable: bool,
    /// Where the host put it; 0 where it found no place.
    start: u64,
    /// Bytes.
    size: u64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum BarKind {
    Io,
    Memory32,
    Memory64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Sriov {
    enabled: u32,
    total: u32,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Reset {
    /// Alone, by the first of `reset_methods` that works.
    Alone,
    /// With its bus, once all on it are the guest's.
    WithBus,
    /// In no way that Linux knows.
    Impossible,
    /// The kernel does not say.
    Unknown,
}

/// What the host uses a function for.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Use {
    /// Whether it keeps the function from guests.
    forbids: bool,
    /// In words.
    text: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
enum What {
    Mount { at: String, disk: String },
    Swap { on: String, disk: String },
    DefaultRoute { through: String, interface: String },
    OnlyDisplay,
    Console { by: String },
    Screens { connectors: Vec<String> },
    Keyboard { only: bool },
    Vm { pid: u32, name: String },
    VirtualFunctions { count: u32 },
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Assignable {
    Yes,
    WithSiblings,
    No,
}

/// Why not.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Refusal {
    kind: RefusalKind,
    /// In a few words.
    text: String,
    explanation: String,
    /// What to do about it, where there is something.
    remedy: Option<String>,
    /// The function that stands in the way, which may be a sibling.
    function: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum RefusalKind {
    Bridge,
    NoGroup,
    InUse,
    Reserved,
    BridgeDriver,
}

/// An IOMMU group.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Group<'s> {
    number: u32,
    members: Vec<String>,
    reserved: Vec<Region<'s>>,
}

/// An address range that the group reserves.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Region<'s> {
    /// First address.
    start: u64,
    /// Last address.
    end: u64,
    /// `direct`, `direct-relaxable`, `msi` or `reserved`.
    kind: &'s str,
}

/// A mistake in what is set aside.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Finding {
    kind: FindingKind,
    title: String,
    explanation: String,
    /// The functions it is about: those set aside.
    functions: Vec<String>,
    /// The functions that are missing beside them.
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum FindingKind {
    HalfTaken,
    TakenInstead,
    OnStub,
    NoDisplayLeft,
}

/// A function that could not be read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Unreadable<'s> {
    bdf: String,
    reason: &'s str,
}

impl<'s> Report<'s> {
    /// The functions asked for out of the survey.
    pub(super) fn new(survey: &'s Survey, shown: &[&'s survey::Function]) -> Self {
        let wanted = |number: &u32| shown.iter().any(|function| function.facts.group == Some(*number));
        let group = |(number, group): (&'s u32, &'s survey::Group)| Group {
            number: *number,
            members: written(&group.members),
            reserved: group.reserved.iter().map(region).collect(),
        };
        Self {
            format: FORMAT,
            functions: shown.iter().map(|function| Function::new(survey, function)).collect(),
            groups: survey
                .groups
                .iter()
                .filter(|(number, _)| wanted(number))
                .map(group)
                .collect(),
            anomalies: survey.anomalies.iter().map(Finding::new).collect(),
            unreadable: survey
                .unreadable
                .iter()
                .map(|unreadable| Unreadable {
                    bdf: unreadable.bdf.to_string(),
                    reason: &unreadable.reason,
                })
                .collect(),
        }
    }
}

fn region(region: &survey::Region) -> Region<'_> {
    Region {
        start: region.start,
        end: region.end,
        kind: &region.kind,
    }
}

fn written(bdfs: &[Bdf]) -> Vec<String> {
    bdfs.iter().map(Bdf::to_string).collect()
}

fn id(id: u16, name: Option<&str>) -> Id<'_> {
    Id {
        id: format!("{id:04x}"),
        name,
    }
}

impl<'s> Function<'s> {
    fn new(survey: &Survey, function: &'s survey::Function) -> Self {
        let survey::Function { facts, names, .. } = function;
        let [_, base, sub, interface] = facts.class.to_be_bytes();
        let bars = facts.resources.iter().enumerate().take(6);
        let (assignable, reason) = match &function.verdict {
            Verdict::Yes => (Assignable::Yes, None),
            Verdict::WithSiblings(_) => (Assignable::WithSiblings, None),
            Verdict::No(reason) => (Assignable::No, Some(Refusal::new(reason, facts.bdf))),
        };
        let (reset, together) = match survey.reset(function) {
            survey::Reset::Alone(_) => (Reset::Alone, Vec::new()),
            survey::Reset::WithBus(together) => (Reset::WithBus, together),
            survey::Reset::Impossible => (Reset::Impossible, Vec::new()),
            survey::Reset::Unknown => (Reset::Unknown, Vec::new()),
        };
        Self {
            bdf: facts.bdf.to_string(),
            group: facts.group,
            parent: facts.parent.map(|bdf| bdf.to_string()),
            vendor: id(facts.vendor, names.vendor.as_deref()),
            device: id(facts.device, names.device.as_deref()),
            subsystem_vendor: facts
                .subsystem
                .map(|(vendor, _)| id(vendor, names.subsystem_vendor.as_deref())),
            subsystem_device: facts
                .subsystem
                .map(|(_, device)| id(device, names.subsystem.as_deref())),
            class: id(u16::from_be_bytes([base, sub]), names.class.as_deref()),
            interface,
            revision: facts.revision,
            driver: facts.driver.as_deref(),
            driver_override: facts.driver_override.as_deref(),
            modules: &function.modules,
            boot_vga: facts.boot_vga,
            reset_methods: facts.reset_methods.as_deref(),
            reset,
            reset_together: written(&together),
            power_state: facts.power_state.as_deref(),
            d3cold_allowed: facts.d3cold_allowed,
            numa_node: facts.numa_node,
            link: facts.link.as_ref().map(|link| Link {
                speed: &link.speed,
                width: link.width,
                max_speed: &link.max_speed,
                max_width: link.max_width,
            }),
            bars: bars
                .filter(|(_, resource)| resource.size > 0)
                .map(|(index, resource)| Bar::new(index, resource))
                .collect(),
            rom: facts.resources.get(6).map(|rom| rom.size).filter(|size| *size > 0),
            sriov: facts.sriov.map(|sriov| Sriov {
                enabled: sriov.enabled,
                total: sriov.total,
            }),
            physical_function: facts.physical.map(|bdf| bdf.to_string()),
            uses: function.uses.iter().map(Use::new).collect(),
            assignable,
            unit: written(&survey.unit(&[facts.bdf])),
            reason,
        }
    }
}

impl Bar {
    fn new(index: usize, resource: &Resource) -> Self {
        Self {
            index,
            kind: match (resource.is_io(), resource.is_64bit()) {
                (true, _) => BarKind::Io,
                (false, true) => BarKind::Memory64,
                (false, false) => BarKind::Memory32,
            },
            prefetchable: resource.is_prefetchable(),
            start: resource.start,
            size: resource.size,
        }
    }
}

impl Use {
    fn new(what: &survey::Use) -> Self {
        Self {
            forbids: what.forbids(),
            text: what.to_string(),
            what: match what.clone() {
                survey::Use::Mount { at, disk } => What::Mount { at, disk },
                survey::Use::Swap { on, disk } => What::Swap { on, disk },
                survey::Use::DefaultRoute { through, interface } => What::DefaultRoute { through, interface },
                survey::Use::OnlyDisplay => What::OnlyDisplay,
                survey::Use::Console { by } => What::Console { by },
                survey::Use::Screens(connectors) => What::Screens { connectors },
                survey::Use::Keyboard { only } => What::Keyboard { only },
                survey::Use::Vm { pid, name } => What::Vm { pid, name },
                survey::Use::VirtualFunctions(count) => What::VirtualFunctions { count },
            },
        }
    }
}

impl Refusal {
    fn new(reason: &Reason, of: Bdf) -> Self {
        let (kind, function) = match reason {
            Reason::Bridge => (RefusalKind::Bridge, None),
            Reason::NoGroup => (RefusalKind::NoGroup, None),
            Reason::InUse { by, .. } => (RefusalKind::InUse, Some(*by)),
            Reason::Reserved { .. } => (RefusalKind::Reserved, None),
            Reason::BridgeDriver { bridge, .. } => (RefusalKind::BridgeDriver, Some(*bridge)),
        };
        Self {
            kind,
            text: reason.brief(of),
            explanation: reason.explanation(of),
            remedy: reason.remedy(),
            function: function.map(|bdf| bdf.to_string()),
        }
    }
}

impl Finding {
    fn new(anomaly: &Anomaly) -> Self {
        let (kind, functions, missing) = match anomaly {
            Anomaly::HalfTaken { taken, missing, .. } => (FindingKind::HalfTaken, taken.clone(), missing.clone()),
            Anomaly::TakenInstead { function, missing } => {
                (FindingKind::TakenInstead, vec![*function], missing.clone())
            }
            Anomaly::OnStub(functions) => (FindingKind::OnStub, functions.clone(), Vec::new()),
            Anomaly::NoDisplayLeft(functions) => (FindingKind::NoDisplayLeft, functions.clone(), Vec::new()),
        };
        Self {
            kind,
            title: anomaly.title(),
            explanation: anomaly.explanation(),
            functions: written(&functions),
            missing: written(&missing),
        }
    }
}
