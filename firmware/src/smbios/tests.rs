use std::{collections::BTreeSet, process::Command};

use super::*;

const GIB: u64 = 1 << 30;

struct Read {
    kind: u8,
    body: Vec<u8>,
    strings: Vec<String>,
}

impl Read {
    fn text(&self, at: usize) -> &str {
        match self.body[at] {
            0 => "",
            index => &self.strings[usize::from(index) - 1],
        }
    }

    fn number(&self, at: usize, size: usize) -> u64 {
        (0..size)
            .rev()
            .fold(0, |value, i| value << 8 | u64::from(self.body[at + i]))
    }
}

/// Reads structures as an operating system does, until type 127.
fn walk(mut bytes: &[u8]) -> Vec<Read> {
    let (mut found, mut handles) = (Vec::new(), BTreeSet::new());
    loop {
        let (body, rest) = bytes.split_at(bytes[1].into());
        assert!(handles.insert([body[2], body[3]]), "handle used twice");
        let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
        let strings = rest[..end]
            .split(|byte| *byte == 0)
            .map(|s| String::from_utf8(s.to_vec()).unwrap())
            .collect();
        found.push(Read {
            kind: body[0],
            body: body.to_vec(),
            strings,
        });
        bytes = &rest[end + 2..];
        if body[0] == 127 {
            assert!(bytes.is_empty());
            return found;
        }
    }
}

fn processors() -> Processors {
    Processors {
        sockets: 2,
        cores: 4,
        threads: 2,
        manufacturer: "GenuineIntel".to_owned(),
        version: "A processor".to_owned(),
        id: 0xbfeb_fbff_0009_0675,
        mhz: 3000,
    }
}

fn identity() -> Identity {
    let uuid: Vec<u8> = (1..=16).collect();
    Identity {
        uuid: uuid.try_into().unwrap(),
        serial: "S1".to_owned(),
        ..Identity::default()
    }
}

fn files(ram: u64) -> SmbiosFiles {
    build(&identity(), &processors(), &RamSplit::new(ram)).unwrap()
}

#[test]
fn the_anchor_is_whole_and_tells_the_length() {
    let files = files(GIB);
    assert_eq!((files.anchor.len(), &files.anchor[..5]), (24, &b"_SM3_"[..]));
    assert_eq!(files.anchor.iter().fold(0u8, |a, b| a.wrapping_add(*b)), 0);
    assert_eq!(files.anchor[6..9], [24, 3, 0]);
    assert_eq!(files.anchor[12..16], (files.tables.len() as u32).to_le_bytes());
    assert_eq!(files.anchor[16..], [0; 8]);
}

#[test]
fn structures_have_the_lengths_of_version_3_0() {
    let with_bios = Identity {
        bios: Some(Bios {
            vendor: "V".into(),
            ..Bios::default()
        }),
        ..identity()
    };
    let files = build(&with_bios, &processors(), &RamSplit::new(10 * GIB)).unwrap();
    let kinds: Vec<_> = walk(&files.tables).iter().map(|s| (s.kind, s.body.len())).collect();
    let expected = [
        (0, 0x18),
        (1, 0x1b),
        (2, 0x0f),
        (3, 0x16),
        (4, 0x30),
        (4, 0x30),
        (16, 0x17),
        (17, 0x28),
        (19, 0x1f),
        (19, 0x1f),
        (32, 0x0b),
        (127, 4),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn the_identity_is_shown() {
    let found = walk(&files(GIB).tables);
    let system = &found[0];
    assert_eq!(
        (system.text(4), system.text(5), system.text(7), system.text(0x19)),
        ("Tenon", "Standard PC", "S1", "")
    );
    assert_eq!(
        system.body[8..24],
        [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16]
    );
    let cpu = &found[3];
    assert_eq!(
        (cpu.text(4), cpu.text(7), cpu.text(0x10)),
        ("CPU0", "GenuineIntel", "A processor")
    );
    assert_eq!(
        (cpu.body[0x23], cpu.body[0x25], cpu.number(0x2a, 2), cpu.number(0x2e, 2)),
        (4, 8, 4, 8)
    );
    let bad = Identity {
        serial: "a\0b".to_owned(),
        ..identity()
    };
    assert!(matches!(
        build(&bad, &processors(), &RamSplit::new(GIB)),
        Err(SmbiosError::BadString(_))
    ));
    let none = Processors {
        cores: 0,
        ..processors()
    };
    assert!(matches!(
        build(&identity(), &none, &RamSplit::new(GIB)),
        Err(SmbiosError::BadTopology { .. })
    ));
}

#[test]
fn memory_adds_up_whatever_its_size() {
    for ram in [
        128 << 20,
        GIB,
        3 * GIB,
        16 * GIB,
        17 * GIB,
        33 * GIB,
        2048 * GIB,
        6000 * GIB,
    ] {
        let found = walk(&files(ram).tables);
        let modules: Vec<_> = found.iter().filter(|s| s.kind == 17).collect();
        let mib: u64 = modules
            .iter()
            .map(|s| match s.number(0x0c, 2) {
                0x7fff => s.number(0x1c, 4),
                mib => mib,
            })
            .sum();
        assert_eq!(mib, ram >> 20);
        let array = found.iter().find(|s| s.kind == 16).unwrap();
        assert_eq!(array.number(0x0d, 2), modules.len() as u64);
        let capacity = match array.number(7, 4) {
            0x8000_0000 => array.number(0x0f, 8),
            kib => kib << 10,
        };
        assert_eq!(capacity, ram);
        let mapped: u64 = found
            .iter()
            .filter(|s| s.kind == 19)
            .map(|s| match s.number(4, 4) {
                0xffff_ffff => s.number(0x17, 8) - s.number(0x0f, 8) + 1,
                first => (s.number(8, 4) - first + 1) << 10,
            })
            .sum();
        assert_eq!(mapped, ram);
    }
}

/// Reads the tables with dmidecode, from a dump as it makes them: anchor, then tables at 0x20.
#[test]
fn dmidecode_reads_it() {
    let SmbiosFiles { mut anchor, tables } = files(40 * GIB);
    anchor[16] = 0x20;
    anchor[5] = anchor[5].wrapping_sub(0x20);
    anchor.resize(0x20, 0);
    let dump = std::env::temp_dir().join(format!("tenon-smbios-{}", std::process::id()));
    std::fs::write(&dump, [anchor, tables].concat()).unwrap();
    let output = Command::new("dmidecode").arg("--from-dump").arg(&dump).output();
    std::fs::remove_file(&dump).unwrap();
    let Ok(output) = output else {
        println!("skipped: dmidecode_reads_it: dmidecode is not installed (apt-get install dmidecode)");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    for expected in [
        "SMBIOS 3.0.0 present",
        "UUID: 01020304-0506-0708-090a-0b0c0d0e0f10",
        "Type: Motherboard",
        "Thread Count: 8",
        "Maximum Capacity: 40 GB",
        "Size: 8 GB",
        "Range Size: 38 GB",
        "Wake-up Type: Power Switch",
        "End Of Table",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(
        !text.contains("OUT OF SPEC") && !text.contains("Invalid") && !text.contains("TRUNCATED"),
        "{text}"
    );
}
