//! One PCI function as the host's `/sys` shows it.

use std::fmt;
use std::path::Path;

use super::sysfs::{Bdf, SysfsError};
use super::tree::Folder;

/// One line of a function's `resource` file: an address range the host gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resource {
    /// First address.
    pub start: u64,
    /// Length in bytes; 0 where there is none.
    pub size: u64,
    /// Linux resource flags (`include/linux/ioport.h`).
    pub flags: u64,
}

impl Resource {
    /// Whether it is ports, not memory.
    pub fn is_io(&self) -> bool {
        self.flags & 0x100 != 0
    }

    /// Whether the BAR can have an address above 4 GiB.
    pub fn is_64bit(&self) -> bool {
        self.flags & 0x10_0000 != 0
    }

    /// Whether reads of it have no side effects.
    pub fn is_prefetchable(&self) -> bool {
        self.flags & 0x2000 != 0
    }
}

/// A PCI Express link, as trained and as its ends could at best.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The speed now, as Linux writes it (`8.0 GT/s PCIe`).
    pub speed: String,
    /// The lanes in use now.
    pub width: u32,
    /// The highest speed.
    pub max_speed: String,
    /// The most lanes.
    pub max_width: u32,
}

/// Virtual functions of a physical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sriov {
    /// How many are enabled now.
    pub enabled: u32,
    /// How many it can have.
    pub total: u32,
}

/// What the host knows about one PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFunction {
    /// Its address.
    pub bdf: Bdf,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor and device ID; `None` for what has none (bridges) or zeros.
    pub subsystem: Option<(u16, u16)>,
    /// Revision.
    pub revision: Option<u8>,
    /// Class code: base class, sub-class, programming interface (24 bits).
    pub class: u32,
    /// The driver bound now.
    pub driver: Option<String>,
    /// The only driver that may bind, where one was set.
    pub driver_override: Option<String>,
    /// Its IOMMU group; `None` where no IOMMU is active.
    pub group: Option<u32>,
    /// Whether the firmware lit the screen through it; `None` for what is not a VGA controller.
    pub boot_vga: Option<bool>,
    /// BARs 0–5 and the expansion ROM.
    pub resources: Vec<Resource>,
    /// How Linux would reset it, in order of preference; empty where it knows no way; `None` where it does not
    /// say: before Linux 5.15, and of a function read by itself also where there is no way.
    pub reset_methods: Option<Vec<String>>,
    /// `D0`, `D3hot`, `D3cold` and so on.
    pub power_state: Option<String>,
    /// Whether it may lose its power when idle.
    pub d3cold_allowed: Option<bool>,
    /// The NUMA node it hangs on; `None` where there is but one.
    pub numa_node: Option<u32>,
    /// Its PCI Express link; `None` where there is none, or where the function has no power and asking would wake it.
    pub link: Option<Link>,
    /// Its virtual functions, where it can have some.
    pub sriov: Option<Sriov>,
    /// The physical function it is a virtual one of.
    pub physical: Option<Bdf>,
    /// The next PCI function on the way to the CPU; `None` on a root bus.
    pub parent: Option<Bdf>,
}

/// A function with an address and nothing else known.
impl From<Bdf> for HostFunction {
    fn from(bdf: Bdf) -> Self {
        Self {
            bdf,
            vendor: 0,
            device: 0,
            subsystem: None,
            revision: None,
            class: 0,
            driver: None,
            driver_override: None,
            group: None,
            boot_vga: None,
            resources: Vec::new(),
            reset_methods: None,
            power_state: None,
            d3cold_allowed: None,
            numa_node: None,
            link: None,
            sriov: None,
            physical: None,
            parent: None,
        }
    }
}

impl HostFunction {
    /// The facts in the function's directory.
    pub(super) fn read(bdf: Bdf, folder: &Folder<'_>) -> Result<Self, SysfsError> {
        let optional = |name: &str| folder.attribute(name).ok();
        let number = |name: &str| optional(name).and_then(|text| hex(&text));
        let ids = Ids::read(folder)?;
        let power_state = optional("power_state");
        let driver_override = optional("driver_override").filter(|name| !name.is_empty() && name != "(null)");
        Ok(Self {
            vendor: ids.function.0,
            device: ids.function.1,
            subsystem: ids.subsystem.filter(|ids| *ids != (0, 0)),
            revision: number("revision").and_then(|revision| u8::try_from(revision).ok()),
            class: ids.class & 0xff_ffff,
            driver: folder.link_name("driver"),
            driver_override,
            group: folder.link_name("iommu_group").and_then(|name| name.parse().ok()),
            boot_vga: optional("boot_vga").map(|text| text == "1"),
            resources: optional("resource").map(|text| resources(&text)).unwrap_or_default(),
            reset_methods: optional("reset_method").map(|text| text.split_whitespace().map(str::to_owned).collect()),
            // To read the link of a function without power wakes it, which takes a second for a laptop's GPU.
            link: match power_state.as_deref() {
                Some("D3cold") => None,
                _ => link(folder),
            },
            power_state,
            d3cold_allowed: optional("d3cold_allowed").map(|text| text == "1"),
            // -1 where there are no nodes.
            numa_node: optional("numa_node").and_then(|text| text.parse().ok()),
            sriov: sriov(folder),
            physical: folder.link_name("physfn").and_then(|name| name.parse().ok()),
            parent: parent(folder.path()),
            ..Self::from(bdf)
        })
    }

    /// Whether it is a bridge of any kind (base class 0x06, PCI Code and ID Assignment 1.11 §1.7), never assigned.
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == 0x06
    }

    /// Whether it is a display controller (base class 0x03, §1.4 there).
    pub fn is_display(&self) -> bool {
        self.class >> 16 == 0x03
    }

    /// Whether it is bound to vfio-pci or one of its variants (`mlx5_vfio_pci` and the like).
    pub fn on_vfio(&self) -> bool {
        self.driver
            .as_deref()
            .is_some_and(|driver| driver == "vfio-pci" || driver.ends_with("vfio_pci"))
    }

    /// Whether it is bound to pci-stub, which keeps other drivers away and does nothing else.
    pub fn on_stub(&self) -> bool {
        self.driver.as_deref() == Some("pci-stub")
    }

    /// Whether it is kept from the host for a guest, by vfio-pci or by pci-stub.
    pub fn is_set_aside(&self) -> bool {
        self.on_vfio() || self.on_stub()
    }
}

impl fmt::Display for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{:04x}:{:04x}, ", self.bdf, self.vendor, self.device)?;
        match &self.driver {
            Some(driver) => write!(f, "driver {driver}]"),
            None => f.write_str("no driver]"),
        }
    }
}

/// What a function is.
struct Ids {
    function: (u16, u16),
    subsystem: Option<(u16, u16)>,
    class: u32,
}

impl Ids {
    /// From `uevent`, which has all of it in one file, or else from a file each.
    fn read(folder: &Folder<'_>) -> Result<Self, SysfsError> {
        if let Some(ids) = folder.attribute("uevent").ok().and_then(|text| Self::of_event(&text)) {
            return Ok(ids);
        }
        let number = |name: &str| folder.attribute(name).ok().and_then(|text| hex(&text));
        let subsystem = number("subsystem_vendor").zip(number("subsystem_device"));
        Ok(Self {
            function: (
                low_half(required(folder, "vendor")?),
                low_half(required(folder, "device")?),
            ),
            subsystem: subsystem.map(|(vendor, device)| (low_half(vendor), low_half(device))),
            class: required(folder, "class")?,
        })
    }

    fn of_event(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let pair = |key: &str| {
            let (vendor, device) = value(key)?.split_once(':')?;
            Some((
                u16::from_str_radix(vendor, 16).ok()?,
                u16::from_str_radix(device, 16).ok()?,
            ))
        };
        Some(Self {
            function: pair("PCI_ID=")?,
            subsystem: Some(pair("PCI_SUBSYS_ID=")?),
            class: hex(value("PCI_CLASS=")?)?,
        })
    }
}

fn low_half(value: u32) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(u16::MAX)
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn required(folder: &Folder<'_>, name: &str) -> Result<u32, SysfsError> {
    let path = || Path::new("/").join(folder.path()).join(name);
    let text = folder
        .attribute(name)
        .map_err(|source| SysfsError::Read { path: path(), source })?;
    hex(&text).ok_or_else(|| SysfsError::Number { path: path(), text })
}

/// `resource` holds a line `start end flags` for each BAR, the ROM and, on bridges, the windows.
fn resources(text: &str) -> Vec<Resource> {
    let value = |field: Option<&str>| -> Option<u64> { u64::from_str_radix(field?.trim_start_matches("0x"), 16).ok() };
    text.lines()
        .take(7)
        .map(|line| {
            let mut fields = line.split_whitespace();
            let (Some(start), Some(end), Some(flags)) =
                (value(fields.next()), value(fields.next()), value(fields.next()))
            else {
                return Resource::default();
            };
            let size = if flags == 0 {
                0
            } else {
                end.saturating_sub(start).saturating_add(1)
            };
            Resource { start, size, flags }
        })
        .collect()
}

/// Linux says `Unknown` and a width of 0 or 255 of what has no link, like what is built into the root complex.
fn link(folder: &Folder<'_>) -> Option<Link> {
    let max_speed = folder.attribute("max_link_speed").ok()?;
    let width = |name: &str| folder.attribute(name).ok().and_then(|text| text.parse::<u32>().ok());
    let max_width = width("max_link_width").filter(|width| (1..=32).contains(width))?;
    Some(Link {
        speed: folder.attribute("current_link_speed").unwrap_or_default(),
        width: width("current_link_width").unwrap_or(0),
        max_speed: Some(max_speed).filter(|speed| !speed.starts_with("Unknown"))?,
        max_width,
    })
}

fn sriov(folder: &Folder<'_>) -> Option<Sriov> {
    let count = |name: &str| folder.attribute(name).ok()?.parse().ok();
    Some(Sriov {
        total: count("sriov_totalvfs")?,
        enabled: count("sriov_numvfs").unwrap_or(0),
    })
}

/// The last but one address of `sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0`.
fn parent(path: &Path) -> Option<Bdf> {
    path.parent()?.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostTree;
    use vmm_sys_util::tempdir::TempDir;

    #[test]
    fn one_file_tells_what_five_do() {
        let dir = TempDir::new().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.as_path().join(name), text).unwrap();
        let tree = HostTree::at(dir.as_path());
        let read = || {
            let folder = tree.folder("/").unwrap();
            HostFunction::read("01:00.0".parse().unwrap(), &folder)
        };
        for (name, text) in [("vendor", "0x10de"), ("device", "0x1401"), ("class", "0x030000")] {
            assert!(read().is_err(), "without {name}");
            put(name, text);
        }
        put("subsystem_vendor", "0x3842");
        put("subsystem_device", "0x2966");
        let by_files = read().unwrap();
        for name in ["vendor", "device", "class", "subsystem_vendor", "subsystem_device"] {
            std::fs::remove_file(dir.as_path().join(name)).unwrap();
        }
        put(
            "uevent",
            "DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:1401\nPCI_SUBSYS_ID=3842:2966\nPCI_SLOT_NAME=0000:01:00.0\n",
        );
        assert_eq!(read().unwrap(), by_files);
        assert_eq!(by_files.subsystem, Some((0x3842, 0x2966)));
        put("uevent", "PCI_CLASS=30000\nPCI_ID=10DE\n");
        assert!(read().is_err());
    }
}
