//! Names from the PCI ID database: the host's own copy where it has one, which is newer more often than not, and for
//! what that does not know the copy that was compiled in.

use std::collections::{HashMap, HashSet};

use pci_ids::FromId;

use super::Names;
use crate::host::{HostFunction, HostTree};

/// Where distributions keep it: Fedora, Arch, openSUSE; then Debian and Ubuntu.
const FILES: [&str; 2] = ["/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids"];

/// The names of the functions, in their order.
pub(super) fn of<'f>(tree: &HostTree, functions: impl Iterator<Item = &'f HostFunction> + Clone) -> Vec<Names> {
    let file = FILES.iter().find_map(|path| tree.bytes(path).ok()).unwrap_or_default();
    let database = Database::read(&file, &Wanted::by(functions.clone()));
    functions.map(|function| database.names(function)).collect()
}

/// The IDs that are looked for; nothing else of the file is kept.
#[derive(Debug, Default)]
struct Wanted {
    vendors: HashSet<u16>,
    devices: HashSet<(u16, u16)>,
    subsystems: HashSet<[u16; 4]>,
}

impl Wanted {
    fn by<'f>(functions: impl Iterator<Item = &'f HostFunction>) -> Self {
        let mut wanted = Self::default();
        for HostFunction {
            vendor,
            device,
            subsystem,
            ..
        } in functions
        {
            wanted.vendors.insert(*vendor);
            wanted.devices.insert((*vendor, *device));
            if let Some((sub_vendor, sub_device)) = subsystem {
                wanted.vendors.insert(*sub_vendor);
                wanted.subsystems.insert([*vendor, *device, *sub_vendor, *sub_device]);
            }
        }
        wanted
    }
}

/// What was wanted of a `pci.ids` file (man 5 pci.ids).
#[derive(Debug, Default)]
struct Database {
    vendors: HashMap<u16, String>,
    devices: HashMap<(u16, u16), String>,
    subsystems: HashMap<[u16; 4], String>,
    /// Base class and sub-class; the base class alone has no sub-class.
    classes: HashMap<(u8, Option<u8>), String>,
}

/// Which of the two lists of the file a line is in, and below what.
#[derive(Debug, Clone, Copy)]
enum Below {
    Nothing,
    Vendor(u16),
    Device(u16, u16),
    Class(u8),
}

impl Database {
    fn read(file: &[u8], wanted: &Wanted) -> Self {
        let mut database = Self::default();
        let mut below = Below::Nothing;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', file).chain([file.len()]) {
            let line = file.get(start..end).unwrap_or_default();
            below = database.line(line, below, wanted);
            start = end + 1;
        }
        database
    }

    fn line(&mut self, line: &[u8], below: Below, wanted: &Wanted) -> Below {
        match (line, below) {
            ([] | [b'#', ..], _) | ([b'\t', ..], Below::Nothing) => return below,
            ([b'\t', b'\t', rest @ ..], Below::Device(vendor, device)) => {
                if let Some((id, name)) = subsystem(rest)
                    && let [sub_vendor, sub_device] = id
                    && wanted.subsystems.contains(&[vendor, device, sub_vendor, sub_device])
                {
                    self.subsystems
                        .insert([vendor, device, sub_vendor, sub_device], text(name));
                }
            }
            ([b'\t', b'\t', ..], _) => (),
            ([b'\t', rest @ ..], Below::Vendor(vendor) | Below::Device(vendor, _)) => {
                let Some((device, name)) = entry(rest, 4) else {
                    return below;
                };
                if !wanted.devices.contains(&(vendor, device)) {
                    return Below::Vendor(vendor);
                }
                self.devices.insert((vendor, device), text(name));
                return Below::Device(vendor, device);
            }
            ([b'\t', rest @ ..], Below::Class(class)) => {
                if let Some((sub, name)) = entry(rest, 2) {
                    self.classes.insert((class, u8::try_from(sub).ok()), text(name));
                }
            }
            ([b'C', b' ', rest @ ..], _) => {
                let Some((class, name)) = entry(rest, 2) else {
                    return Below::Nothing;
                };
                let class = u8::try_from(class).unwrap_or(u8::MAX);
                self.classes.insert((class, None), text(name));
                return Below::Class(class);
            }
            (line, _) => {
                return match entry(line, 4) {
                    Some((vendor, name)) if wanted.vendors.contains(&vendor) => {
                        self.vendors.insert(vendor, text(name));
                        Below::Vendor(vendor)
                    }
                    _ => Below::Nothing,
                };
            }
        }
        below
    }

    fn names(&self, function: &HostFunction) -> Names {
        let HostFunction { vendor, device, .. } = *function;
        let subsystem = function.subsystem;
        Names {
            vendor: self.vendor(vendor),
            device: self
                .devices
                .get(&(vendor, device))
                .cloned()
                .or_else(|| Some(pci_ids::Device::from_vid_pid(vendor, device)?.name().to_owned())),
            subsystem_vendor: subsystem.and_then(|(sub_vendor, _)| self.vendor(sub_vendor)),
            subsystem: subsystem.and_then(|(sub_vendor, sub_device)| {
                let known = self.subsystems.get(&[vendor, device, sub_vendor, sub_device]);
                known
                    .cloned()
                    .or_else(|| compiled_in((vendor, device), (sub_vendor, sub_device)))
            }),
            class: self.class(function.class),
        }
    }

    fn vendor(&self, id: u16) -> Option<String> {
        let known = self.vendors.get(&id).cloned();
        known.or_else(|| Some(pci_ids::Vendor::from_id(id)?.name().to_owned()))
    }

    /// The sub-class if it has a name, else the base class.
    fn class(&self, class: u32) -> Option<String> {
        let [_, base, sub, _] = class.to_be_bytes();
        self.classes
            .get(&(base, Some(sub)))
            .cloned()
            .or_else(|| Some(pci_ids::Subclass::from_cid_sid(base, sub)?.name().to_owned()))
            .or_else(|| self.classes.get(&(base, None)).cloned())
            .or_else(|| Some(pci_ids::Class::from_id(base)?.name().to_owned()))
    }
}

fn compiled_in((vendor, device): (u16, u16), subsystem: (u16, u16)) -> Option<String> {
    pci_ids::Device::from_vid_pid(vendor, device)?
        .subsystems()
        .find(|known| (known.subvendor(), known.subdevice()) == subsystem)
        .map(|known| known.name().to_owned())
}

/// `8086  Intel Corporation` with so many digits.
fn entry(line: &[u8], digits: usize) -> Option<(u16, &[u8])> {
    let (id, rest) = line.split_at_checked(digits)?;
    let id = u16::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?;
    Some((id, rest.strip_prefix(b"  ")?))
}

/// `1849 1e20  Z77 Extreme4`.
fn subsystem(line: &[u8]) -> Option<([u16; 2], &[u8])> {
    let (vendor, rest) = line.split_at_checked(4)?;
    let vendor = u16::from_str_radix(std::str::from_utf8(vendor).ok()?, 16).ok()?;
    let (device, name) = entry(rest.strip_prefix(b" ")?, 4)?;
    Some(([vendor, device], name))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name.trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Bdf;
    use vmm_sys_util::tempdir::TempDir;

    fn gpu() -> HostFunction {
        HostFunction {
            vendor: 0x10de,
            device: 0x1401,
            subsystem: Some((0x1849, 0x1e20)),
            class: 0x03_0000,
            ..HostFunction::from("01:00.0".parse::<Bdf>().unwrap())
        }
    }

    #[test]
    fn the_hosts_own_names_come_first() {
        let dir = TempDir::new().unwrap();
        let folder = dir.as_path().join("usr/share/misc");
        std::fs::create_dir_all(&folder).unwrap();
        let file = "# comment\n\t\tstray\n10de  NVIDIA, newly named\n\t1400  Other\n\t\t1849 1e20  Not this\n\t1401  GM206 here\n\
                    \t\t1849 1e20  Extreme\n\t\t1849\nffff\n\tzzzz\nC 03  Display\n\t00  VGA thing\nC 0\n";
        std::fs::write(folder.join("pci.ids"), file).unwrap();
        let unknown = HostFunction {
            vendor: 0x8086,
            device: 0x1e20,
            class: 0x04_0300,
            ..HostFunction::from("00:1b.0".parse::<Bdf>().unwrap())
        };
        let names = of(&HostTree::at(dir.as_path()), [&gpu(), &unknown].into_iter());
        let first = &names[0];
        assert_eq!(first.vendor.as_deref(), Some("NVIDIA, newly named"));
        assert_eq!(first.device.as_deref(), Some("GM206 here"));
        assert_eq!(first.subsystem.as_deref(), Some("Extreme"));
        assert_eq!(first.class.as_deref(), Some("VGA thing"));
        assert_eq!(first.subsystem_vendor.as_deref(), Some("ASRock Incorporation"));
        assert_eq!(names[1].vendor.as_deref(), Some("Intel Corporation"));
        assert!(names[1].device.as_deref().unwrap().contains("7 Series"));
        assert_eq!(names[1].class.as_deref(), Some("Audio device"));
    }

    #[test]
    fn without_a_file_there_are_names_too() {
        let names = of(&HostTree::at("/nonexistent"), [&gpu()].into_iter());
        assert_eq!(names[0].device.as_deref(), Some("GM206 [GeForce GTX 960]"));
        assert_eq!(names[0].class.as_deref(), Some("VGA compatible controller"));
    }
}
