//! PCI functions, their IOMMU groups and what is loaded for them, as `/sys` shows them.

use std::collections::BTreeMap;

use super::source::{Function, Host, Listed, listed};
use super::{HostError, Tree};

/// `IORESOURCE_*` of a BAR (`include/linux/ioport.h`).
mod flags {
    pub(super) const IO: u64 = 0x4_0101;
    pub(super) const MEMORY: u64 = 0x4_0200;
    pub(super) const PREFETCH: u64 = 0x2008;
    pub(super) const IS_64: u64 = 0x10_0004;
    pub(super) const ROM: u64 = 0x4_6200;
}

/// The first kernel with `reset_method`; `power_state` is a little older.
const RESET_METHOD: (u32, u32) = (5, 15);

/// The first kernel with a group's `reserved_regions`.
const RESERVED_REGIONS: (u32, u32) = (4, 11);

/// The MSI doorbell, which every group of x86 has.
const DOORBELL: &str = "0x00000000fee00000 0x00000000feefffff msi";

pub(super) fn put(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    let all: Vec<(&Function, Listed)> = host
        .functions
        .iter()
        .map(|function| Ok((function, listed(&function.lspci)?)))
        .collect::<Result<_, HostError>>()?;
    let mut groups: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (function, facts) in &all {
        let at = place(host, &facts.bdf)?;
        tree.link(format!("sys/bus/pci/devices/{}", facts.bdf), &at)?;
        let several = all
            .iter()
            .filter(|(_, other)| slot(&other.bdf) == slot(&facts.bdf))
            .count()
            > 1;
        identity(tree, &at, function, facts, several)?;
        state(tree, &at, function, facts, &host.kernel.release)?;
        if let Some(driver) = &function.driver {
            tree.directory(format!("sys/bus/pci/drivers/{driver}"))?;
            tree.link(format!("{at}/driver"), format!("sys/bus/pci/drivers/{driver}"))?;
            tree.link(format!("sys/bus/pci/drivers/{driver}/{}", facts.bdf), &at)?;
        }
        if let Some(group) = function.group {
            tree.link(format!("{at}/iommu_group"), format!("sys/kernel/iommu_groups/{group}"))?;
            tree.link(format!("sys/kernel/iommu_groups/{group}/devices/{}", facts.bdf), &at)?;
            groups.entry(group).or_default().push(at.clone());
        }
        displays(tree, &at, function)?;
    }
    iommu(host, tree, &groups)
}

/// Where a function stands in `/sys`: below the bridges that lead to its bus.
pub(super) fn place(host: &Host, bdf: &str) -> Result<String, HostError> {
    let mut names = vec![bdf.to_owned()];
    let mut here = bdf.to_owned();
    loop {
        let (domain, bus) = bus(&here);
        let above = host.functions.iter().find_map(|function| {
            let facts = listed(&function.lspci).ok()?;
            (function.secondary.as_deref() == Some(bus) && self::bus(&facts.bdf).0 == domain).then_some(facts.bdf)
        });
        match above {
            Some(bridge) if names.len() < 16 => {
                names.push(bridge.clone());
                here = bridge;
            }
            Some(bridge) => return Err(HostError::Wrong(format!("{bdf}: {bridge} leads to itself"))),
            None => {
                names.push(format!("pci{domain}:{bus}"));
                names.reverse();
                return Ok(format!("sys/devices/{}", names.join("/")));
            }
        }
    }
}

fn bus(bdf: &str) -> (&str, &str) {
    let (domain, rest) = bdf.split_once(':').unwrap_or(("0000", bdf));
    (domain, rest.split(':').next().unwrap_or("00"))
}

fn slot(bdf: &str) -> &str {
    bdf.rsplit_once('.').map_or(bdf, |(slot, _)| slot)
}

/// Whether the kernel is of this version or later; older ones lack some of the files.
fn since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

fn identity(tree: &mut Tree, at: &str, function: &Function, facts: &Listed, several: bool) -> Result<(), HostError> {
    let subsystem = function.subsystem.as_deref().unwrap_or("0000:0000");
    let (sub_vendor, sub_device) = subsystem
        .split_once(':')
        .and_then(|(vendor, device)| {
            Some((
                u16::from_str_radix(vendor, 16).ok()?,
                u16::from_str_radix(device, 16).ok()?,
            ))
        })
        .ok_or_else(|| HostError::Wrong(format!("{}: subsystem {subsystem}", facts.bdf)))?;
    let Listed {
        vendor, device, class, ..
    } = *facts;
    tree.file(format!("{at}/vendor"), format!("{vendor:#06x}\n"))?;
    tree.file(format!("{at}/device"), format!("{device:#06x}\n"))?;
    tree.file(format!("{at}/class"), format!("{class:#08x}\n"))?;
    tree.file(format!("{at}/revision"), format!("{:#04x}\n", facts.revision))?;
    tree.file(format!("{at}/subsystem_vendor"), format!("{sub_vendor:#06x}\n"))?;
    tree.file(format!("{at}/subsystem_device"), format!("{sub_device:#06x}\n"))?;
    let [_, base, sub, interface] = class.to_be_bytes();
    tree.file(
        format!("{at}/modalias"),
        format!(
            "pci:v{vendor:08X}d{device:08X}sv{sub_vendor:08X}sd{sub_device:08X}bc{base:02X}sc{sub:02X}i{interface:02X}\n"
        ),
    )?;

    let ranges = ranges(function, &facts.bdf)?;
    let lines: String = (0..13)
        .map(|index| {
            let (start, end, flags) = ranges.get(&index).copied().unwrap_or_default();
            format!("{start:#018x} {end:#018x} {flags:#018x}\n")
        })
        .collect();
    tree.file(format!("{at}/resource"), lines)?;

    let mut config = [0u8; 64];
    let mut set = |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
    set(0x00, &vendor.to_le_bytes());
    set(0x02, &device.to_le_bytes());
    set(0x04, &[0x07, 0x04, 0x10, 0x00]);
    set(0x08, &[facts.revision, interface, sub, base]);
    set(0x0e, &[u8::from(function.secondary.is_some()) | u8::from(several) << 7]);
    for (index, (start, _, flags)) in ranges.iter().filter(|(index, _)| **index < 6) {
        let low = u32::try_from(start & 0xffff_ffff).unwrap_or(0) | u32::try_from(flags & 0xf).unwrap_or(0) & 0xd;
        set(0x10 + 4 * index, &low.to_le_bytes());
    }
    if function.secondary.is_none() {
        set(0x2c, &sub_vendor.to_le_bytes());
        set(0x2e, &sub_device.to_le_bytes());
    }
    set(0x34, &[0x40]);
    set(0x3c, &[function.interrupt, 1]);
    tree.file(format!("{at}/config"), config)?;
    tree.file(format!("{at}/irq"), format!("{}\n", function.interrupt))
}

/// Start, end and flags by index, the ROM as the seventh.
fn ranges(function: &Function, bdf: &str) -> Result<BTreeMap<usize, (u64, u64, u64)>, HostError> {
    let mut ranges = BTreeMap::new();
    for (index, bar) in function.bars.iter().enumerate().filter(|(_, bar)| *bar != "-") {
        ranges.insert(
            index,
            range(bar).ok_or_else(|| HostError::Wrong(format!("{bdf}: BAR {bar}")))?,
        );
    }
    if let Some(rom) = &function.rom {
        let (start, end, _) = range(rom).ok_or_else(|| HostError::Wrong(format!("{bdf}: ROM {rom}")))?;
        ranges.insert(6, (start, end, flags::ROM));
    }
    Ok(ranges)
}

/// `e0000000 256M 64 pref`.
fn range(text: &str) -> Option<(u64, u64, u64)> {
    let mut words = text.split_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let size = words.next()?;
    let digits = size.trim_end_matches(['K', 'M', 'G']);
    let unit = match size.get(digits.len()..)? {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => 1 << 30,
    };
    let size = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    let kinds: Vec<&str> = words.collect();
    let mut flags = if kinds.contains(&"io") {
        flags::IO
    } else {
        flags::MEMORY
    };
    flags |= if kinds.contains(&"64") { flags::IS_64 } else { 0 };
    flags |= if kinds.contains(&"pref") { flags::PREFETCH } else { 0 };
    Some((start, start.checked_add(size)?.checked_sub(1)?, flags))
}

fn state(tree: &mut Tree, at: &str, function: &Function, facts: &Listed, release: &str) -> Result<(), HostError> {
    let bridge = function.secondary.is_some();
    let usual = if bridge { "" } else { "pm bus" };
    let reset = function.reset.as_deref().unwrap_or(usual);
    if !reset.is_empty() {
        tree.file(format!("{at}/reset"), "")?;
    }
    let power = function.power.as_deref().unwrap_or("D0");
    if since(release, RESET_METHOD) {
        tree.file(format!("{at}/power_state"), format!("{power}\n"))?;
        if !reset.is_empty() {
            tree.file(format!("{at}/reset_method"), format!("{reset}\n"))?;
        }
    }
    let running = if power == "D0" { "active" } else { "suspended" };
    tree.file(format!("{at}/power/runtime_status"), format!("{running}\n"))?;
    tree.file(format!("{at}/power/control"), "on\n")?;
    tree.file(format!("{at}/d3cold_allowed"), "1\n")?;
    tree.file(format!("{at}/enable"), "1\n")?;
    tree.file(format!("{at}/msi_bus"), "1\n")?;
    tree.file(format!("{at}/numa_node"), format!("{}\n", function.node.unwrap_or(-1)))?;
    let named = function.driver_override.as_deref().unwrap_or("(null)");
    tree.file(format!("{at}/driver_override"), format!("{named}\n"))?;
    if facts.class >> 8 == 0x0300 {
        let lit = u8::from(function.boot_vga.unwrap_or(false));
        tree.file(format!("{at}/boot_vga"), format!("{lit}\n"))?;
    }
    if let Some(link) = &function.link {
        tree.file(format!("{at}/current_link_speed"), format!("{}\n", link.speed))?;
        tree.file(format!("{at}/current_link_width"), format!("{}\n", link.width))?;
        tree.file(format!("{at}/max_link_speed"), format!("{}\n", link.max_speed))?;
        tree.file(format!("{at}/max_link_width"), format!("{}\n", link.max_width))?;
    }
    Ok(())
}

fn displays(tree: &mut Tree, at: &str, function: &Function) -> Result<(), HostError> {
    for (card, connectors) in &function.drm {
        let node = format!("{at}/drm/{card}");
        tree.link(format!("{node}/device"), at)?;
        tree.link(format!("sys/class/drm/{card}"), &node)?;
        for connector in connectors {
            let (name, status) = connector.split_once(' ').unwrap_or((connector, "unknown"));
            tree.file(format!("{node}/{card}-{name}/status"), format!("{status}\n"))?;
            tree.link(format!("sys/class/drm/{card}-{name}"), format!("{node}/{card}-{name}"))?;
        }
    }
    Ok(())
}

fn iommu(host: &Host, tree: &mut Tree, groups: &BTreeMap<u32, Vec<String>>) -> Result<(), HostError> {
    tree.directory("sys/kernel/iommu_groups")?;
    tree.directory("sys/class/iommu")?;
    let Some(iommu) = &host.iommu else {
        return match groups.keys().next() {
            Some(group) => Err(HostError::Wrong(format!("group {group} without an IOMMU"))),
            None => Ok(()),
        };
    };
    for group in groups.keys() {
        let at = format!("sys/kernel/iommu_groups/{group}");
        let mut regions = iommu.reserved.get(&group.to_string()).cloned().unwrap_or_default();
        regions.push(DOORBELL.into());
        regions.sort();
        if since(&host.kernel.release, RESERVED_REGIONS) {
            tree.file(format!("{at}/reserved_regions"), regions.join("\n") + "\n")?;
        }
        if let Some(domains) = &iommu.domains {
            tree.file(format!("{at}/type"), format!("{domains}\n"))?;
        }
    }
    for unit in &iommu.units {
        let at = format!("sys/devices/virtual/iommu/{unit}");
        tree.directory(&at)?;
        tree.link(format!("sys/class/iommu/{unit}"), &at)?;
    }
    if let Some(unit) = iommu.units.last() {
        for place in groups.values().flatten() {
            tree.link(format!("{place}/iommu"), format!("sys/devices/virtual/iommu/{unit}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_the_flags_of_the_kernel() {
        for (text, expected) in [
            ("e0000000 256M 64 pref", Some((0xe000_0000, 0xefff_ffff, 0x14_220c))),
            ("f6000000 16M", Some((0xf600_0000, 0xf6ff_ffff, 0x4_0200))),
            ("e000 128 io", Some((0xe000, 0xe07f, 0x4_0101))),
            (
                "4000000000 16G 64 pref",
                Some((0x40_0000_0000, 0x43_ffff_ffff, 0x14_220c)),
            ),
            ("e000", None),
            ("e000 0", Some((0xe000, 0xdfff, 0x4_0200))),
            ("ffffffffffffffff 2M", None),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    #[test]
    fn old_kernels_lack_newer_files() {
        for (release, expected) in [
            ("4.2.6-201.fc22.x86_64", false),
            ("5.14.0-1", false),
            ("5.15.91-1-lts", true),
            ("6", true),
        ] {
            assert_eq!(since(release, RESET_METHOD), expected, "{release}");
        }
    }
}
