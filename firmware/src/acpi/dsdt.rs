//! The differentiated system description table: the devices an operating system cannot find by itself.
//!
//! AML kept to what Windows' stricter interpreter takes: a `_HID` or `_ADR` on every device, `_UID` unique per `_HID`,
//! function `0xFFFF` in `_PRT`, no window empty or overlapping.

use acpi_tables::{
    Aml, AmlSink,
    aml::{
        AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO, If, Local,
        Memory32Fixed, Method, Name, NotEqual, ONE, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Scope,
        Store, Uuid, ZERO,
    },
};

use super::{Platform, PortRange, bytes_of, fixed};
use crate::AddressRange;

/// Slots on the root bus.
const SLOTS: u32 = 32;
/// Interrupt pins of a function.
const PINS: u32 = 4;

/// `_OSC` for PCI host bridges (PCI Firmware 3.3 §4.5.1).
const OSC_UUID: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";

/// The IOAPIC pin of an interrupt pin (0 is INTA) of a function in `slot` of the root bus: 16 to 19.
///
/// A function behind a root port in slot s is swizzled onto the port's own pins: its pin p at device 0 is the port's
/// pin p, hence `intx_gsi(s, p)` as well.
#[must_use]
pub const fn intx_gsi(slot: u8, pin: u8) -> u32 {
    16 + (slot as u32 + pin as u32) % PINS
}

/// The DSDT, revision 2: integers have 64 bits.
pub(super) fn build(platform: &Platform<'_>) -> Vec<u8> {
    let mut dsdt = fixed::table(*b"DSDT", 36, 2, &platform.oem);
    let mut aml = Vec::new();
    interrupt_model(&mut aml);
    // Soft-off is SLP_TYP 0: what OVMF itself writes to power off (edk2 OvmfPkg/Library/ResetSystemLib).
    Name::new("_S5_".into(), &Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut aml);
    system_bus(platform, &mut aml);
    dsdt.append_slice(&aml);
    dsdt.as_slice().to_vec()
}

/// `\_PIC`: the operating system says whether it uses the IOAPIC. Kept only for the asking.
fn interrupt_model(aml: &mut Vec<u8>) {
    Name::new("PICM".into(), &ZERO).to_aml_bytes(aml);
    Method::new("_PIC".into(), 1, false, vec![&Store::new(&Path::new("PICM"), &Arg(0))]).to_aml_bytes(aml);
}

fn system_bus(platform: &Platform<'_>, aml: &mut Vec<u8>) {
    let mut children = Raw::default();
    children.push(&Raw(host_bridge(platform)));
    children.push(&Raw(motherboard(platform)));
    for uid in 0..platform.cpus.len() {
        let name = format!("C{uid:03X}");
        let hid = Name::new("_HID".into(), &"ACPI0007");
        children.push(&Device::new(
            name.as_str().into(),
            vec![&hid, &Name::new("_UID".into(), &uid)],
        ));
    }
    Scope::new("_SB_".into(), vec![&children]).to_aml_bytes(aml);
}

fn host_bridge(platform: &Platform<'_>) -> Vec<u8> {
    bytes_of(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_CRS".into(), &Raw(host_bridge_resources(platform))),
            &Name::new("_PRT".into(), &Raw(interrupt_routing())),
            &Raw(operating_system_capabilities(platform.osc_control)),
            &Raw(isa_bridge(platform)),
        ],
    ))
}

fn host_bridge_resources(platform: &Platform<'_>) -> Vec<u8> {
    let last_bus = platform.ecam.map_or(255, |ecam| ecam.buses.saturating_sub(1).min(255));
    let mut resources = Raw::default();
    resources.push(&AddressSpace::new_bus_number(0u16, last_bus));
    // The configuration mechanism: consumed by the bridge itself.
    resources.push(&IO::new(0xcf8, 0xcf8, 1, 8));
    for ports in platform.io_windows {
        resources.push(&AddressSpace::new_io(ports.first, ports.last, None));
    }
    let kind = AddressSpaceCacheable::NotCacheable;
    for window in platform.mmio32 {
        let (first, last) = (window.base as u32, (window.base + (window.size - 1)) as u32);
        resources.push(&AddressSpace::new_memory(kind, true, first, last, None));
    }
    for window in platform.mmio64 {
        let last = window.base + (window.size - 1);
        resources.push(&AddressSpace::new_memory(kind, true, window.base, last, None));
    }
    resources.template()
}

/// `_PRT` with IOAPIC pins in place of link devices (ACPI 6.5 §6.2.13): level, active low by definition.
fn interrupt_routing() -> Vec<u8> {
    let mut routes = PackageBuilder::new();
    for slot in 0..SLOTS {
        for pin in 0..PINS {
            let (address, gsi) = (slot << 16 | 0xffff, intx_gsi(slot as u8, pin as u8));
            routes.add_element(&Package::new(vec![&address, &(pin as u8), &ZERO, &(gsi as u8)]));
        }
    }
    bytes_of(&routes)
}

/// `_OSC`: grants of the controls asked for those in `mask`; says so when that was less (PCI Firmware 3.3 §4.5.1).
fn operating_system_capabilities(mask: u32) -> Vec<u8> {
    let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
    let uuid = Uuid::new(OSC_UUID);
    bytes_of(&Method::new(
        "_OSC".into(),
        4,
        true,
        vec![
            &CreateDWordField::new(&status, &Arg(3), &ZERO),
            &If::new(
                &Equal::new(&Arg(0), &uuid),
                vec![
                    &CreateDWordField::new(&control, &Arg(3), &8u8),
                    &And::new(&Local(0), &control, &mask),
                    // Bit 3: a revision we do not know. Bit 4: controls withheld.
                    &If::new(&NotEqual::new(&Arg(1), &ONE), vec![&Or::new(&status, &status, &8u8)]),
                    &If::new(
                        &NotEqual::new(&Local(0), &control),
                        vec![&Or::new(&status, &status, &16u8)],
                    ),
                    &Store::new(&control, &Local(0)),
                ],
            ),
            // Bit 2: a UUID we do not know.
            &Else::new(vec![&Or::new(&status, &status, &4u8)]),
            &Return::new(&Arg(3)),
        ],
    ))
}

/// The LPC bridge at 00:1F.0 and what hangs off it.
fn isa_bridge(platform: &Platform<'_>) -> Vec<u8> {
    let mut children = Raw::default();
    children.push(&Name::new("_ADR".into(), &0x001f_0000u32));
    children.push(&isa_device(
        "RTC_",
        "PNP0B00",
        0,
        &[PortRange {
            first: 0x70,
            last: 0x77,
        }],
        Some(8),
    ));
    if platform.i8042 {
        let ports = [
            PortRange {
                first: 0x60,
                last: 0x60,
            },
            PortRange {
                first: 0x64,
                last: 0x64,
            },
        ];
        children.push(&isa_device("KBD_", "PNP0303", 0, &ports, Some(1)));
        // The mouse shares the keyboard's ports, which only one device may claim.
        children.push(&isa_device("MOU_", "PNP0F13", 0, &[], Some(12)));
    }
    if platform.serial {
        children.push(&isa_device(
            "COM1",
            "PNP0501",
            1,
            &[PortRange {
                first: 0x3f8,
                last: 0x3ff,
            }],
            Some(4),
        ));
    }
    // Ports no other device may be given: power management and fw_cfg.
    let pm = PortRange {
        first: platform.pm_base,
        last: platform.pm_base.saturating_add(0x7f),
    };
    let ports = [
        pm,
        PortRange {
            first: 0x510,
            last: 0x51b,
        },
    ];
    children.push(&isa_device("MBIO", "PNP0C02", 1, &ports, None));
    bytes_of(&Device::new("ISA_".into(), vec![&children]))
}

fn isa_device(name: &str, hid: &str, uid: u8, ports: &[PortRange], irq: Option<u8>) -> Raw {
    let mut resources = Raw::default();
    for range in ports {
        let length = (range.last - range.first + 1) as u8;
        resources.push(&IO::new(range.first, range.first, 1, length));
    }
    if let Some(irq) = irq {
        resources.push(&Irq(irq));
    }
    Raw(bytes_of(&Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(hid)),
            &Name::new("_UID".into(), &uid),
            &Name::new("_STA".into(), &0xfu8),
            &Name::new("_CRS".into(), &Raw(resources.template())),
        ],
    )))
}

/// Memory nobody may use: the ECAM window (Windows and Linux both look for it here) and what the machine reserves.
fn motherboard(platform: &Platform<'_>) -> Vec<u8> {
    let mut resources = Raw::default();
    for range in platform.ecam.map(|ecam| ecam.range()).iter().chain(platform.reserved) {
        reserve(&mut resources, range);
    }
    bytes_of(&Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &Raw(resources.template())),
        ],
    ))
}

fn reserve(resources: &mut Raw, range: &AddressRange) {
    if let (Ok(base), Ok(size)) = (u32::try_from(range.base), u32::try_from(range.size)) {
        resources.push(&Memory32Fixed::new(true, base, size));
    } else if range.size != 0 && range.end().is_some() {
        let kind = AddressSpaceCacheable::NotCacheable;
        resources.push(&AddressSpace::new_memory(
            kind,
            true,
            range.base,
            range.base + (range.size - 1),
            None,
        ));
    }
}

/// AML made already.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn push(&mut self, object: &dyn Aml) {
        object.to_aml_bytes(&mut self.0);
    }

    /// The bytes as the descriptors of a resource template.
    fn template(self) -> Vec<u8> {
        bytes_of(&ResourceTemplate::new(vec![&self]))
    }
}

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// An ISA interrupt: edge-triggered, active high, not shared (ACPI 6.5 §6.4.2.1, the form without flags).
struct Irq(u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1u16.checked_shl(self.0.into()).unwrap_or(0));
    }
}
