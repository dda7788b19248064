use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use devices::{Backing, MsiMessage, Space};

use super::*;
use crate::fake::{Bench, FakeDevice};
use crate::fixtures;

const MIB: u64 = 1 << 20;

fn gpu() -> Bench {
    Bench::new(|log| {
        let device = FakeDevice::new("gpu", fixtures::gtx_960(), log)
            .bar(0, 16 * MIB, true)
            .bar(1, 256 * MIB, true)
            .bar(3, 32 * MIB, true)
            .bar(5, 128, false)
            .bar(6, 0x20000, false)
            .irq(0, 1, false)
            .irq(1, 1, true);
        device
            .kernel()
            .memory
            .insert(6, [&[0x55, 0xaa][..], &[7; 0x1fffe]].concat());
        vec![("01:00.0", device)]
    })
}

fn nvme(no_resize: bool) -> Bench {
    Bench::new(|log| {
        let device = FakeDevice::new("nvme", fixtures::nvme(), log)
            .bar(0, 0x8000, true)
            .irq(0, 1, false)
            .irq(2, 17, no_resize)
            .resettable();
        vec![("03:00.0", device)]
    })
}

impl Bench {
    fn write(&self, offset: u16, len: usize, value: u32) {
        let _ = self.effect(offset, len, value);
    }

    fn effect(&self, offset: u16, len: usize, value: u32) -> Effect {
        let at = usize::from(offset & 3);
        self.devices[0].config_write(offset & !3, value << (8 * at), ByteEnables::of(at, len))
    }

    fn read(&self, offset: u16) -> u32 {
        self.devices[0].config_read(offset & !3) >> (8 * (offset & 3))
    }

    fn layout(&self) -> Vec<(Space, u64, u64, bool)> {
        let mut regions = Vec::new();
        self.devices[0].regions(&mut regions);
        regions.sort_by_key(|region| region.base);
        let direct = |region: &Region| matches!(region.backing, Backing::Host { .. });
        regions
            .iter()
            .map(|region| (region.space, region.base, region.size, direct(region)))
            .collect()
    }

    /// The device behind the trapped region that covers an address.
    fn access(&self, address: u64, write: Option<&[u8]>) -> [u8; 4] {
        let mut regions = Vec::new();
        self.devices[0].regions(&mut regions);
        let region = regions
            .iter()
            .find(|region| (region.base..region.base + region.size).contains(&address))
            .unwrap();
        let Backing::Device { device, offset } = &region.backing else {
            panic!("{address:#x} is mapped")
        };
        let mut data = [0; 4];
        match write {
            Some(bytes) => assert_eq!(device.write(address - region.base + offset, bytes), Effect::None),
            None => device.read(address - region.base + offset, &mut data),
        }
        data
    }
}

#[test]
fn bars_are_blank_at_first_and_size_as_the_device_does() {
    let bench = gpu();
    let bars: Vec<u32> = (0..6).map(|index| bench.read(0x10 + 4 * index)).collect();
    assert_eq!(bars, [0, 0xc, 0, 0xc, 0, 1], "flags kept, host addresses gone");
    for register in (0x10..0x28).step_by(4).chain([0x30]) {
        assert_eq!(bench.effect(register, 4, u32::MAX), Effect::None);
    }
    let sizes: Vec<u32> = (0..6).map(|index| bench.read(0x10 + 4 * index)).collect();
    assert_eq!(
        sizes,
        [
            0xff00_0000,
            0xf000_000c,
            0xffff_ffff,
            0xfe00_000c,
            0xffff_ffff,
            0xffff_ff81
        ]
    );
    assert_eq!(bench.read(0x30), 0xfffe_0001);
    assert!(
        bench
            .drain()
            .iter()
            .all(|line| !line.contains("config 0x1") && !line.contains("config 0x30"))
    );
}

#[test]
fn bars_are_mapped_while_decode_is_on_and_where_the_guest_puts_them() {
    let bench = gpu();
    bench.write(0x10, 4, 0xc000_0000);
    bench.write(0x18, 4, 0x8);
    bench.write(0x14, 4, 0x1000_0000);
    assert!(bench.layout().is_empty());
    assert_eq!(bench.effect(4, 2, 0x6), Effect::Relayout);
    let memory = Space::Memory;
    let both = [
        (memory, 0xc000_0000, 16 * MIB, true),
        (memory, 0x8_1000_0000, 256 * MIB, true),
    ];
    assert_eq!(bench.layout(), both);
    // Moving one dword at a time is decoding at the address in between.
    assert_eq!(bench.effect(0x18, 4, 0x9), Effect::Relayout);
    assert_eq!(bench.layout()[1].1, 0x9_1000_0000);
    assert_eq!(bench.effect(0x10, 4, 0xc000_0000), Effect::None, "the same address");
    assert_eq!(bench.effect(0x10, 4, 0), Effect::Relayout);
    assert_eq!(bench.layout().len(), 1, "address 0 is nowhere");
    assert_eq!(bench.effect(4, 2, 0x4), Effect::Relayout);
    assert!(bench.layout().is_empty());
}

#[test]
fn memory_decode_of_the_device_outlives_the_guests_until_reset() {
    let bench = gpu();
    bench.drain();
    bench.write(4, 2, 0x7);
    bench.write(4, 2, 0x5);
    assert_eq!(bench.read(4) & 0x7, 0x5, "the guest sees what it wrote");
    assert_eq!(bench.fakes[0].kernel().config[4] & 7, 0x7);
    bench.devices[0].reset();
    assert_eq!(bench.fakes[0].kernel().config[4], 0);
    bench.write(4, 2, 0x4);
    assert_eq!(bench.fakes[0].kernel().config[4] & 7, 0x4);
}

#[test]
fn byte_writes_reach_the_device_as_such() {
    let bench = gpu();
    bench.drain();
    // High byte of COMMAND alone: INTx disable; the low byte stays what it was.
    bench.write(4, 2, 0x2);
    bench.write(5, 1, 0x4);
    // STATUS alone: no write to COMMAND.
    bench.write(6, 2, 0xf900);
    // Express device control, 16 bits, then a single byte of it, then a whole dword.
    bench.write(0x80, 2, 0x2810);
    bench.write(0x81, 1, 0x28);
    bench.write(0x80, 4, 0x1234_5678);
    let expected = [
        "gpu config 0x4 [02, 00]",
        "gpu config 0x4 [02, 04]",
        "gpu config 0x6 [00, f9]",
        "gpu config 0x80 [10, 28]",
        "gpu config 0x81 [28]",
        "gpu config 0x80 [78, 56, 34, 12]",
    ];
    let log: Vec<String> = bench
        .drain()
        .into_iter()
        .filter(|line| line.starts_with("gpu config"))
        .collect();
    assert_eq!(log, expected);
}

#[test]
fn nothing_is_mapped_while_the_function_sleeps() {
    let bench = gpu();
    bench.write(0x10, 4, 0xc000_0000);
    bench.write(4, 2, 0x2);
    assert_eq!(bench.layout().len(), 1);
    assert_eq!(bench.effect(0x64, 2, 3), Effect::Relayout);
    assert!(bench.layout().is_empty());
    assert_eq!(bench.effect(0x64, 1, 0), Effect::Relayout);
    assert_eq!(bench.layout().len(), 1);
    bench.write(0x64, 2, 3);
    bench.devices[0].reset();
    assert_eq!(bench.fakes[0].kernel().config[0x64] & 3, 0, "woken before the reset");
}

#[test]
fn io_bars_are_trapped_and_follow_their_own_decode() {
    let bench = gpu();
    bench.write(0x24, 4, 0xc000);
    assert_eq!(bench.effect(4, 2, 0x2), Effect::None);
    assert_eq!(bench.effect(4, 2, 0x3), Effect::Relayout);
    assert_eq!(bench.layout(), [(Space::Port, 0xc000, 128, false)]);
    assert_eq!(bench.access(0xc004, None), [0xb5; 4]);
    bench.access(0xc004, Some(&[1, 2, 3, 4]));
    assert_eq!(bench.fakes[0].kernel().memory[&5][4..8], [1, 2, 3, 4]);
}

#[test]
fn the_rom_is_read_once_it_is_decoded() {
    let bench = gpu();
    bench.write(0x30, 4, 0xd000_0001);
    assert_eq!(bench.effect(4, 2, 0x2), Effect::Relayout);
    let mut regions = Vec::new();
    bench.devices[0].regions(&mut regions);
    let Backing::Host { mapping, writes, .. } = &regions[0].backing else {
        panic!()
    };
    let mut head = [0; 3];
    mapping.read(0, &mut head);
    assert_eq!(
        (head, writes.is_some(), regions[0].size),
        ([0x55, 0xaa, 7], true, 0x20000)
    );
    assert_eq!(bench.effect(0x30, 4, 0xd000_0000), Effect::Relayout);
    assert!(bench.layout().is_empty());
}

#[test]
fn intx_comes_with_decode_and_gives_way_to_msi() {
    let bench = gpu();
    bench.drain();
    assert_eq!(bench.devices[0].interrupt_kind(), "none");
    bench.write(4, 2, 0x6);
    assert_eq!(bench.devices[0].interrupt_kind(), "INTx");
    bench.write(0x6c, 4, 0xfee0_1000);
    bench.write(0x74, 2, 0x41);
    bench.write(0x6a, 2, 0x81);
    assert_eq!(bench.devices[0].interrupt_kind(), "MSI");
    let message = MsiMessage {
        address: 0xfee0_1000,
        data: 0x41,
        requester: 8,
    };
    assert_eq!(bench.fabric.messages(), [Some(message)]);
    let event = bench.fabric.vectors.lock().unwrap()[0].event.as_raw_fd();
    assert_eq!(bench.fakes[0].kernel().events, [Some(event)]);
    // A new message follows; the same one does nothing.
    bench.write(0x74, 2, 0x42);
    assert_eq!(bench.fabric.messages()[0].unwrap().data, 0x42);
    bench.write(0x6a, 2, 0x80);
    assert_eq!(bench.devices[0].interrupt_kind(), "INTx");
    let log: Vec<String> = bench
        .drain()
        .into_iter()
        .filter(|line| !line.contains("config"))
        .collect();
    assert_eq!(
        log,
        [
            "connect 16",
            "gpu enable 0 0+1 with 1",
            "gpu resample",
            "gpu disable 0",
            "disconnect 16",
            "gpu enable 1 0+1 with 1",
            "gpu disable 1",
            "connect 16",
            "gpu enable 0 0+1 with 1",
            "gpu resample",
        ]
    );
    assert!(bench.fabric.messages().is_empty(), "vectors are given back");
    bench.devices[0].reset();
    assert_eq!(
        (
            bench.fakes[0].kernel().enabled,
            bench.fabric.levels.lock().unwrap().len()
        ),
        (None, 0)
    );
}

fn many_msi(spare: usize) -> Bench {
    Bench::new(|log| {
        // Four vectors, 64-bit, maskable, at 0x40.
        let config = crate::fixtures::Build::new((1, 2), 0, 256)
            .chain(0x40)
            .put(0x40, [5, 0, 0x84, 1])
            .0;
        vec![(
            "04:00.0",
            FakeDevice::new("many", config, log)
                .irq(1, 4, true)
                .spare_vectors(spare),
        )]
    })
}

#[test]
fn msi_vectors_are_masked_one_by_one_and_pend() {
    let bench = many_msi(usize::MAX);
    bench.write(0x44, 4, 0xfee0_0000);
    bench.write(0x4c, 2, 0x53);
    bench.write(0x50, 4, 0x4);
    bench.write(0x42, 2, 0x21);
    let data: Vec<Option<u32>> = bench.fabric.messages().into_iter().map(|m| m.map(|m| m.data)).collect();
    assert_eq!(data, [Some(0x50), Some(0x51), None, Some(0x53)]);
    bench.fabric.vectors.lock().unwrap()[2]
        .waiting
        .store(1, Ordering::Relaxed);
    assert_eq!(bench.read(0x54), 0x4);
    bench.write(0x50, 4, 0);
    assert_eq!(bench.fabric.messages()[2].unwrap().data, 0x52);
    assert_eq!(bench.read(0x50), 0);
    assert_eq!(bench.read(0x42) & 0xffff, 0x1a5);
}

#[test]
fn msi_makes_do_with_the_vectors_there_are() {
    let bench = many_msi(2);
    bench.write(0x42, 2, 0x21);
    assert_eq!(bench.devices[0].interrupt_kind(), "MSI");
    assert_eq!(
        (bench.fakes[0].kernel().events.len(), bench.fabric.messages().len()),
        (2, 2)
    );
}

#[test]
fn msix_follows_table_and_masks() {
    for no_resize in [true, false] {
        let bench = nvme(no_resize);
        bench.write(0x10, 4, 0xc000_0000);
        bench.write(4, 2, 0x6);
        let table = 0xc000_2000;
        assert_eq!(
            bench.layout(),
            [
                (Space::Memory, 0xc000_0000, 0x2000, true),
                (Space::Memory, 0xc000_2000, 0x2000, false),
                (Space::Memory, 0xc000_4000, 0x4000, true)
            ]
        );
        assert_eq!(bench.access(table + 12, None), [1, 0, 0, 0], "masked at power-on");
        // As Linux does: enable with everything masked, write entries, unmask the function, then the entry.
        bench.write(0x42, 2, 0xc010);
        assert_eq!(bench.devices[0].interrupt_kind(), "MSI-X");
        assert_eq!(bench.fakes[0].kernel().events.len(), if no_resize { 17 } else { 1 });
        for (offset, value) in [(0, 0xfee0_2000u32), (4, 0), (8, 0x61)] {
            bench.access(table + 5 * 16 + offset, Some(&value.to_le_bytes()));
        }
        bench.write(0x42, 2, 0x8010);
        assert!(bench.fabric.messages().is_empty());
        bench.access(table + 5 * 16 + 12, Some(&[0; 4]));
        let message = MsiMessage {
            address: 0xfee0_2000,
            data: 0x61,
            requester: 8,
        };
        assert_eq!(bench.fabric.messages(), [Some(message)]);
        let event = bench.fabric.vectors.lock().unwrap()[0].event.as_raw_fd();
        assert_eq!(bench.fakes[0].kernel().events[5], Some(event));
        // Masked: no message, but VFIO keeps the event, and it shows as pending.
        bench.access(table + 5 * 16 + 12, Some(&[1, 0, 0, 0]));
        assert_eq!(
            (bench.fabric.messages(), bench.fakes[0].kernel().events[5]),
            (vec![None], Some(event))
        );
        bench.fakes[0].kernel().memory.get_mut(&0).unwrap()[0x3000] = 1;
        bench.fabric.vectors.lock().unwrap()[0]
            .waiting
            .store(1, Ordering::Relaxed);
        assert_eq!(bench.access(0xc000_3000, None)[0], 0x21);
        bench.access(table + 5 * 16 + 12, Some(&[0; 4]));
        bench.write(0x42, 2, 0xc010);
        assert_eq!(bench.fabric.messages(), [None], "the function mask holds");
        bench.write(0x42, 2, 0x0010);
        assert_eq!(bench.devices[0].interrupt_kind(), "INTx");
        bench.devices[0].reset();
        assert_eq!(bench.fakes[0].kernel().enabled, None);
    }
}

#[test]
fn a_hidden_table_is_not_the_devices() {
    let bench = nvme(true);
    bench.write(0x10, 4, 0xc000_0000);
    bench.write(4, 2, 0x6);
    bench.access(0xc000_2000, Some(&[0xaa; 4]));
    assert_eq!(bench.fakes[0].kernel().memory[&0][0x2000], 0xb0);
    // The rest of the table's page is the device's.
    bench.access(0xc000_2800, Some(&[0xaa; 4]));
    assert_eq!(bench.fakes[0].kernel().memory[&0][0x2800], 0xaa);
}

#[test]
fn a_pin_that_cannot_be_had_leaves_msi() {
    let bench = Bench::new(|log| {
        // The kernel counts no pin, as for a device it knows to be broken.
        vec![(
            "00:1b.0",
            FakeDevice::new("hda", fixtures::ich9_hda(), log)
                .bar(0, 0x4000, true)
                .irq(1, 1, true),
        )]
    });
    assert_eq!(bench.read(0x3d) & 0xff, 0);
    bench.write(4, 2, 0x6);
    assert_eq!(bench.devices[0].interrupt_kind(), "none");
    bench.write(0x62, 2, 0x1);
    assert_eq!(bench.devices[0].interrupt_kind(), "MSI");
}

#[test]
fn random_accesses_do_no_harm() {
    let bench = nvme(false);
    let noise = crate::discover::tests::noise(42, 60_000);
    for bytes in noise.chunks_exact(8) {
        let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let register = u16::from_le_bytes([bytes[4], bytes[5]]) & if bytes[6] & 1 == 0 { 0xfc } else { 0xfffc };
        let enables = ByteEnables::of(usize::from(bytes[6] >> 1 & 3), usize::from(bytes[6] >> 3 & 7));
        let _ = bench.devices[0].config_write(register, value, enables);
        bench.devices[0].config_read(register);
        for access in &bench.devices[0].accesses {
            let mut data = vec![0; usize::from(bytes[7] & 15)];
            let offset = u64::from(value) & if bytes[7] & 16 == 0 { 0x3fff } else { u64::MAX };
            let _ = access.write(offset, &data);
            access.read(offset, &mut data);
            access.read(u64::MAX - 2, &mut data);
        }
        let mut regions = Vec::new();
        bench.devices[0].regions(&mut regions);
        for region in regions {
            assert!(region.size > 0 && region.base.checked_add(region.size).is_some());
        }
    }
}
