use super::*;

const NVIDIA: u16 = 0x10de;

/// An image as the tables lay it out: `kind` is its code type.
fn rom_image(kind: u8, device: u16, units: u16, last: bool) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(units) * UNIT];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &SIGNATURE);
    put(POINTER, &0x40u16.to_le_bytes());
    put(0x40, b"PCIR");
    put(0x40 + pcir::VENDOR, &NVIDIA.to_le_bytes());
    put(0x40 + pcir::DEVICE, &device.to_le_bytes());
    put(0x40 + pcir::REVISION, &[3]);
    put(0x40 + pcir::CLASS, &[0, 0, 3]);
    put(0x40 + pcir::LENGTH, &units.to_le_bytes());
    put(0x40 + pcir::CODE_TYPE, &[kind, if last { 0x80 } else { 0 }]);
    if kind == 3 {
        put(0x4, &EFI_SIGNATURE.to_le_bytes());
        put(0xa, &MACHINE_X64.to_le_bytes());
        put(0xc, &1u16.to_le_bytes());
    } else {
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[6] = bytes[6].wrapping_sub(sum);
    }
    bytes
}

/// A graphics card's: one image for a BIOS, one for UEFI.
fn card() -> Vec<u8> {
    [rom_image(0, 0x1401, 4, false), rom_image(3, 0x1401, 2, true)].concat()
}

#[test]
fn the_chain_is_read_to_its_end() {
    let mut rom = card();
    rom.extend([0xff; 700]);
    let found = images(&rom).unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|image| (image.offset, image.length, image.class, image.code))
        .collect();
    let efi = Code::Efi {
        machine: MACHINE_X64,
        compressed: true,
    };
    assert_eq!(
        seen,
        [
            (0, 2048, 0x030000, Code::Legacy { checksum_right: true }),
            (2048, 1024, 0x030000, efi)
        ]
    );
    assert!(found[1].is_efi_x64() && !found[0].is_efi_x64());
    assert!(found[0].is_for(NVIDIA, 0x1401) && !found[0].is_for(NVIDIA, 0x1402));
    assert_eq!(
        found.iter().map(|image| image.code.to_string()).collect::<Vec<_>>(),
        ["BIOS", "EFI for x86-64, compressed"]
    );
}

#[test]
fn a_chain_without_the_mark_ends_where_the_images_do() {
    let mut rom = rom_image(3, 0x1401, 1, false);
    assert_eq!(images(&rom).unwrap().len(), 1);
    rom.extend([0xff; 512]);
    assert_eq!(images(&rom).unwrap().len(), 1);
}

#[test]
fn more_devices_stand_in_a_list() {
    let mut rom = rom_image(3, 0x1401, 1, true);
    rom[0x40 + pcir::DEVICE_LIST] = 0x20;
    rom[0x60..0x66].copy_from_slice(&[0x02, 0x14, 0x03, 0x14, 0, 0]);
    let image = images(&rom).unwrap().remove(0);
    assert_eq!(image.devices, [0x1402, 0x1403]);
    assert!(image.is_for(NVIDIA, 0x1403) && !image.is_for(0x1002, 0x1403));
}

#[test]
fn what_is_no_rom_is_told() {
    let damaged = |change: fn(&mut Vec<u8>)| {
        let mut rom = card();
        change(&mut rom);
        images(&rom).unwrap_err()
    };
    let cases: &[(RomError, &str)] = &[
        (damaged(Vec::clear), "empty"),
        (damaged(|rom| rom.resize((16 << 20) + 1, 0)), "16 MiB"),
        (damaged(|rom| rom.fill(0xff)), "begins with ff ff"),
        (damaged(|rom| rom[0x41] = 0), "image 0 at 0x0 has no PCI data structure"),
        (damaged(|rom| rom[0x18..0x1a].fill(0xff)), "no PCI data structure"),
        (damaged(|rom| rom.truncate(0x30)), "no PCI data structure"),
        (
            damaged(|rom| rom.truncate(2500)),
            "image 1 at 0x800 has 1024 bytes, of which 452",
        ),
        (
            damaged(|rom| rom[0x40 + pcir::LENGTH..][..2].fill(0)),
            "does not say where the next",
        ),
    ];
    for (error, words) in cases {
        assert!(error.to_string().contains(words), "{error}");
    }
    let endless = rom_image(0, 1, 1, false).repeat(MOST_IMAGES + 1);
    assert_eq!(
        images(&endless).unwrap_err(),
        RomError::Endless {
            index: MOST_IMAGES,
            offset: MOST_IMAGES * UNIT
        }
    );
}

#[test]
fn a_vendors_header_before_the_rom_is_pointed_out() {
    let mut dump = b"NVGI".to_vec();
    dump.resize(0x600, 0x55);
    dump.extend(card());
    let error = images(&dump).unwrap_err().to_string();
    assert!(
        error.contains("a ROM begins at byte 1536") && error.contains("tail -c +1537"),
        "{error}"
    );
    assert!(images(&dump[0x600..]).is_ok());
}

#[test]
fn a_siblings_images_are_made_this_devices() {
    let mut rom = card();
    assert_eq!(adapt(&mut rom, NVIDIA, 0x1401), 0);
    assert_eq!(rom, card());
    assert_eq!(adapt(&mut rom, NVIDIA, 0x1c03), 2);
    let found = images(&rom).unwrap();
    assert!(found.iter().all(|image| image.is_for(NVIDIA, 0x1c03)));
    assert_eq!(found[0].code, Code::Legacy { checksum_right: true });
    // Another maker's is not for it whatever the ID says.
    assert_eq!(adapt(&mut rom, 0x1002, 0x1401), 0);
}

/// Each byte of a card's header and structures set to each value, and each length: an answer, never a panic.
#[test]
fn damage_is_survived() {
    let rom = card();
    for at in (0..0x70).chain(2048..2048 + 0x70) {
        for value in 0..=u8::MAX {
            let mut damaged = rom.clone();
            damaged[at] = value;
            let _ = images(&damaged);
            adapt(&mut damaged, NVIDIA, 0x1c03);
        }
    }
    for length in 0..rom.len() {
        let mut cut = rom[..length].to_vec();
        let _ = images(&cut);
        adapt(&mut cut, NVIDIA, 0x1c03);
    }
}
