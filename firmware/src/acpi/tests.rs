use std::{path::Path, process::Command as Process};

use super::*;

const GIB: u64 = 1 << 30;
const MMIO32: [AddressRange; 1] = [AddressRange::new(0x8000_0000, 0x6000_0000)];
const MMIO64: [AddressRange; 1] = [AddressRange::new(0x38_0000_0000, 32 * GIB)];
const FLASH: [AddressRange; 1] = [AddressRange::new(0xffc0_0000, 0x40_0000)];
/// As OVMF would place them, far from our own choice for kernels.
const ZONES: Zones = Zones {
    high: AddressRange::new(0x7f00_0000, 0x10_0000),
    f_segment: AddressRange::new(0x7e00_0000, 0x1000),
};

fn cpus(count: u32) -> Vec<CpuEntry> {
    (0..count).map(|apic_id| CpuEntry { apic_id }).collect()
}

fn platform(cpus: &[CpuEntry]) -> Platform<'_> {
    Platform {
        ecam: Some(Ecam {
            base: 0xe000_0000,
            buses: 256,
        }),
        mmio32: &MMIO32,
        mmio64: &MMIO64,
        reserved: &FLASH,
        i8042: true,
        ..Platform::new(cpus, RamSplit::new(10 * GIB))
    }
}

fn replay(acpi: &AcpiTables) -> table_loader::Replay {
    table_loader::replay(&acpi.loader, &acpi.files().into_iter().collect(), &ZONES).unwrap()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The bytes of an installed table.
fn table<'a>(done: &'a table_loader::Replay, signature: &[u8; 4]) -> &'a [u8] {
    let found = done.tables.iter().find(|table| &table.signature == signature).unwrap();
    at(done, found.address)
}

/// The table at an address.
fn at(done: &table_loader::Replay, address: u64) -> &[u8] {
    let blob = done.blob(TABLES_FILE).unwrap();
    let start = (address - blob.address) as usize;
    &blob.bytes[start..][..u32_at(&blob.bytes, start + 4) as usize]
}

#[test]
fn ovmf_finds_every_table_and_the_chain_from_the_rsdp_is_whole() {
    let cpus = cpus(4);
    let acpi = AcpiTables::build(&platform(&cpus)).unwrap();
    assert_eq!(
        (acpi.tables.len(), acpi.rsdp.len(), acpi.loader.len()),
        (TABLES_SIZE, RSDP_SIZE, LOADER_SIZE)
    );
    let done = replay(&acpi);
    let mut found: Vec<_> = done
        .tables
        .iter()
        .map(|t| std::str::from_utf8(&t.signature).unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["APIC", "DSDT", "FACP", "FACS", "MCFG", "WAET"]);

    let rsdp = &done.blob(RSDP_FILE).unwrap().bytes;
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!(crate::checksum(&rsdp[..20]), 0);
    assert_eq!(crate::checksum(rsdp), 0);
    let xsdt = at(&done, u64_at(rsdp, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    assert_eq!(crate::checksum(xsdt), 0);
    let listed: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| at(&done, u64_at(entry, 0))[..4].to_vec())
        .collect();
    assert_eq!(listed, [b"FACP", b"APIC", b"WAET", b"MCFG"]);
    for table in xsdt[36..].chunks(8).map(|entry| at(&done, u64_at(entry, 0))) {
        assert_eq!(crate::checksum(table), 0);
        assert_eq!(&table[10..24], b"TENON TENONVM ");
        assert_eq!(&table[28..32], b"TNON");
    }
}

#[test]
fn the_fadt_has_the_fixed_hardware_where_the_specification_puts_it() {
    let cpus = cpus(1);
    let acpi = AcpiTables::build(&platform(&cpus)).unwrap();
    let done = replay(&acpi);
    let fadt = table(&done, b"FACP");
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    assert_eq!(at(&done, u64::from(u32_at(fadt, 36)))[..4], *b"FACS");
    assert_eq!(u32_at(fadt, 36) % 64, 0);
    assert_eq!(at(&done, u64::from(u32_at(fadt, 40)))[..4], *b"DSDT");
    assert_eq!(u64_at(fadt, 132), 0);
    assert_eq!(u64_at(fadt, 140), u64::from(u32_at(fadt, 40)));
    assert_eq!((fadt[46], u32_at(fadt, 48)), (9, 0));
    assert_eq!(
        (u32_at(fadt, 56), u32_at(fadt, 64), u32_at(fadt, 76), u32_at(fadt, 80)),
        (0x600, 0x604, 0x608, 0)
    );
    assert_eq!((fadt[88], fadt[89], fadt[91], fadt[92]), (4, 2, 4, 0));
    assert_eq!(fadt[108], 0x32);
    assert_eq!(fadt[109], 0b1_0111);
    assert_eq!(u32_at(fadt, 112), 1 | 1 << 2 | 1 << 5 | 1 << 8 | 1 << 10 | 1 << 15);
    assert_eq!(fadt[116..129], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 0x0f]);
    assert_eq!(
        (u64_at(fadt, 152), u64_at(fadt, 176), u64_at(fadt, 212)),
        (0x600, 0x604, 0x608)
    );
}

#[test]
fn the_madt_lists_every_processor_in_order_with_the_right_structure() {
    let cpus: Vec<_> = [0, 2, 254, 255, 300]
        .into_iter()
        .map(|apic_id| CpuEntry { apic_id })
        .collect();
    let acpi = AcpiTables::build(&Platform {
        irq0_is_gsi2: true,
        ..platform(&cpus)
    })
    .unwrap();
    let done = replay(&acpi);
    let madt = table(&done, b"APIC");
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 1));
    let (mut listed, mut overrides, mut kinds, mut rest) = (Vec::new(), Vec::new(), Vec::new(), &madt[44..]);
    while let [kind, length, ..] = *rest {
        let entry = &rest[..length.into()];
        match kind {
            0 => listed.push((u32::from(entry[2]), u32::from(entry[3]), u32_at(entry, 4))),
            9 => listed.push((u32_at(entry, 12), u32_at(entry, 4), u32_at(entry, 8))),
            2 => overrides.push((entry[3], u32_at(entry, 4), entry[8])),
            1 => assert_eq!((u32_at(entry, 4), u32_at(entry, 8)), (0xfec0_0000, 0)),
            _ => {}
        }
        kinds.push(kind);
        rest = &rest[length.into()..];
    }
    assert!(rest.is_empty());
    assert_eq!(listed, [(0, 0, 1), (1, 2, 1), (2, 254, 1), (3, 255, 1), (4, 300, 1)]);
    assert_eq!(overrides, [(0, 2, 0), (9, 9, 0x0d)]);
    assert_eq!(kinds, [0, 0, 0, 9, 9, 1, 2, 2, 4, 10]);
}

#[test]
fn mcfg_follows_the_firmware_and_is_absent_before_it_decided() {
    let cpus = cpus(1);
    let ecam = Ecam {
        base: 0xb000_0000,
        buses: 64,
    };
    let mmio32 = [AddressRange::new(0xc000_0000, 0x3c00_0000)];
    let acpi = AcpiTables::build(&Platform {
        ecam: Some(ecam),
        mmio32: &mmio32,
        ..platform(&cpus)
    })
    .unwrap();
    let done = replay(&acpi);
    let mcfg = table(&done, b"MCFG");
    assert_eq!(
        (mcfg.len(), u64_at(mcfg, 44), mcfg[54], mcfg[55]),
        (60, 0xb000_0000, 0, 63)
    );
    let acpi = AcpiTables::build(&Platform {
        ecam: None,
        ..platform(&cpus)
    })
    .unwrap();
    assert!(!replay(&acpi).tables.iter().any(|table| &table.signature == b"MCFG"));
}

#[test]
fn a_kernel_finds_the_tables_in_the_bios_segments() {
    let cpus = cpus(64);
    let placed = AcpiTables::build(&platform(&cpus)).unwrap().place_for_kernel().unwrap();
    assert_eq!(placed.rsdp % 16, 0);
    let (address, rsdp) = &placed.pieces[0];
    assert_eq!((*address, &rsdp[..8]), (placed.rsdp, &b"RSD PTR "[..]));
    let (base, tables) = &placed.pieces[1];
    assert!(base + tables.len() as u64 <= 0x10_0000 && *base >= placed.rsdp + 36);
    let xsdt = (u64_at(rsdp, 24) - base) as usize;
    assert_eq!(&tables[xsdt..xsdt + 4], b"XSDT");
}

#[test]
fn hundreds_of_processors_fit_and_thousands_are_refused() {
    let many = cpus(1024);
    AcpiTables::build(&platform(&many)).unwrap();
    let more = cpus(4096);
    assert!(matches!(
        AcpiTables::build(&platform(&more)),
        Err(AcpiError::TooLarge { .. })
    ));
}

#[test]
fn windows_that_would_stop_an_operating_system_are_refused() {
    let cpus = cpus(1);
    let check = |mmio32: &[AddressRange], mmio64: &[AddressRange]| {
        AcpiTables::build(&Platform {
            mmio32,
            mmio64,
            ..platform(&cpus)
        })
        .unwrap_err()
        .to_string()
    };
    let message = check(&[AddressRange::new(0x4000_0000, GIB)], &[]);
    assert!(message.contains("RAM") || message.contains("empty"), "{message}");
    assert!(check(&[AddressRange::new(0x7fff_f000, 0x2000)], &[]).contains("RAM"));
    assert!(check(&[AddressRange::new(0x8000_0000, 0x6000_1000)], &[]).contains("ECAM"));
    assert!(check(&[AddressRange::new(0x8000_0000, 0)], &[]).contains("empty"));
    assert!(check(&[AddressRange::new(0xff00_0000, 0x200_0000)], &[]).contains("4 GiB"));
    assert!(check(&[], &[AddressRange::new(0xf000_0000, 0x1000)]).contains("4 GiB"));
    assert!(check(&[], &[AddressRange::new(1 << 32, GIB)]).contains("RAM"));
    assert!(check(&[], &[AddressRange::new(u64::MAX, 2)]).contains("4 GiB"));
    assert!(check(&[MMIO32[0], MMIO32[0]], &[]).contains("another window"));
    assert_eq!(AcpiTables::build(&platform(&[])), Err(AcpiError::NoCpus));
}

/// Reads the DSDT with ACPICA's disassembler, and compiles what it made of it again.
#[test]
fn acpica_reads_the_dsdt() {
    let cpus = cpus(4);
    let acpi = AcpiTables::build(&platform(&cpus)).unwrap();
    let dir = std::env::temp_dir().join(format!("tenon-dsdt-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("dsdt.aml"), table(&replay(&acpi), b"DSDT")).unwrap();
    let Some(_) = iasl(&dir, &["-d", "dsdt.aml"]) else {
        println!("skipped: acpica_reads_the_dsdt: iasl is not installed (apt-get install acpica-tools)");
        return;
    };
    let text = std::fs::read_to_string(dir.join("dsdt.dsl")).unwrap();
    let compiled = iasl(&dir, &["-p", "again", "dsdt.dsl"]).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(compiled.contains("0 Errors, 0 Warnings"), "{compiled}");

    let text: String = text.split_whitespace().collect();
    let has = |needle: &str| text.contains(&needle.split_whitespace().collect::<String>());
    assert!(has("0x0000000080000000, // Range Minimum") || has("0x80000000, // Range Minimum"));
    assert!(has("0xDFFFFFFF, // Range Maximum"));
    assert!(
        has("0x000000403FFFFFFF") || has("0x0000003FFFFFFFFF, // Range Maximum"),
        "64-bit window"
    );
    assert!(has(
        "Memory32Fixed (ReadWrite, 0xE0000000, // Address Base 0x10000000, // Address Length"
    ));
    assert!(has("ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")"));
    assert_eq!(text.matches("\"ACPI0007\"").count(), 4);
    for id in ["PNP0A08", "PNP0B00", "PNP0303", "PNP0F13", "PNP0501", "PNP0C02"] {
        assert!(has(&format!("EisaId (\"{id}\")")), "{id}");
    }
    // Slot 2, INTD: GSI 16 + (2 + 3) % 4.
    assert!(has("Package (0x04) { 0x0002FFFF, 0x03, Zero, 0x11 }"));
    assert_eq!(
        text.matches("FFFF,Zero,Zero,0x1").count() + text.matches("FFFF,0x00,Zero,0x1").count(),
        32
    );
}

/// Runs iasl in `dir`; `None` when there is none.
fn iasl(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Process::new("iasl").current_dir(dir).args(args).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
