use super::*;

const ZONES: Zones = Zones {
    high: AddressRange::new(0x7f00_0000, 0x10_0000),
    f_segment: AddressRange::new(0xe_0000, 0x2_0000),
};

fn allocate(file: &str, align: u32, zone: Zone) -> Command {
    Command::Allocate {
        file: file.to_owned(),
        align,
        zone,
    }
}

fn run(commands: &[Command], files: &[(&str, &[u8])]) -> Result<Replay, LoaderError> {
    replay(
        &write(commands, 4096).unwrap(),
        &files.iter().copied().collect(),
        &ZONES,
    )
}

#[test]
fn commands_have_the_documented_layout() {
    let bytes = Command::AddPointer {
        pointer: "a".into(),
        pointee: "bc".into(),
        offset: 0x0102_0304,
        size: 8,
    };
    let bytes = bytes.to_bytes().unwrap();
    assert_eq!(bytes[..6], [2, 0, 0, 0, b'a', 0]);
    assert_eq!(bytes[60..63], *b"bc\0");
    assert_eq!(bytes[116..121], [4, 3, 2, 1, 8]);
    let bytes = allocate("x", 64, Zone::FSegment).to_bytes().unwrap();
    assert_eq!(bytes[60..65], [64, 0, 0, 0, 2]);
    let bytes = Command::AddChecksum {
        file: "x".into(),
        result: 9,
        start: 1,
        length: 7,
    }
    .to_bytes()
    .unwrap();
    assert_eq!(bytes[60..72], [9, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
    let long = "x".repeat(56);
    assert_eq!(
        allocate(&long, 1, Zone::High).to_bytes(),
        Err(LoaderError::NameTooLong(long))
    );
}

#[test]
fn pointers_and_checksums_are_filled_in() {
    let pointer = Command::AddPointer {
        pointer: "p".into(),
        pointee: "t".into(),
        offset: 4,
        size: 4,
    };
    let sum = Command::AddChecksum {
        file: "p".into(),
        result: 0,
        start: 0,
        length: 8,
    };
    let write = Command::WritePointer {
        pointer: "w".into(),
        pointee: "t".into(),
        offset: 8,
        pointee_offset: 16,
        size: 8,
    };
    let done = run(
        &[
            allocate("p", 16, Zone::FSegment),
            allocate("t", 64, Zone::High),
            pointer,
            sum,
            write,
        ],
        &[("p", &[0, 1, 2, 3, 0x20, 0, 0, 0]), ("t", &[0xaa; 64])],
    )
    .unwrap();
    let p = done.blob("p").unwrap();
    assert_eq!(p.address, 0xe_0000);
    assert_eq!(p.bytes[4..], 0x7f00_0020u32.to_le_bytes());
    assert_eq!(p.bytes.iter().fold(0u8, |a, b| a.wrapping_add(*b)), 0);
    assert_eq!(done.writes[0].value, 0x7f00_0010u64.to_le_bytes());
    assert!(done.tables.is_empty());
}

#[test]
fn broken_scripts_are_refused_with_the_command() {
    let blob: (&str, &[u8]) = ("t", &[0xff; 8]);
    let pointer = |offset, size| Command::AddPointer {
        pointer: "t".into(),
        pointee: "t".into(),
        offset,
        size,
    };
    let alloc = allocate("t", 1, Zone::High);
    let cases = [
        (vec![allocate("t", 3, Zone::High)], "power of two"),
        (vec![allocate("none", 1, Zone::High)], "no fw_cfg file"),
        (vec![alloc.clone(), alloc.clone()], "twice"),
        (vec![pointer(0, 4)], "not been allocated"),
        (vec![alloc.clone(), pointer(6, 4)], "beyond `t`"),
        (vec![alloc.clone(), pointer(0, 3)], "3 bytes"),
        (vec![alloc.clone(), pointer(0, 4)], "0xffffffff"),
        (
            vec![
                alloc,
                Command::AddChecksum {
                    file: "t".into(),
                    result: 0,
                    start: 4,
                    length: 8,
                },
            ],
            "range",
        ),
    ];
    for (commands, expected) in cases {
        let error = run(&commands, &[blob]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(
        replay(&[0; 100], &BTreeMap::new(), &ZONES),
        Err(LoaderError::PartialCommand(100))
    );
}

#[test]
fn a_pointer_too_narrow_for_the_address_is_refused() {
    let pointer = Command::AddPointer {
        pointer: "t".into(),
        pointee: "t".into(),
        offset: 0,
        size: 2,
    };
    let error = run(&[allocate("t", 1, Zone::High), pointer], &[("t", &[0; 8])]).unwrap_err();
    assert!(error.to_string().contains("does not fit 2 bytes"), "{error}");
}
