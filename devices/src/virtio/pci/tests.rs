//! The transport, driven as a guest drives it, in front of a device that only notes what is asked of it.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::testing::{
    AVAIL, BAR, COMMON, DESC, DEVICE, Driver, ISR, MSIX_PENDING, MSIX_TABLE, NOTIFY, QUEUE_SIZE, USED,
};
use crate::pci::{ByteEnables, PciFunction, spec as pci};
use crate::virtio::spec::{self, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, NO_VECTOR};
use crate::virtio::{Activation, VirtioDevice, lock};
use crate::{Effect, MsiMessage, Space};

#[derive(Debug, Default)]
struct Probe {
    activation: Mutex<Option<Activation>>,
    running: Mutex<bool>,
    resets: Mutex<u32>,
}

impl VirtioDevice for Probe {
    fn device_type(&self) -> u16 {
        2
    }
    fn pci_class(&self) -> u32 {
        0x01_80_00
    }
    fn features(&self) -> u64 {
        1 << 9
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64, 16]
    }
    fn config_size(&self) -> u32 {
        4
    }
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0x40 + offset as u8);
    }
    fn activate(&self, activation: Activation) -> io::Result<()> {
        *lock(&self.activation) = Some(activation);
        Ok(())
    }
    fn set_running(&self, running: bool) {
        *lock(&self.running) = running;
    }
    fn reset(&self) {
        *lock(&self.resets) += 1;
        *lock(&self.activation) = None;
    }
}

fn driver() -> (Arc<Probe>, Driver) {
    let probe = Arc::new(Probe::default());
    let driver = Driver::new(Arc::clone(&probe) as Arc<dyn VirtioDevice>);
    (probe, driver)
}

/// Offsets of the capabilities by ID.
fn capabilities(driver: &Driver) -> Vec<(u8, u16)> {
    let byte = |at: u16| (driver.function.config_read(at & !3) >> (8 * (at & 3))) as u8;
    let mut found = Vec::new();
    let mut at = u16::from(byte(pci::CAPABILITIES));
    while at != 0 {
        found.push((byte(at), at));
        at = u16::from(byte(at + 1));
    }
    found
}

fn structure(driver: &Driver, kind: u8) -> u16 {
    let of_kind = |at: u16| (driver.function.config_read(at) >> 24) as u8 == kind;
    let (_, at) = capabilities(driver)
        .into_iter()
        .find(|(id, at)| *id == pci::CAP_VENDOR && of_kind(*at))
        .expect("there is such a structure");
    at
}

fn msix_capability(driver: &Driver) -> u16 {
    let (_, at) = capabilities(driver)
        .into_iter()
        .find(|(id, _)| *id == pci::CAP_MSIX)
        .expect("there is MSI-X");
    at
}

fn set_msix(driver: &Driver, control: u16) {
    let at = msix_capability(driver);
    let _ = driver
        .function
        .config_write(at, u32::from(control) << 16, ByteEnables::of(2, 2));
}

fn write_entry(driver: &Driver, index: u64, message: MsiMessage, masked: bool) {
    let at = MSIX_TABLE + 16 * index;
    driver.write(at, &message.address.to_le_bytes());
    driver.write(at + 8, &message.data.to_le_bytes());
    driver.write(at + 12, &u32::from(masked).to_le_bytes());
}

fn message(data: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_1000,
        data,
        requester: 0x18,
    }
}

#[test]
fn is_a_modern_device_with_all_structures() {
    let (_, driver) = driver();
    let config = |at| driver.function.config_read(at);
    assert_eq!(config(0x00), 0x1042_1af4);
    assert_eq!(config(0x08), 0x0180_0001);
    assert_eq!(config(0x2c), 0x1100_1af4);
    assert_eq!(config(0x3c) >> 8, 1);
    let places = [
        (spec::PCI_CAP_COMMON, COMMON, 0x38),
        (spec::PCI_CAP_ISR, ISR, 4),
        (spec::PCI_CAP_DEVICE, DEVICE, 4),
        (spec::PCI_CAP_NOTIFY, NOTIFY, 8),
    ];
    for (kind, offset, len) in places {
        let at = structure(&driver, kind);
        assert_eq!(config(at + 4), 0, "in BAR 0");
        assert_eq!(u64::from(config(at + 8)), offset);
        assert_eq!(config(at + 12), len);
    }
    assert_eq!(config(structure(&driver, spec::PCI_CAP_NOTIFY) + 16), 4);
    let msix = msix_capability(&driver);
    assert_eq!(config(msix) >> 16, 2, "three vectors");
    assert_eq!(u64::from(config(msix + 4)), MSIX_TABLE);
    assert_eq!(u64::from(config(msix + 8)), MSIX_PENDING);
}

#[test]
fn decodes_where_the_guest_puts_it() {
    let (_, driver) = driver();
    let mut events = Vec::new();
    driver.function.io_events(&mut events);
    let addresses: Vec<_> = events.iter().map(|event| event.address).collect();
    assert_eq!(addresses, [u64::from(BAR) + NOTIFY, u64::from(BAR) + NOTIFY + 4]);
    assert!(
        events
            .iter()
            .all(|event| event.space == Space::Memory && event.width == 0)
    );
    driver.write(NOTIFY + 4, &1u16.to_le_bytes());
    assert_eq!(
        events[1].event.read().unwrap(),
        1,
        "a trapped write signals the same event"
    );

    let off = driver.function.config_write(0x04, 0, ByteEnables::of(0, 2));
    assert_eq!(off, Effect::Relayout);
    let (mut regions, mut events) = (Vec::new(), Vec::new());
    driver.function.regions(&mut regions);
    driver.function.io_events(&mut events);
    assert!(regions.is_empty() && events.is_empty());
}

#[test]
fn negotiates_only_what_is_offered_and_needs_version_1() {
    let (_, driver) = driver();
    assert_eq!(driver.offered(), 1 << 9 | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC);
    for refused in [0, 1 << 9, F_VERSION_1 | 1 << 5, F_VERSION_1 | 1 << 63] {
        driver.set_status(0);
        driver.set_status(3);
        driver.accept(refused);
        driver.set_status(0x0b);
        assert_eq!(driver.status(), 0x03, "{refused:#x}");
        driver.set_status(0x0f);
        assert_eq!(driver.status(), 0x03, "not ready without features");
    }
    driver.accept(F_VERSION_1);
    driver.set_status(0x0b);
    driver.accept(F_VERSION_1 | 1 << 9);
    assert_eq!(u32::from_le_bytes(driver.read(COMMON + 0x0c)), 1, "frozen");
}

#[test]
fn hands_the_queues_over_and_takes_them_back() {
    let (probe, mut driver) = driver();
    driver.start(F_EVENT_IDX);
    {
        let activation = lock(&probe.activation);
        let activation = activation.as_ref().expect("active");
        assert_eq!(activation.features, F_VERSION_1 | F_EVENT_IDX);
        assert_eq!(activation.queues.len(), 1, "only enabled queues");
    }
    driver.program_queue(4, 0, 0, 0);
    assert_eq!(
        u16::from_le_bytes(driver.read(COMMON + 0x18)),
        QUEUE_SIZE,
        "no changes while running"
    );
    assert_eq!(u64::from_le_bytes(driver.read(COMMON + 0x28)), AVAIL);
    driver.set_status(0);
    assert!(lock(&probe.activation).is_none());
    assert_eq!(driver.status(), 0);
    assert_eq!(u16::from_le_bytes(driver.read(COMMON + 0x18)), 64);
    assert_eq!(u64::from_le_bytes(driver.read(COMMON + 0x28)), 0);
}

#[test]
fn selects_among_its_queues_only() {
    let (_, driver) = driver();
    assert_eq!(u16::from_le_bytes(driver.read(COMMON + 0x12)), 2);
    driver.write(COMMON + 0x16, &1u16.to_le_bytes());
    assert_eq!(u16::from_le_bytes(driver.read(COMMON + 0x18)), 16);
    assert_eq!(u16::from_le_bytes(driver.read(COMMON + 0x1e)), 1, "notification offset");
    for size in [0u16, 3, 32, 0xffff] {
        driver.write(COMMON + 0x18, &size.to_le_bytes());
        assert_eq!(u16::from_le_bytes(driver.read(COMMON + 0x18)), 16, "{size}");
    }
    driver.write(COMMON + 0x16, &2u16.to_le_bytes());
    assert_eq!(u16::from_le_bytes(driver.read(COMMON + 0x18)), 0, "no such queue");
}

#[test]
fn rings_that_cannot_be_break_the_device_until_reset() {
    let outside = 1 << 20;
    for (size, desc, avail, used) in [
        (QUEUE_SIZE, DESC + 8, AVAIL, USED),
        (QUEUE_SIZE, DESC, AVAIL + 1, USED),
        (QUEUE_SIZE, DESC, AVAIL, USED + 2),
        (QUEUE_SIZE, outside, AVAIL, USED),
        (QUEUE_SIZE, DESC, u64::MAX - 1, USED),
        (64, DESC, AVAIL, outside - 4),
        (QUEUE_SIZE, 0, 0, 0),
    ] {
        let (probe, mut driver) = driver();
        driver.set_status(3);
        driver.accept(F_VERSION_1);
        driver.set_status(0x0b);
        driver.program_queue(size, desc, avail, used);
        driver.set_status(0x0f);
        assert_eq!(driver.status(), 0x4f, "{desc:#x} {avail:#x} {used:#x}");
        assert!(lock(&probe.activation).is_none());
        assert_eq!(driver.read::<1>(ISR), [spec::ISR_CONFIG]);
        driver.start(0);
        assert_eq!(driver.status(), 0x0f);
    }
}

#[test]
fn the_pin_follows_isr() {
    let (probe, mut driver) = driver();
    driver.start(0);
    let notifier = lock(&probe.activation)
        .as_ref()
        .map(|active| Arc::clone(&active.notifier))
        .unwrap();
    let status = || driver.function.config_read(0x04) >> 16 & 8 != 0;
    assert!(!driver.line.level() && !status());
    notifier.queue_used(0);
    assert!(driver.line.level() && status());
    assert_eq!(driver.read::<1>(ISR), [spec::ISR_QUEUE]);
    assert!(!driver.line.level() && !status());
    assert_eq!(driver.read::<1>(ISR), [0]);

    let _ = driver.function.config_write(0x04, 0x406, ByteEnables::of(0, 2));
    notifier.config_changed();
    assert!(!driver.line.level() && status(), "disabled, but pending");
    let _ = driver.function.config_write(0x04, 0x006, ByteEnables::of(0, 2));
    assert!(driver.line.level());
    set_msix(&driver, 0x8000);
    assert!(!driver.line.level(), "messages silence the pin");
    set_msix(&driver, 0);
    assert!(driver.line.level());
    driver.set_status(0);
    assert!(!driver.line.level());
}

#[test]
fn messages_follow_the_table_and_its_masks() {
    let (probe, mut driver) = driver();
    driver.start(0);
    let notifier = lock(&probe.activation)
        .as_ref()
        .map(|active| Arc::clone(&active.notifier))
        .unwrap();
    driver.write(COMMON + 0x1a, &1u16.to_le_bytes());
    driver.write(COMMON + 0x10, &3u16.to_le_bytes());
    assert_eq!(
        u16::from_le_bytes(driver.read(COMMON + 0x10)),
        NO_VECTOR,
        "no fourth vector"
    );
    let vector = Arc::clone(&driver.vectors[1]);
    let route = || *lock(&vector.route);

    write_entry(&driver, 1, message(0x41), false);
    assert_eq!(route(), None, "not enabled");
    set_msix(&driver, 0xc000);
    assert_eq!(route(), None, "all masked");
    notifier.queue_used(0);
    assert_eq!(driver.read::<1>(MSIX_PENDING), [2]);
    set_msix(&driver, 0x8000);
    assert_eq!(route(), Some(message(0x41)));
    assert_eq!(driver.read::<1>(MSIX_PENDING), [0]);
    assert_eq!(vector.take(), 1, "what was pending is delivered");

    driver.write(MSIX_TABLE + 16 + 12, &u32::MAX.to_le_bytes());
    assert_eq!(u32::from_le_bytes(driver.read(MSIX_TABLE + 16 + 12)), 1);
    assert_eq!(route(), None);
    write_entry(&driver, 1, message(0x42), false);
    assert_eq!(route(), Some(message(0x42)));
    notifier.queue_used(0);
    assert_eq!((vector.take(), driver.vectors[0].take()), (1, 0));
    notifier.config_changed();
    notifier.queue_used(1);
    assert!(
        driver.vectors.iter().all(|vector| vector.take() == 0),
        "not mapped to vectors"
    );
    assert!(!driver.line.level());
}

#[test]
fn odd_accesses_do_nothing() {
    let (_, driver) = driver();
    for offset in [
        0,
        1,
        0x13,
        0x37,
        0x38,
        0xfff,
        0x1001,
        0x3ffe,
        0x4002,
        0x402f,
        0x4ffc,
        0x5fff,
        0x6000,
        0x7ff8,
        u64::MAX,
    ] {
        for len in [0, 1, 2, 3, 4, 7, 8, 64] {
            let mut data = vec![0xa5; len];
            driver.bar().read(offset, &mut data);
            let _ = driver.bar().write(offset, &vec![0x5a; len]);
        }
    }
}

#[test]
fn the_window_in_config_space_reaches_the_bar() {
    let (_, driver) = driver();
    let window = structure(&driver, spec::PCI_CAP_PCI);
    let poke = |at, value| {
        let _ = driver.function.config_write(at, value, ByteEnables::ALL);
    };
    poke(window + 12, 1);
    poke(window + 8, COMMON as u32 + 0x14);
    poke(window + 16, 1);
    assert_eq!(driver.status(), 1);
    assert_eq!(driver.function.config_read(window + 16), 1);
    poke(window + 12, 3);
    poke(window + 16, 0);
    assert_eq!(driver.status(), 1, "no such width");
    poke(window + 12, 4);
    poke(window + 8, !3);
    poke(window + 16, 0);
    poke(window + 4, 1);
    poke(window + 8, DEVICE as u32);
    assert_eq!(
        driver.function.config_read(window + 16),
        0,
        "what was written, as there is no BAR 1"
    );
    poke(window + 4, 0);
    assert_eq!(driver.function.config_read(window + 16), 0x4040_4040);
}

#[test]
fn without_bus_mastering_the_device_rests() {
    let (probe, driver) = driver();
    assert!(*lock(&probe.running));
    let _ = driver.function.config_write(0x04, 0x2, ByteEnables::of(0, 2));
    assert!(!*lock(&probe.running));
}

#[test]
fn platform_reset_is_power_on() {
    let (probe, mut driver) = driver();
    driver.start(0);
    let notifier = lock(&probe.activation)
        .as_ref()
        .map(|active| Arc::clone(&active.notifier))
        .unwrap();
    notifier.queue_used(0);
    driver.write(COMMON + 0x1a, &0u16.to_le_bytes());
    set_msix(&driver, 0x8000);
    write_entry(&driver, 0, message(7), false);
    driver.write(MSIX_TABLE + 12, &1u32.to_le_bytes());
    notifier.queue_used(0);

    driver.function.reset();
    assert!(!driver.line.level() && !*lock(&probe.running));
    assert!(*lock(&probe.resets) >= 2);
    assert_eq!(driver.function.config_read(0x10), 0);
    driver.enable();
    assert_eq!(driver.status(), 0);
    assert_eq!(
        driver.read::<16>(MSIX_TABLE),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    );
    assert_eq!(driver.vectors[0].take(), 0, "no interrupt of the life before");
    assert_eq!(driver.function.config_read(msix_capability(&driver)) >> 16, 2);
}
