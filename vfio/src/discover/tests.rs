use super::*;
use crate::fixtures::{self, Build};

fn ids(chain: &[Capability]) -> Vec<u16> {
    chain.iter().map(|capability| capability.id).collect()
}

fn found(bytes: &[u8]) -> Layout {
    discover(Config(bytes)).unwrap()
}

#[test]
fn bochs_display_is_a_plain_endpoint() {
    let layout = found(&fixtures::bochs_display());
    assert_eq!((layout.vendor, layout.device, layout.class), (0x1234, 0x1111, 0x038000));
    assert_eq!(ids(&layout.standard), [0x10]);
    assert!(layout.extended.is_empty() && layout.msi.is_none() && layout.msix.is_none());
    assert_eq!(layout.express.unwrap().port_type, port_type::ENDPOINT);
    assert_eq!(
        (layout.interrupt_pin, layout.has_flr(), layout.has_power_reset()),
        (0, false, false)
    );
}

#[test]
fn hda_controllers_have_one_wide_msi_vector() {
    for bytes in [fixtures::intel_hda(), fixtures::ich9_hda()] {
        let layout = found(&bytes);
        let msi = layout.msi.unwrap();
        assert_eq!(
            (msi.offset, msi.vectors(), msi.wide(), msi.maskable(), msi.length()),
            (0x60, 1, true, false, 14)
        );
        assert_eq!((layout.interrupt_pin, layout.size, layout.express), (1, 256, None));
    }
    let real = found(&fixtures::panther_point_hda());
    assert_eq!(ids(&real.standard), [0x01, 0x05, 0x10]);
    let express = real.express.unwrap();
    assert_eq!(
        (express.port_type, express.version, express.flr),
        (port_type::INTEGRATED_ENDPOINT, 1, true)
    );
}

#[test]
fn gtx_960_has_no_reset_of_its_own_and_a_resizable_bar_to_hide() {
    let layout = found(&fixtures::gtx_960());
    assert_eq!(ids(&layout.standard), [0x01, 0x05, 0x10]);
    assert_eq!(ids(&layout.extended), [0x02, 0x18, 0x1e, 0x04, 0x01, 0x0b, 0x15]);
    assert_eq!(
        layout.hidden_extended().map(|hidden| hidden.offset).collect::<Vec<_>>(),
        [0xbb0]
    );
    assert!(!layout.has_flr());
    assert!(layout.power.unwrap().no_soft_reset && !layout.has_power_reset());
    // Room is to the next capability by place, not by chain.
    assert_eq!(layout.extended[0].room, 0x28);
}

#[test]
fn nvme_has_msix_and_flr() {
    let layout = found(&fixtures::nvme());
    let msix = layout.msix.unwrap();
    assert_eq!(
        (msix.vectors, msix.table_bar, msix.table_offset, msix.pba_offset),
        (17, 0, 0x2000, 0x3000)
    );
    assert_eq!((msix.table_size(), msix.pba_size()), (272, 8));
    assert!(layout.has_flr());
    assert_eq!(
        layout.visible_extended().map(|visible| visible.id).collect::<Vec<_>>(),
        [0x01]
    );
}

#[test]
fn msi_geometry_follows_its_control_register() {
    for (control, vectors, length, data) in [
        (0x0000u16, 1, 10, 8),
        (0x0080, 1, 14, 12),
        (0x0104, 4, 20, 8),
        (0x018a, 32, 24, 12),
        // Enabled with four messages when it was captured; encodings 6 and 7 are reserved.
        (0x00af, 32, 14, 12),
    ] {
        let bytes = Build::new((1, 2), 0, 256)
            .chain(0x50)
            .put(0x50, [5, 0])
            .u16(0x52, control)
            .0;
        let msi = found(&bytes).msi.unwrap();
        assert_eq!(
            (msi.vectors(), msi.length(), msi.data()),
            (vectors, length, data),
            "{control:#x}"
        );
        assert_eq!(msi.control & 0x71, 0);
    }
}

#[test]
fn broken_chains_end() {
    let base = || Build::new((1, 2), 0, 4096).chain(0x40);
    let cycle = base().put(0x40, [9, 0x50]).put(0x50, [9, 0x40]);
    assert_eq!(found(&cycle.0).standard.len(), 2);
    let itself = base().put(0x40, [9, 0x40]);
    assert_eq!(found(&itself.0).standard.len(), 1);
    let into_header = base().put(0x40, [9, 0x10]);
    assert_eq!(found(&into_header.0).standard.len(), 1);
    let reserved_bits = base().put(0x40, [9, 0x53]).put(0x50, [1, 0]);
    assert_eq!(found(&reserved_bits.0).standard.len(), 2);
    let ones = base().put(0x40, [0xff, 0xff]);
    assert!(found(&ones.0).standard.is_empty());
    let ext_cycle = base().ext(0x100, 1, 1, 0x200).ext(0x200, 2, 1, 0x100);
    assert_eq!(found(&ext_cycle.0).extended.len(), 2);
    let hidden_head = base().ext(0x100, 0, 0, 0x200).ext(0x200, 2, 1, 0x008);
    assert_eq!(ids(&found(&hidden_head.0).extended), [0, 2]);
}

#[test]
fn capabilities_cut_off_by_the_end_are_not_used() {
    let bytes = Build::new((1, 2), 0, 256).chain(0xfc).put(0xfc, [5, 0, 0x80, 0]).0;
    assert_eq!(found(&bytes).msi, None);
    let bytes = Build::new((1, 2), 0, 256).chain(0xfc).put(0xfc, [0x11, 0, 0xff, 0x7]).0;
    assert_eq!(found(&bytes).msix, None);
    // A table in BAR 7 does not exist.
    let bytes = Build::new((1, 2), 0, 256)
        .chain(0x40)
        .put(0x40, [0x11, 0, 0, 0, 7, 0, 0, 0])
        .0;
    assert_eq!(found(&bytes).msix, None);
}

#[test]
fn what_does_not_answer_or_is_a_bridge_is_refused() {
    assert_eq!(discover(Config(&[0xff; 256])), Err(DiscoverError::Absent));
    assert_eq!(discover(Config(&[])), Err(DiscoverError::Absent));
    let bridge = Build::new((1, 2), 0x060400, 256).put(0x0e, [0x81]).0;
    assert_eq!(discover(Config(&bridge)), Err(DiscoverError::HeaderType(1)));
}

/// xorshift64: the same bytes on each run.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

#[test]
fn random_bytes_neither_hang_nor_panic() {
    for seed in 0..4000 {
        let len = [256, 4096, 0x40, 0x41, 0x103][seed as usize % 5];
        let mut bytes = noise(seed, len);
        bytes[0x0e] &= 0x80;
        bytes[0x06] |= 0x10;
        if let Ok(layout) = discover(Config(&bytes)) {
            assert!(layout.standard.len() <= 48 && layout.extended.len() <= 960);
            for capability in layout.standard.iter().chain(&layout.extended) {
                assert!(capability.room > 0 && usize::from(capability.offset + capability.room) <= len);
            }
        }
    }
}
