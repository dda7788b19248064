//! Whether devices of this host can be assigned: each requirement looked at, what was seen, and what to do about it.
//!
//! A requirement is a small value with a function that looks at the [`Facts`]; [`REQUIREMENTS`] holds them in the order
//! in which a person would go through them. Nothing is changed on the host.

mod acs;
mod arguments;
mod devices;
mod facts;
mod framebuffer;
mod graphics;
mod iommu;
mod isolation;
mod kernel;
mod kvm;
mod log;
mod memory;
mod modules;
mod permission;
mod processor;
mod remapping;
mod reserved;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use arguments::Arguments;
pub use facts::{Facts, Processor, Release, Vendor, Wanted};

/// How a requirement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is met.
    Pass,
    /// It could not be seen, on a capture or without permission.
    Unknown,
    /// A guest runs, but something will trouble it or the host.
    Warn,
    /// No guest with devices runs before this is seen to.
    Fail,
}

/// What is looked at together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Processor, kernel, KVM.
    Machine,
    /// The IOMMU and what the kernel was told of it.
    Iommu,
    /// The functions set aside or asked for.
    Devices,
    /// Memory for the guest.
    Memory,
    /// What a guest of this configuration needs besides.
    Guest,
    /// What the kernel said.
    Log,
}

/// What was found of a requirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub status: Status,
    /// What was seen.
    pub seen: String,
    /// The next thing to do, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The failure of the catalogue that this leads to or is.
    #[serde(rename = "symptom", skip_serializing_if = "Option::is_none")]
    pub symptom: Option<&'static str>,
}

impl Finding {
    /// Of any status.
    pub fn new(status: Status, seen: impl Into<String>) -> Self {
        Self {
            status,
            seen: seen.into(),
            remedy: None,
            symptom: None,
        }
    }

    /// Met.
    pub fn pass(seen: impl Into<String>) -> Self {
        Self::new(Status::Pass, seen)
    }

    /// Troublesome.
    pub fn warn(seen: impl Into<String>) -> Self {
        Self::new(Status::Warn, seen)
    }

    /// Not met.
    pub fn fail(seen: impl Into<String>) -> Self {
        Self::new(Status::Fail, seen)
    }

    /// Not seen.
    pub fn unknown(seen: impl Into<String>) -> Self {
        Self::new(Status::Unknown, seen)
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With its name in the catalogue of failures.
    #[must_use]
    pub fn symptom(mut self, id: &'static str) -> Self {
        self.symptom = Some(id);
        self
    }
}

/// Something that assigning devices stands on.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// Its name in the JSON form.
    pub id: &'static str,
    /// What a person calls it, in at most [`LONGEST_TITLE`] letters.
    pub title: &'static str,
    /// Where it belongs.
    pub section: Section,
    look: fn(&Facts) -> Vec<Finding>,
}

impl Requirement {
    /// Whether a guest without devices can do without it.
    fn is_for_devices(&self) -> bool {
        matches!(self.section, Section::Iommu | Section::Devices)
            || [modules::MODULES.id, memory::LOCK.id, processor::NESTED.id].contains(&self.id)
    }
}

/// So that titles make a column.
pub const LONGEST_TITLE: usize = 18;

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The requirement.
    pub requirement: &'static str,
    /// What a person calls it.
    #[serde(skip)]
    pub title: &'static str,
    /// Where it belongs.
    pub section: Section,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// All requirements in order.
pub const REQUIREMENTS: &[Requirement] = &[
    processor::VIRTUALISATION,
    processor::NESTED,
    kernel::RELEASE,
    kvm::KVM,
    kernel::LOCKDOWN,
    modules::MODULES,
    iommu::FIRMWARE,
    iommu::ENABLED,
    iommu::WIDTH,
    remapping::REMAPPING,
    arguments::USELESS,
    arguments::CLAIMS,
    acs::OVERRIDE,
    isolation::ISOLATION,
    devices::DEVICES,
    permission::FILES,
    reserved::RESERVED,
    acs::SHARED,
    graphics::BOOT_DISPLAY,
    framebuffer::FRAMEBUFFER,
    graphics::HYBRID,
    devices::POWER,
    devices::RESET,
    memory::FREE,
    memory::LOCK,
    memory::HUGE,
    log::LOG,
];

/// Looks at all of [`REQUIREMENTS`] that matter for what is wanted.
pub fn check(facts: &Facts) -> Vec<Line> {
    let lines = |requirement: &Requirement| {
        let Requirement { id, title, section, .. } = *requirement;
        (requirement.look)(facts).into_iter().map(move |finding| Line {
            requirement: id,
            title,
            section,
            finding,
        })
    };
    let asked = |requirement: &&Requirement| !facts.wanted.without_devices || !requirement.is_for_devices();
    REQUIREMENTS.iter().filter(asked).flat_map(lines).collect()
}
