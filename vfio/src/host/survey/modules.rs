//! The kernel modules that could drive a function, by the tables that depmod made for the running kernel.

use std::collections::HashMap;

use crate::host::{HostFunction, HostTree};

/// The candidates of the functions, in their order; each without doubles, in the order of the tables.
pub(super) fn of<'f>(tree: &HostTree, functions: impl Iterator<Item = &'f HostFunction> + Clone) -> Vec<Vec<String>> {
    let Some(folder) = folder(tree) else {
        return functions.map(|_| Vec::new()).collect();
    };
    let mut table = Table::new(functions.clone());
    if let Ok(file) = tree.bytes(format!("{folder}/modules.alias")) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &file).chain([file.len()]) {
            let line = file.get(start..end).unwrap_or_default();
            start = end + 1;
            if let Some((alias, module)) = line.strip_prefix(b"alias ").and_then(halves) {
                table.add(alias, module);
            }
        }
    }
    // What is compiled in says so in the same words, as `module.alias=pci:…`.
    if let Ok(file) = tree.bytes(format!("{folder}/modules.builtin.modinfo")) {
        for entry in file.split(|byte| *byte == 0) {
            if let Some(place) = entry.windows(7).position(|window| window == b".alias=") {
                let (module, alias) = entry.split_at(place);
                table.add(alias.get(7..).unwrap_or_default(), module);
            }
        }
    }
    functions.map(|function| table.candidates(function)).collect()
}

fn folder(tree: &HostTree) -> Option<String> {
    let release = tree.text("/proc/sys/kernel/osrelease").ok()?;
    ["/lib/modules", "/usr/lib/modules"]
        .iter()
        .map(|root| format!("{root}/{release}"))
        .find(|folder| tree.is_dir(folder))
}

fn halves(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let place = line.iter().position(|byte| *byte == b' ')?;
    let (alias, module) = line.split_at(place);
    Some((alias, module.trim_ascii()))
}

/// `pci:v00008086d00001E20sv*sd*bc*sc*i*`: what a module takes; `None` is anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Alias {
    vendor: Option<u32>,
    device: Option<u32>,
    sub_vendor: Option<u32>,
    sub_device: Option<u32>,
    base: Option<u32>,
    sub: Option<u32>,
    interface: Option<u32>,
}

impl Alias {
    fn parse(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(b"pci:")?;
        let (vendor, rest) = field(rest, b"v", 8)?;
        let (device, rest) = field(rest, b"d", 8)?;
        let (sub_vendor, rest) = field(rest, b"sv", 8)?;
        let (sub_device, rest) = field(rest, b"sd", 8)?;
        let (base, rest) = field(rest, b"bc", 2)?;
        let (sub, rest) = field(rest, b"sc", 2)?;
        let (interface, _) = field(rest, b"i", 2)?;
        Some(Self {
            vendor,
            device,
            sub_vendor,
            sub_device,
            base,
            sub,
            interface,
        })
    }

    /// Vendor and device are known to fit.
    fn fits(&self, function: &HostFunction) -> bool {
        let is = |wanted: Option<u32>, value: u32| wanted.is_none_or(|wanted| wanted == value);
        let (sub_vendor, sub_device) = function.subsystem.unwrap_or((0, 0));
        is(self.sub_vendor, sub_vendor.into())
            && is(self.sub_device, sub_device.into())
            && is(self.base, function.class >> 16)
            && is(self.sub, function.class >> 8 & 0xff)
            && is(self.interface, function.class & 0xff)
    }
}

fn field<'t>(text: &'t [u8], key: &[u8], digits: usize) -> Option<(Option<u32>, &'t [u8])> {
    let rest = text.strip_prefix(key)?;
    if let Some(rest) = rest.strip_prefix(b"*") {
        return Some((None, rest));
    }
    let (value, rest) = rest.split_at_checked(digits)?;
    let value = u32::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()?;
    Some((Some(value), rest))
}

/// More aliases of one vendor and device, or of a class, than any kernel has.
const MOST_ALIASES: usize = 4096;

/// More modules than any function has.
const MOST_MODULES: usize = 16;

/// Vendor and device of an alias.
type Key = (Option<u32>, Option<u32>);

/// The aliases that can matter to the functions at hand, with their modules.
#[derive(Debug)]
struct Table {
    entries: HashMap<Key, Vec<(Alias, String)>>,
}

impl Table {
    fn new<'f>(functions: impl Iterator<Item = &'f HostFunction>) -> Self {
        let mut entries: HashMap<_, Vec<_>> = HashMap::new();
        for function in functions {
            for key in keys(function) {
                entries.entry(key).or_default();
            }
        }
        Self { entries }
    }

    fn add(&mut self, alias: &[u8], module: &[u8]) {
        let Some(alias) = Alias::parse(alias) else { return };
        if let Some(list) = self.entries.get_mut(&(alias.vendor, alias.device))
            && list.len() < MOST_ALIASES
        {
            list.push((alias, String::from_utf8_lossy(module).into_owned()));
        }
    }

    fn candidates(&self, function: &HostFunction) -> Vec<String> {
        let mut modules: Vec<String> = Vec::new();
        for (alias, module) in keys(function).iter().filter_map(|key| self.entries.get(key)).flatten() {
            if alias.fits(function) && !modules.contains(module) && modules.len() < MOST_MODULES {
                modules.push(module.clone());
            }
        }
        modules
    }
}

/// What the function's aliases can be found under, the closest first.
fn keys(function: &HostFunction) -> [Key; 4] {
    let (vendor, device) = (Some(function.vendor.into()), Some(function.device.into()));
    [(vendor, device), (vendor, None), (None, device), (None, None)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Bdf;
    use vmm_sys_util::tempdir::TempDir;

    fn function(vendor: u16, device: u16, class: u32, subsystem: Option<(u16, u16)>) -> HostFunction {
        HostFunction {
            vendor,
            device,
            class,
            subsystem,
            ..HostFunction::from("01:00.0".parse::<Bdf>().unwrap())
        }
    }

    #[test]
    fn modules_are_found_by_id_class_and_subsystem() {
        let dir = TempDir::new().unwrap();
        let root = dir.as_path();
        std::fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(root.join("usr/lib/modules/6.1.0-9")).unwrap();
        std::fs::write(root.join("proc/sys/kernel/osrelease"), "6.1.0-9\n").unwrap();
        let aliases = "# Aliases extracted from modules themselves.\n\
            alias pci:v000010DEd*sv*sd*bc03sc00i00* nouveau\n\
            alias pci:v000010DEd*sv*sd*bc03sc00i00* nvidia\n\
            alias pci:v000010DEd00001401sv*sd*bc*sc*i* nvidia\n\
            alias pci:v*d*sv*sd*bc01sc08i02* nvme\n\
            alias pci:v00008086d00001E20sv00001849sd*bc*sc*i* snd_hda_intel\n\
            alias pci:v0000 broken\nalias pci:vZZZZZZZZd* broken\nalias usb:v10DE* other\nalias\n";
        std::fs::write(root.join("usr/lib/modules/6.1.0-9/modules.alias"), aliases).unwrap();
        std::fs::write(
            root.join("usr/lib/modules/6.1.0-9/modules.builtin.modinfo"),
            b"ahci.license=GPL\0ahci.alias=pci:v*d*sv*sd*bc01sc06i01*\0",
        )
        .unwrap();
        let tree = HostTree::at(root);
        for (given, expected) in [
            (function(0x10de, 0x1401, 0x03_0000, None), &["nvidia", "nouveau"][..]),
            (function(0x10de, 0x0fba, 0x04_0300, None), &[]),
            (function(0x144d, 0xa808, 0x01_0802, None), &["nvme"]),
            (
                function(0x8086, 0x1e20, 0x04_0300, Some((0x1849, 0x1e20))),
                &["snd_hda_intel"],
            ),
            (function(0x8086, 0x1e20, 0x04_0300, None), &[]),
            (function(0x8086, 0x1e02, 0x01_0601, None), &["ahci"]),
        ] {
            assert_eq!(of(&tree, [&given].into_iter()), [expected], "{given}");
        }
        assert_eq!(
            of(&HostTree::at("/nonexistent"), [&function(1, 2, 3, None)].into_iter()),
            [[""; 0]]
        );
    }
}
