//! What `tenon run --dry-run` says: the plan in words and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::layout::FIRST_DISK;
use super::plan::{BootPlan, Plan};

/// The plan, as far as a user wants to see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// What the machine is called.
    pub name: String,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Guest physical address bits.
    pub phys_bits: u8,
    /// Bytes of guest RAM.
    pub memory: u64,
    /// Bytes of it below 4 GiB.
    pub memory_below_4g: u64,
    /// The firmware's code, if there is firmware.
    pub firmware: Option<PathBuf>,
    /// The variable store.
    pub vars: Option<PathBuf>,
    /// Whether the variable store has yet to be made from the template.
    pub vars_to_be_created: bool,
    /// The kernel, if it is started without firmware.
    pub kernel: Option<PathBuf>,
    /// Disks.
    pub disks: Vec<DiskSummary>,
    /// Assigned functions.
    pub devices: Vec<DeviceSummary>,
    /// Bytes of the PCI window above 4 GiB.
    pub pci64_window: u64,
    /// Whether the guest is kept from seeing KVM.
    pub hide_kvm: bool,
}

/// A disk.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskSummary {
    /// Its address in the guest.
    pub guest: String,
    /// The image.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Whether the guest may only read it.
    pub readonly: bool,
}

/// An assigned function.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceSummary {
    /// Its address on the host.
    pub host: String,
    /// IOMMU group.
    pub group: Option<u32>,
    /// The root port and function number in the guest.
    pub guest: String,
    /// Class code.
    pub class: String,
}

impl Plan {
    /// What is going to be built.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let (firmware, vars, kernel) = match &self.boot {
            BootPlan::Firmware { image, vars, .. } => (Some(image.code.clone()), Some(vars.clone()), None),
            BootPlan::Kernel(kernel) => (None, None, Some(kernel.path().to_owned())),
        };
        let disks = (FIRST_DISK..).zip(&self.disks).map(|(device, disk)| DiskSummary {
            guest: format!("00:{device:02x}.0"),
            path: disk.image().path().to_owned(),
            size: disk.image().sectors() * 512,
            readonly: disk.image().readonly(),
        });
        let devices = self
            .devices
            .iter()
            .flat_map(|d| d.assignment.functions().iter().zip(&d.places))
            .map(|(function, place)| DeviceSummary {
                host: function.host.bdf.to_string(),
                group: function.host.group,
                guest: format!("port 00:{:02x}.0, function {}", place.port, place.function),
                class: format!("{:06x}", function.host.class),
            });
        Summary {
            name: self.config.name.clone(),
            cpus: self.config.cpus,
            phys_bits: self.phys_bits,
            memory: self.config.memory,
            memory_below_4g: self.ram.low,
            vars_to_be_created: vars.as_ref().is_some_and(|path| !path.exists()),
            firmware,
            vars,
            kernel,
            disks: disks.collect(),
            devices: devices.collect(),
            pci64_window: self.mmio64,
            hide_kvm: self.hide_kvm,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine    {}", self.name)?;
        writeln!(f, "vCPUs      {}, {} physical address bits", self.cpus, self.phys_bits)?;
        writeln!(
            f,
            "memory     {} MiB, {} below 4 GiB",
            self.memory >> 20,
            self.memory_below_4g >> 20
        )?;
        if let (Some(firmware), Some(vars)) = (&self.firmware, &self.vars) {
            writeln!(f, "firmware   {}", firmware.display())?;
            let state = if self.vars_to_be_created {
                ", to be created from the template"
            } else {
                ""
            };
            writeln!(f, "variables  {}{state}", vars.display())?;
        }
        if let Some(kernel) = &self.kernel {
            writeln!(f, "kernel     {}", kernel.display())?;
        }
        for disk in &self.disks {
            let mode = if disk.readonly { ", read-only" } else { "" };
            writeln!(
                f,
                "disk       {}  {} ({} MiB{mode})",
                disk.guest,
                disk.path.display(),
                disk.size >> 20
            )?;
        }
        for device in &self.devices {
            let group = device
                .group
                .map_or_else(String::new, |group| format!(", IOMMU group {group}"));
            writeln!(
                f,
                "device     {}  from {} (class {}{group})",
                device.guest, device.host, device.class
            )?;
        }
        writeln!(f, "PCI window {} GiB above RAM", self.pci64_window >> 30)?;
        writeln!(
            f,
            "KVM        {}",
            if self.hide_kvm {
                "hidden from the guest"
            } else {
                "visible to the guest"
            }
        )
    }
}
