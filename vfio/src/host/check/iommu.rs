//! The IOMMU: in the firmware's tables, turned on by the kernel, and how far it reaches.

use super::{Facts, Finding, Requirement, Section, Vendor};

pub(super) const FIRMWARE: Requirement = Requirement {
    id: "iommu-firmware",
    title: "IOMMU in firmware",
    section: Section::Iommu,
    look: firmware,
};

const TABLES: &str = "/sys/firmware/acpi/tables";

/// The ACPI table by which the firmware tells of an IOMMU, if it does; `None` where the tables cannot be listed.
pub(super) fn table(facts: &Facts) -> Option<Option<&'static str>> {
    let names = facts.tree.list(TABLES).ok()?;
    Some(
        ["DMAR", "IVRS", "VIOT"]
            .into_iter()
            .find(|table| names.iter().any(|name| name == table)),
    )
}

fn setup(facts: &Facts) -> &'static str {
    let nested = facts
        .processor
        .as_ref()
        .is_some_and(|processor| processor.has("hypervisor"));
    match facts.vendor() {
        _ if nested => "give this virtual machine an IOMMU (QEMU: -device intel-iommu,intremap=on,caching-mode=on)",
        Vendor::Intel => "turn on `VT-d` (Intel Virtualization Technology for Directed I/O) in the firmware setup",
        Vendor::Amd => "set `IOMMU` to Enabled (not Auto) in the firmware setup, often under AMD CBS, NBIO",
        Vendor::Other => "turn on the IOMMU (VT-d, AMD-Vi) in the firmware setup",
    }
}

fn firmware(facts: &Facts) -> Vec<Finding> {
    vec![match table(facts) {
        Some(Some(table)) => Finding::pass(format!("ACPI table {table}")),
        // What the kernel made of it is proof enough.
        None if !facts.survey.groups.is_empty() => Finding::pass("not listed, but the kernel found one"),
        None => facts.not_said("the firmware's ACPI tables"),
        Some(None) if !facts.survey.groups.is_empty() => {
            Finding::pass("no table DMAR or IVRS, but the kernel found one")
        }
        Some(None) => Finding::fail("no ACPI table DMAR or IVRS: the firmware tells of no IOMMU")
            .remedy(setup(facts))
            .symptom("no-iommu"),
    }]
}

pub(super) const ENABLED: Requirement = Requirement {
    id: "iommu",
    title: "IOMMU in use",
    section: Section::Iommu,
    look: enabled,
};

fn enabled(facts: &Facts) -> Vec<Finding> {
    let groups = facts.survey.groups.len();
    if groups > 0 {
        let functions = facts.survey.functions.len();
        return vec![Finding::pass(format!("{groups} groups for {functions} functions"))];
    }
    let told = |name: &str, value: &str| facts.arguments.as_ref().is_some_and(|all| all.has(name, value));
    let remedy = match facts.vendor() {
        _ if told("iommu", "off") => "take iommu=off off the kernel command line".to_owned(),
        Vendor::Amd if told("amd_iommu", "off") => "take amd_iommu=off off the kernel command line".to_owned(),
        Vendor::Intel if told("intel_iommu", "off") => {
            "take intel_iommu=off off the kernel command line, and put intel_iommu=on there".to_owned()
        }
        Vendor::Intel if !told("intel_iommu", "on") => match table(facts) {
            Some(None) => "once the firmware has it, boot with intel_iommu=on: `tenon boot-args` prints how".to_owned(),
            _ => "boot with intel_iommu=on: `tenon boot-args` prints how".to_owned(),
        },
        _ if table(facts) == Some(None) => "it is in use once the firmware tells of it".to_owned(),
        _ => setup(facts).to_owned(),
    };
    vec![
        Finding::fail("no IOMMU groups: the kernel uses no IOMMU")
            .remedy(remedy)
            .symptom("no-iommu"),
    ]
}

pub(super) const WIDTH: Requirement = Requirement {
    id: "iommu-width",
    title: "IOMMU width",
    section: Section::Iommu,
    look: width,
};

/// Below this a guest with a large GPU and much memory runs out of addresses.
const ROOMY: u32 = 40;

fn width(facts: &Facts) -> Vec<Finding> {
    let units = facts.tree.list("/sys/class/iommu").unwrap_or_default();
    let narrowest = units
        .iter()
        .filter_map(|unit| facts.tree.text(format!("/sys/class/iommu/{unit}/intel-iommu/cap")).ok())
        .filter_map(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok())
        .map(address_bits)
        .min();
    match narrowest {
        None => Vec::new(),
        Some(bits) if bits >= ROOMY => vec![Finding::pass(format!("{bits} bits"))],
        // Enough for all but the largest GPUs, so that nothing needs to be done.
        Some(bits) => vec![
            Finding::pass(format!(
                "{bits} bits: guests get no more, {} GiB for memory and BARs",
                1u64.checked_shl(bits.saturating_sub(30)).unwrap_or(0)
            ))
            .symptom("iommu-reach"),
        ],
    }
}

/// What a VT-d unit can map by its capability register (VT-d 4.1, §11.4.2): the guest address width MGAW, or what its
/// page tables (SAGAW) have levels for, where that is less.
fn address_bits(capability: u64) -> u32 {
    let field = |low: u32, bits: u32| u32::try_from(capability >> low & ((1 << bits) - 1)).unwrap_or(0);
    let most = field(16, 6) + 1;
    let levels = field(8, 5);
    let tables = [(1 << 3, 57), (1 << 2, 48), (1 << 1, 39)];
    let by_tables = tables
        .iter()
        .find(|(bit, _)| levels & bit != 0)
        .map_or(most, |(_, bits)| *bits);
    most.min(by_tables)
}

#[cfg(test)]
mod tests {
    use super::address_bits;

    #[test]
    fn the_width_is_read_as_the_manual_has_it() {
        // Ivy Bridge graphics unit, its other unit; a server.
        assert_eq!(address_bits(0x00c0_000c_0230_42f2 & !0x3f_0000 | 0x26_0000), 39);
        assert_eq!(address_bits(0x00d2_0080_20e6_0262), 39);
        assert_eq!(address_bits(0x08d2_078c_106f_0466), 48);
        assert_eq!(address_bits(0), 1);
        assert_eq!(address_bits(u64::MAX), 57);
    }
}
