//! Whose processor it is: the IOMMU is turned on by another argument with each maker.

use serde::Serialize;

use super::super::HostTree;

/// The maker of the host's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Processor {
    /// VT-d.
    Intel,
    /// AMD-Vi; Hygon's are the same.
    Amd,
    /// `/proc/cpuinfo` does not say, or names another maker.
    Unknown,
}

impl Processor {
    /// What `/proc/cpuinfo` says.
    pub fn of(tree: &HostTree) -> Self {
        let text = tree.text("/proc/cpuinfo").unwrap_or_default();
        let vendor = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == "vendor_id")
            .map_or("", |(_, value)| value.trim());
        match vendor {
            "GenuineIntel" => Self::Intel,
            "AuthenticAMD" | "HygonGenuine" => Self::Amd,
            _ => Self::Unknown,
        }
    }

    /// The arguments that turn the IOMMU on. `iommu=pt` leaves the host's own devices without translation, which costs
    /// them nothing and keeps a device with bad firmware tables working. AMD-Vi is on wherever the firmware has it.
    pub fn iommu_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Intel => &["intel_iommu=on", "iommu=pt"],
            Self::Amd => &["iommu=pt"],
            // The argument for Intel does nothing elsewhere.
            Self::Unknown => &["intel_iommu=on", "iommu=pt"],
        }
    }
}
