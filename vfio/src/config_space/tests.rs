use super::*;
use crate::discover::discover;
use crate::fixtures;

fn view(bytes: &[u8], view: View) -> ConfigSpace {
    let layout = discover(Config(bytes)).unwrap();
    ConfigSpace::new(Config(bytes), &layout, crate::bar::bars(Config(bytes), |_| 0), view)
}

/// What a guest reads, over a device that holds `bytes`.
fn seen(space: &ConfigSpace, bytes: &[u8]) -> Vec<u8> {
    (0..4096u16)
        .step_by(4)
        .flat_map(|at| space.read(at, || Config(bytes).u32(at)).to_le_bytes())
        .collect()
}

/// The chains as the guest walks them.
fn chains(bytes: &[u8]) -> (Vec<u16>, Vec<u16>) {
    let layout = discover(Config(bytes)).unwrap();
    let ids = |chain: &[Capability]| chain.iter().map(|capability| capability.id).collect();
    (ids(&layout.standard), ids(&layout.extended))
}

#[test]
fn chains_are_rebuilt_without_what_is_hidden() {
    let bytes = fixtures::gtx_960();
    let guest = seen(&view(&bytes, View::default()), &bytes);
    assert_eq!(
        chains(&guest),
        (vec![0x01, 0x05, 0x10], vec![0x02, 0x18, 0x1e, 0x04, 0x01, 0x0b])
    );
    assert_eq!(
        Config(&guest).u32(0xbb0),
        0,
        "the resizable BAR is not to be found by place either"
    );
    // Identity is the device's.
    assert_eq!(guest[..4], bytes[..4]);
}

#[test]
fn a_hidden_first_capability_leaves_a_way_to_the_next() {
    let bytes = fixtures::nvme();
    let guest = seen(&view(&bytes, View::default()), &bytes);
    assert_eq!(Config(&guest).u32(0x100), 0x160 << 20);
    assert_eq!(chains(&guest).1, [0, 0x01]);
    assert!(guest[0x104..0x160].iter().all(|byte| *byte == 0));
}

#[test]
fn hidden_capabilities_take_no_writes() {
    let bytes = fixtures::nvme();
    let mut space = view(&bytes, View::default());
    assert_eq!(space.write(0x120 + 8, u32::MAX, ByteEnables::ALL), [false; 4]);
    assert_eq!(
        space.write(0x168, u32::MAX, ByteEnables::ALL),
        [true; 4],
        "AER is the device's"
    );
    assert_eq!(
        space.write(0x40, u32::MAX, ByteEnables::ALL),
        [false; 4],
        "MSI-X is ours"
    );
    assert_eq!(space.read(0x40, || 0), 0xc010_8011);
}

#[test]
fn an_integrated_endpoint_becomes_one_with_a_link() {
    let bytes = fixtures::panther_point_hda();
    let guest = seen(&view(&bytes, View::default()), &bytes);
    let express = discover(Config(&guest)).unwrap().express.unwrap();
    assert_eq!(
        (express.port_type, express.version, express.flr),
        (port_type::ENDPOINT, 1, true)
    );
    assert_eq!((Config(&guest).u32(0x7c), Config(&guest).u16(0x82)), (0x11, 0x11));
    assert_eq!(chains(&guest).0, [0x01, 0x05, 0x10]);
}

#[test]
fn version_0_becomes_1_and_other_types_stay() {
    for (flags, expected) in [(0x00, 0x01), (0x10, 0x11), (0x12, 0x12)] {
        let bytes = fixtures::Build::new((1, 2), 0, 256)
            .chain(0x40)
            .put(0x40, [0x10, 0, flags, 0])
            .0;
        assert_eq!(seen(&view(&bytes, View::default()), &bytes)[0x42], expected);
    }
}

#[test]
fn slot_and_pin_are_the_guests() {
    let mut bytes = fixtures::intel_hda();
    bytes[0x0e] = 0x80;
    let plain = seen(&view(&bytes, View::default()), &bytes);
    assert_eq!((plain[0x0e], plain[0x3c], plain[0x3d]), (0, 0, 0));
    let wired = View {
        multifunction: true,
        intx: true,
        rom: 0,
    };
    let several = seen(&view(&bytes, wired), &bytes);
    assert_eq!((several[0x0e], several[0x3d]), (0x80, 1));
    assert_eq!(
        several[0x100..0x104],
        [0xff; 4],
        "a conventional function has no more than 256 bytes"
    );
}

#[test]
fn capabilities_that_made_no_sense_are_not_shown() {
    // Two MSI capabilities, and one of MSI-X whose table is in BAR 7.
    let bytes = fixtures::Build::new((1, 2), 0, 256)
        .chain(0x40)
        .put(0x40, [5, 0x60, 0x80, 0])
        .put(0x60, [5, 0x80, 0x80, 0])
        .put(0x80, [0x11, 0x90, 0, 0, 7, 0, 0, 0])
        .put(0x90, [9, 0, 4, 0])
        .0;
    let guest = seen(&view(&bytes, View::default()), &bytes);
    assert_eq!(chains(&guest).0, [5, 9]);
}

#[test]
fn msi_registers_take_what_the_specification_says() {
    let bytes = fixtures::intel_hda();
    let mut space = view(&bytes, View::default());
    for register in (0x60..0x70).step_by(4) {
        space.write(register, u32::MAX, ByteEnables::ALL);
    }
    let guest = seen(&space, &bytes);
    assert_eq!(Config(&guest).u32(0x60), 0x00f1_0005);
    assert_eq!(Config(&guest).u32(0x64), 0xffff_fffc);
    assert_eq!(Config(&guest).u32(0x68), 0xffff_ffff);
    assert_eq!(Config(&guest).u16(0x6c), 0xffff);
    space.reset();
    assert_eq!(seen(&space, &bytes)[0x62], 0x80);
}

#[test]
fn random_config_spaces_make_views() {
    for seed in 0..500 {
        let mut bytes = crate::discover::tests::noise(seed, if seed % 2 == 0 { 256 } else { 4096 });
        bytes[0x0e] = 0;
        bytes[0x06] |= 0x10;
        let Ok(layout) = discover(Config(&bytes)) else { continue };
        let bars = crate::bar::bars(Config(&bytes), |index| 1 << ((seed + u64::from(index)) % 48));
        let mut space = ConfigSpace::new(
            Config(&bytes),
            &layout,
            bars,
            View {
                rom: 1 << 16,
                ..View::default()
            },
        );
        for register in (0..4096).step_by(4) {
            space.write(register, u32::MAX, ByteEnables::ALL);
        }
        // However broken the device, the guest walks chains that end.
        let guest = seen(&space, &bytes);
        discover(Config(&guest)).unwrap();
    }
}
