//! What the machine says of itself, and what it takes over from the host: SMBIOS, table headers, boot order, clocks.

use firmware::RamSplit;
use firmware::acpi::OemIds;
use firmware::bootorder::{self, BootDevice, PciPath, SlotFunction};
use firmware::smbios::{self, Processors, SmbiosError, SmbiosFiles};
use kvm_bindings::kvm_cpuid_entry2;

use super::layout::FIRST_DISK;
use crate::config::{Disk, Identity};

/// The ids in the headers of the ACPI tables.
#[must_use]
pub fn oem_ids(identity: &Identity) -> OemIds {
    let mut oem = OemIds::default();
    pad(&mut oem.oem_id, identity.oem_id.as_deref());
    pad(&mut oem.oem_table_id, identity.oem_table_id.as_deref());
    oem
}

/// `text` padded with spaces, if there is any.
fn pad(field: &mut [u8], text: Option<&str>) {
    if let Some(text) = text {
        field.fill(b' ');
        for (to, from) in field.iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }
}

/// The SMBIOS tables.
///
/// # Errors
/// Text that SMBIOS cannot carry.
pub fn smbios(
    identity: &Identity,
    cpus: u8,
    cpuid: &[kvm_cpuid_entry2],
    ram: &RamSplit,
) -> Result<SmbiosFiles, SmbiosError> {
    let mut who = smbios::Identity::default();
    let set = |field: &mut String, value: &Option<String>| {
        if let Some(value) = value {
            field.clone_from(value);
        }
    };
    set(&mut who.manufacturer, &identity.manufacturer);
    set(&mut who.product, &identity.product);
    set(&mut who.version, &identity.version);
    set(&mut who.serial, &identity.serial);
    set(&mut who.sku, &identity.sku);
    set(&mut who.family, &identity.family);
    if let Some(uuid) = identity.uuid {
        who.uuid = uuid.bytes();
    }
    let leaf = |function: u32| cpuid.iter().find(|leaf| leaf.function == function);
    let processors = Processors {
        sockets: 1,
        cores: cpus.into(),
        threads: 1,
        manufacturer: leaf(0).map_or_else(String::new, |l| text(&[l.ebx, l.edx, l.ecx])),
        version: brand(&leaf),
        id: leaf(1).map_or(0, |l| u64::from(l.edx) << 32 | u64::from(l.eax)),
        mhz: 0,
    };
    smbios::build(&who, &processors, ram)
}

/// The processor's brand string (Intel SDM vol. 2A, CPUID leaves 0x80000002 to 0x80000004).
fn brand<'a>(leaf: &impl Fn(u32) -> Option<&'a kvm_cpuid_entry2>) -> String {
    let registers: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .filter_map(leaf)
        .flat_map(|l| [l.eax, l.ebx, l.ecx, l.edx])
        .collect();
    text(&registers)
}

fn text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers
        .iter()
        .flat_map(|r| r.to_le_bytes())
        .filter(|b| b.is_ascii_graphic() || *b == b' ')
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The boot order, once any disk has a place in it: OVMF forgets disks that the list leaves out, so those without an index follow.
#[must_use]
pub fn boot_order(disks: &[Disk]) -> Option<Vec<u8>> {
    disks.iter().find(|disk| disk.bootindex.is_some())?;
    let mut listed: Vec<_> = (FIRST_DISK..).zip(disks).collect();
    listed.sort_by_key(|(_, disk)| disk.bootindex.unwrap_or(u32::MAX));
    let devices: Vec<_> = listed
        .iter()
        .map(|(slot, _)| {
            let function = SlotFunction {
                slot: *slot,
                function: 0,
            };
            BootDevice::VirtioBlk(PciPath {
                bridges: Vec::new(),
                function,
            })
        })
        .collect();
    Some(bootorder::contents(&devices, false))
}

/// Whether the host itself trusts its TSC to run at one rate on all processors, so that a guest may.
#[must_use]
pub fn host_tsc_is_reliable() -> bool {
    std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .is_ok_and(|name| name.trim() == "tsc")
}

/// Local time on the host, in seconds east of UTC.
#[must_use]
pub fn local_offset_s() -> i32 {
    chrono::Local::now().offset().local_minus_utc()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn disk(bootindex: Option<u32>) -> Disk {
        Disk {
            path: PathBuf::from("x"),
            readonly: false,
            bootindex,
        }
    }

    #[test]
    fn disks_without_an_index_are_booted_last() {
        assert_eq!(boot_order(&[disk(None)]), None);
        let order = boot_order(&[disk(None), disk(Some(5)), disk(Some(1))]).unwrap();
        let text = String::from_utf8(order).unwrap();
        let slots: Vec<_> = text
            .lines()
            .filter_map(|line| line.split('@').nth(2))
            .map(|rest| &rest[..2])
            .collect();
        assert_eq!(slots, ["12", "11", "10"]);
    }

    #[test]
    fn ids_are_padded_with_spaces() {
        let identity = Identity {
            oem_id: Some("ACME".to_owned()),
            ..Identity::default()
        };
        assert_eq!(&oem_ids(&identity).oem_id, b"ACME  ");
        assert_eq!(oem_ids(&identity).oem_table_id, OemIds::default().oem_table_id);
    }
}
