//! The form of a description, in TOML. What it leaves out gets the value that most hosts have.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::HostError;

/// A host.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// What it is, in a line.
    pub title: String,
    /// Where the listings are published.
    pub sources: Vec<String>,
    /// What is quoted from there.
    pub quoted: String,
    /// What is not, and was filled in as such a machine has it.
    pub filled_in: String,
    /// The kernel.
    pub kernel: Kernel,
    /// Processor, board and memory.
    pub machine: Machine,
    /// `os-release`.
    pub os: String,
    /// The IOMMU; none where the kernel has none.
    pub iommu: Option<Iommu>,
    /// PCI functions.
    #[serde(rename = "function")]
    pub functions: Vec<Function>,
    /// Disks with a controller of their own.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
    /// Block devices made of others: LVM, LUKS, md.
    #[serde(default, rename = "stacked")]
    pub stacked: Vec<Stacked>,
    /// What is mounted.
    #[serde(default, rename = "mount")]
    pub mounts: Vec<Mount>,
    /// Block devices that are swapped to.
    #[serde(default)]
    pub swaps: Vec<String>,
    /// Network interfaces.
    #[serde(default, rename = "net")]
    pub nets: Vec<Net>,
    /// Other files, by path.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// The kernel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Its command line.
    pub cmdline: String,
    /// Lines of its log.
    #[serde(default)]
    pub log: String,
    /// Modules that are loaded.
    #[serde(default)]
    pub loaded: Vec<String>,
    /// Modules that are built in.
    #[serde(default)]
    pub builtin: Vec<String>,
    /// Modules that could be loaded, besides those that are.
    #[serde(default)]
    pub loadable: Vec<String>,
    /// Their parameters, as `module.name`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Lockdown, if the kernel has it.
    pub lockdown: Option<String>,
}

/// The machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Who makes the board.
    pub vendor: String,
    /// The board.
    pub board: String,
    /// SMBIOS chassis type: 3 desktop, 10 notebook, 23 rack.
    pub chassis: u8,
    /// The processor's name.
    pub processor: String,
    /// Logical processors.
    pub threads: u32,
    /// `svm` or `vmx`, and whatever else matters.
    pub flags: String,
    /// Memory in GiB.
    pub memory: u64,
    /// 2 MiB pages set aside.
    #[serde(default)]
    pub huge_pages: u64,
}

/// The IOMMU.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Iommu {
    /// Its units: `dmar0` and so on for Intel, `ivhd0` for AMD.
    pub units: Vec<String>,
    /// The type of each group's domain: `DMA`, `DMA-FQ`, `identity`.
    #[serde(default)]
    pub domains: Option<String>,
    /// Reserved regions of groups beside that of the MSI doorbell.
    #[serde(default)]
    pub reserved: BTreeMap<String, Vec<String>>,
}

/// A PCI function.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The line of `lspci -nn`.
    pub lspci: String,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its driver.
    pub driver: Option<String>,
    /// Modules that would drive it.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Of a bridge: the bus behind it.
    pub secondary: Option<String>,
    /// Subsystem.
    pub subsystem: Option<String>,
    /// BARs from 0 on, as `e0000000 256M 64 pref`, `e000 128 io`, `-`.
    #[serde(default)]
    pub bars: Vec<String>,
    /// The expansion ROM, as `f7000000 512K`.
    pub rom: Option<String>,
    /// Of a VGA controller: whether the firmware used it.
    pub boot_vga: Option<bool>,
    /// How the kernel resets it; empty: not at all. Left out: `pm bus`, and nothing for a bridge.
    pub reset: Option<String>,
    /// What `driver_override` says.
    pub driver_override: Option<String>,
    /// `D0`, `D3hot`, `D3cold`.
    pub power: Option<String>,
    /// NUMA node.
    pub node: Option<i32>,
    /// Its link.
    pub link: Option<Link>,
    /// DRM nodes and what their connectors say: `card0` to `["HDMI-A-1 connected"]`.
    #[serde(default)]
    pub drm: BTreeMap<String, Vec<String>>,
    /// Its interrupt line.
    #[serde(default)]
    pub interrupt: u8,
}

/// A PCIe link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// `8.0 GT/s PCIe`.
    pub speed: String,
    /// Lanes.
    pub width: u8,
    /// The fastest it can.
    pub max_speed: String,
    /// The most lanes.
    pub max_width: u8,
}

/// A disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// `sda`, `nvme0n1`.
    pub name: String,
    /// `8:0`.
    pub number: String,
    /// The function it is behind.
    pub on: String,
    /// What stands between in `/sys`: `ata1/host0/target0:0:0/0:0:0:0`, `nvme/nvme0`.
    pub through: String,
    /// Its partitions.
    #[serde(default)]
    pub partitions: Vec<String>,
}

/// A block device made of others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stacked {
    /// `dm-0`, `md0`.
    pub name: String,
    /// `253:0`.
    pub number: String,
    /// What it is made of.
    pub of: Vec<String>,
    /// Its name to device-mapper.
    pub label: Option<String>,
    /// What its device-mapper UUID begins with: `LVM`, `CRYPT-LUKS2`.
    pub kind: Option<String>,
}

/// A mount.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where.
    pub at: String,
    /// `/dev/mapper/root`.
    pub source: String,
    /// The block device; none for what has none of its own, as btrfs.
    pub device: Option<String>,
    /// `ext4`.
    pub kind: String,
}

/// A network interface.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// `enp3s0`.
    pub name: String,
    /// The function it is; none for a bridge or bond.
    pub on: Option<String>,
    /// The bridge or bond that has it.
    pub master: Option<String>,
    /// `bridge` or `bond` for what has others.
    pub kind: Option<String>,
    /// Whether the default route goes through it.
    #[serde(default)]
    pub default_route: bool,
}

/// Reads a description.
///
/// # Errors
/// It is not of this form.
pub fn parse(text: &str) -> Result<Host, HostError> {
    Ok(toml::from_str(text)?)
}

/// What the line of `lspci -nn` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// `0000:01:00.0`.
    pub bdf: String,
    /// Class, sub-class and programming interface; the usual one unless `(prog-if xx)` is said.
    pub class: u32,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
}

/// Reads a line such as `01:00.1 Audio device [0403]: NVIDIA Corporation GM206 [10de:0fba] (rev a1)`.
///
/// # Errors
/// It is not such a line.
pub fn listed(line: &str) -> Result<Listed, HostError> {
    parts(line).ok_or_else(|| HostError::Wrong(format!("`{line}` is no line of `lspci -nn`")))
}

fn parts(line: &str) -> Option<Listed> {
    let (bdf, rest) = line.split_once(' ')?;
    let bdf = if bdf.matches(':').count() == 1 {
        format!("0000:{bdf}")
    } else {
        bdf.to_owned()
    };
    let (class, rest) = rest.split_once("]: ")?;
    let class = class.rsplit_once('[')?.1;
    let after = |mark: &str| Some(rest.split_once(mark)?.1.get(..2)?.to_owned());
    let revision = after("(rev ").unwrap_or_else(|| "00".into());
    // `lspci -nn` leaves the programming interface out.
    let interface = after("(prog-if ").unwrap_or_else(|| {
        match class {
            "0106" => "01",
            "0108" => "02",
            "0c03" => "30",
            _ => "00",
        }
        .into()
    });
    let ids = rest
        .rsplit('[')
        .filter_map(|part| part.split_once(']')?.0.split_once(':'))
        .find(|(vendor, device)| vendor.len() == 4 && device.len() == 4)?;
    Some(Listed {
        bdf,
        class: u32::from_str_radix(&format!("{class}{interface}"), 16).ok()?,
        vendor: u16::from_str_radix(ids.0, 16).ok()?,
        device: u16::from_str_radix(ids.1, 16).ok()?,
        revision: u8::from_str_radix(&revision, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_lspci_are_read() {
        let gpu = listed(
            "01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GM206 [GeForce GTX 960] [10de:1401] (rev a1)",
        );
        let expected = Listed {
            bdf: "0000:01:00.0".into(),
            class: 0x03_0000,
            vendor: 0x10de,
            device: 0x1401,
            revision: 0xa1,
        };
        assert_eq!(gpu.unwrap(), expected);
        let usb = listed("10000:e1:00.0 USB controller [0c03]: Intel [8086:1e26] (rev 11) (prog-if 20)").unwrap();
        assert_eq!(
            (usb.bdf.as_str(), usb.class, usb.revision),
            ("10000:e1:00.0", 0x0c_0320, 0x11)
        );
        assert!(listed("01:00.0 VGA compatible controller: NVIDIA Corporation").is_err());
    }
}
