//! Disks, driven through the transport as a guest drives them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::tempfile::TempFile;

use super::{Block, DiskError, DiskOptions, ImageError};
use crate::pci::{ByteEnables, PciFunction};
use crate::virtio::spec::{self, BLK_F_FLUSH, F_EVENT_IDX, F_INDIRECT_DESC};
use crate::virtio::testing::{
    AVAIL, BUFFERS, COMMON, DESC, DEVICE, Driver, ISR, QUEUE_SIZE, USED, readable, wait_until, writable,
};

const SECTORS: u64 = 128;
const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;
/// Where the two regions of guest memory touch.
const SEAM: u64 = 1 << 19;
const ALL: u64 = u64::MAX;

fn pattern(sector: u64) -> Vec<u8> {
    (0..512u64).map(|at| (sector * 7 + at) as u8).collect()
}

fn image() -> TempFile {
    let file = TempFile::new().unwrap();
    for sector in 0..SECTORS {
        file.as_file().write_all_at(&pattern(sector), sector * 512).unwrap();
    }
    file
}

fn options(path: &Path, readonly: bool) -> DiskOptions {
    DiskOptions {
        path: path.to_owned(),
        readonly,
        serial: None,
    }
}

struct Setup {
    file: TempFile,
    block: Arc<Block>,
    driver: Driver,
}

fn setup(readonly: bool, features: u64) -> Setup {
    let file = image();
    let block = Arc::new(Block::open("disk0", &options(file.as_path(), readonly)).unwrap());
    let mut driver = Driver::new(Arc::clone(&block) as Arc<dyn crate::virtio::VirtioDevice>);
    driver.start(features);
    Setup { file, block, driver }
}

impl Setup {
    fn header(&self, kind: u32, sector: u64) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        self.driver.fill(HEADER, &bytes);
        self.driver.fill(STATUS, &[0xee]);
    }

    fn status(&self) -> u8 {
        self.driver.bytes(STATUS, 1)[0]
    }

    fn read(&mut self, sector: u64, len: u32) -> u8 {
        self.header(spec::BLK_T_IN, sector);
        let buffers = [readable(HEADER, 16), writable(DATA, len), writable(STATUS, 1)];
        let written = self.driver.submit(&buffers);
        let expected = if self.status() == spec::BLK_S_OK { len + 1 } else { 1 };
        assert_eq!(written, expected);
        self.status()
    }

    fn send(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        self.header(kind, sector);
        self.driver.fill(DATA, data);
        let buffers = [
            readable(HEADER, 16),
            readable(DATA, data.len() as u32),
            writable(STATUS, 1),
        ];
        assert_eq!(self.driver.submit(&buffers), 1);
        self.status()
    }

    fn range(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
        let mut range = sector.to_le_bytes().to_vec();
        range.extend(sectors.to_le_bytes());
        range.extend(flags.to_le_bytes());
        self.send(kind, 0, &range)
    }

    fn on_disk(&self, sector: u64) -> Vec<u8> {
        let mut data = vec![0; 512];
        self.file.as_file().read_exact_at(&mut data, sector * 512).unwrap();
        data
    }
}

#[test]
fn reads_writes_and_flushes() {
    let mut disk = setup(false, ALL);
    assert_eq!(disk.read(3, 1024), spec::BLK_S_OK);
    assert_eq!(disk.driver.bytes(DATA, 1024), [pattern(3), pattern(4)].concat());
    assert_eq!(disk.send(spec::BLK_T_OUT, SECTORS - 1, &[0x5a; 512]), spec::BLK_S_OK);
    assert_eq!(disk.on_disk(SECTORS - 1), [0x5a; 512]);
    assert_eq!(disk.send(spec::BLK_T_FLUSH, 0, &[]), spec::BLK_S_OK);
    let counters = disk.block.statistics().counters();
    assert_eq!((counters.reads, counters.bytes_read), (1, 1024));
    assert_eq!((counters.writes, counters.bytes_written), (1, 512));
    assert_eq!((counters.flushes, counters.errors), (1, 0));
}

#[test]
fn framing_means_nothing() {
    let mut disk = setup(false, 0);
    disk.header(spec::BLK_T_IN, 5);
    let buffers = [
        readable(HEADER, 5),
        readable(HEADER + 5, 11),
        writable(SEAM - 100, 300),
        writable(DATA, 0),
        writable(DATA, 213),
    ];
    // The status is the last byte of the last buffer.
    assert_eq!(disk.driver.submit(&buffers), 513);
    assert_eq!(disk.driver.bytes(SEAM - 100, 300), pattern(5)[..300]);
    assert_eq!(disk.driver.bytes(DATA, 212), pattern(5)[300..]);
    assert_eq!(disk.driver.bytes(DATA + 212, 1), [spec::BLK_S_OK]);
}

#[test]
fn indirect_tables() {
    let mut disk = setup(false, F_INDIRECT_DESC);
    disk.header(spec::BLK_T_IN, 9);
    let table = BUFFERS + 0x4000;
    // More buffers than the queue has entries, as drivers do.
    let mut buffers = vec![readable(HEADER, 16)];
    buffers.extend((0..16).map(|part| writable(DATA + 64 * part, 32)));
    buffers.push(writable(STATUS, 1));
    disk.driver.chain(table, 0, &buffers);
    let entry = readable(table, 16 * buffers.len() as u32);
    disk.driver.descriptor(DESC, 2, entry, 4, 0);
    disk.driver.offer(2);
    disk.driver.notify();
    assert_eq!(disk.driver.wait_used(), (2, 513));
    assert_eq!(disk.driver.bytes(DATA + 64 * 15, 32), pattern(9)[480..]);
}

#[test]
fn what_is_not_on_the_disk_is_an_error() {
    let mut disk = setup(false, ALL);
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 1024),
        (0, 100),
    ] {
        assert_eq!(disk.read(sector, len), spec::BLK_S_IOERR, "{sector:#x} {len}");
        assert_eq!(
            disk.send(spec::BLK_T_OUT, sector, &vec![1; len as usize]),
            spec::BLK_S_IOERR
        );
    }
    assert_eq!(disk.read(0, 0), spec::BLK_S_OK);
    for kind in [2, 3, 5, 99, u32::MAX] {
        assert_eq!(disk.send(kind, 0, &[]), spec::BLK_S_UNSUPP);
    }
    assert_eq!(disk.file.as_file().metadata().unwrap().len(), SECTORS * 512);
}

#[test]
fn buffers_outside_memory_fail_the_request_only() {
    let mut disk = setup(false, ALL);
    for address in [1 << 20, (1 << 20) - 100, u64::MAX - 100] {
        disk.header(spec::BLK_T_IN, 0);
        let buffers = [readable(HEADER, 16), writable(address, 512), writable(STATUS, 1)];
        assert_eq!(disk.driver.submit(&buffers), 1);
        assert_eq!(disk.status(), spec::BLK_S_IOERR);
    }
    disk.driver.submit(&[readable(HEADER, 15), writable(STATUS, 1)]);
    assert_eq!(disk.status(), spec::BLK_S_IOERR, "half a header");
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
}

#[test]
fn a_file_that_shrank_fails_reads_but_not_the_machine() {
    let mut disk = setup(false, ALL);
    disk.file.as_file().set_len(512).unwrap();
    assert_eq!(disk.read(1, 512), spec::BLK_S_IOERR);
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
}

#[test]
fn readonly_disks_are_not_written() {
    let mut disk = setup(true, ALL);
    assert_ne!(disk.driver.offered() & spec::BLK_F_RO, 0);
    assert_eq!(disk.send(spec::BLK_T_OUT, 0, &[1; 512]), spec::BLK_S_IOERR);
    assert_eq!(disk.range(spec::BLK_T_DISCARD, 0, 8, 0), spec::BLK_S_UNSUPP);
    assert_eq!(disk.on_disk(0), pattern(0));
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
    assert_eq!(disk.send(spec::BLK_T_FLUSH, 0, &[]), spec::BLK_S_OK);
}

#[test]
fn discards_and_writes_zeroes() {
    let mut disk = setup(false, ALL);
    assert_eq!(disk.range(spec::BLK_T_WRITE_ZEROES, 8, 3, 0), spec::BLK_S_OK);
    assert_eq!(disk.range(spec::BLK_T_WRITE_ZEROES, 16, 8, 1), spec::BLK_S_OK);
    for sector in [8, 10, 16, 23] {
        assert_eq!(disk.on_disk(sector), [0; 512], "{sector}");
    }
    for sector in [7, 11, 15, 24] {
        assert_eq!(disk.on_disk(sector), pattern(sector), "{sector}");
    }
    assert_eq!(disk.range(spec::BLK_T_DISCARD, 32, 8, 0), spec::BLK_S_OK);
    assert_eq!(disk.range(spec::BLK_T_DISCARD, 32, 8, 1), spec::BLK_S_UNSUPP);
    assert_eq!(disk.range(spec::BLK_T_WRITE_ZEROES, 0, 1, 2), spec::BLK_S_UNSUPP);
    assert_eq!(disk.range(spec::BLK_T_WRITE_ZEROES, SECTORS, 1, 0), spec::BLK_S_IOERR);
    assert_eq!(disk.range(spec::BLK_T_WRITE_ZEROES, 0, u32::MAX, 0), spec::BLK_S_IOERR);
    assert_eq!(disk.range(spec::BLK_T_DISCARD, u64::MAX, 1, 0), spec::BLK_S_IOERR);
    assert_eq!(disk.send(spec::BLK_T_DISCARD, 0, &[0; 32]), spec::BLK_S_IOERR);
    assert_eq!(disk.file.as_file().metadata().unwrap().len(), SECTORS * 512);
}

#[test]
fn tells_its_serial_and_its_shape() {
    let mut disk = setup(false, ALL);
    disk.header(spec::BLK_T_GET_ID, 0);
    disk.driver.fill(DATA, &[0xee; 20]);
    let written = disk
        .driver
        .submit(&[readable(HEADER, 16), writable(DATA, 20), writable(STATUS, 1)]);
    assert_eq!(written, 21);
    assert_eq!(disk.driver.bytes(DATA, 20), b"disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(u64::from_le_bytes(disk.driver.read(DEVICE)), SECTORS);
    assert_eq!(u32::from_le_bytes(disk.driver.read(DEVICE + 12)), 254);
    assert_eq!(u32::from_le_bytes(disk.driver.read(DEVICE + 20)), 512);
    assert_eq!(disk.driver.read::<4>(DEVICE + 24), [3, 0, 8, 0]);
    assert_eq!(disk.driver.read::<8>(DEVICE + 60), [0; 8]);
}

#[test]
fn broken_rings_break_only_until_the_reset() {
    let mut disk = setup(false, ALL);
    let breakages: [fn(&mut Setup); 7] = [
        // No room for a status.
        |disk| disk.driver.chain(DESC, 0, &[readable(HEADER, 16)]),
        // A loop.
        |disk| disk.driver.descriptor(DESC, 0, readable(HEADER, 16), 1, 0),
        // On to a descriptor that is none.
        |disk| disk.driver.descriptor(DESC, 0, writable(STATUS, 1), 1, QUEUE_SIZE),
        // Readable after writable.
        |disk| disk.driver.chain(DESC, 0, &[writable(STATUS, 1), readable(HEADER, 16)]),
        // A table within a table.
        |disk| {
            disk.driver.descriptor(DATA, 0, readable(DATA, 16), 4, 0);
            disk.driver.descriptor(DESC, 0, readable(DATA, 16), 4, 0);
        },
        // A table outside memory.
        |disk| disk.driver.descriptor(DESC, 0, readable(1 << 30, 16), 4, 0),
        // A status outside memory.
        |disk| {
            let buffers = [readable(HEADER, 16), writable(1 << 30, 1)];
            disk.driver.chain(DESC, 0, &buffers);
        },
    ];
    for (index, breakage) in breakages.iter().enumerate() {
        disk.driver.start(ALL & !F_EVENT_IDX);
        breakage(&mut disk);
        disk.driver.offer(0);
        disk.driver.notify();
        disk.driver.wait_needs_reset();
        assert_eq!(disk.driver.used_index(), 0, "{index}");
        assert_eq!(disk.driver.read::<1>(ISR), [spec::ISR_CONFIG], "{index}");
    }
    for (at, value) in [(AVAIL + 2, 0x4000u16), (AVAIL + 4, QUEUE_SIZE)] {
        disk.driver.start(ALL);
        disk.driver.memory.write_obj(value, GuestAddress(at)).unwrap();
        if at != AVAIL + 2 {
            disk.driver.memory.write_obj(1u16, GuestAddress(AVAIL + 2)).unwrap();
        }
        disk.driver.notify();
        disk.driver.wait_needs_reset();
    }
    assert_eq!(disk.block.statistics().counters().errors, breakages.len() as u64 + 2);
    disk.driver.start(ALL);
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
}

#[test]
fn no_ring_brings_the_thread_down() {
    let mut disk = setup(false, ALL);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) % below
    };
    for round in 0..400 {
        disk.driver.start(if round % 2 == 0 { ALL } else { 0 });
        let addresses = [
            HEADER,
            STATUS,
            DATA,
            SEAM - 8,
            DESC,
            AVAIL,
            USED,
            (1 << 20) - 8,
            1 << 20,
            u64::MAX - 8,
        ];
        let lens = [0, 1, 15, 16, 17, 32, 512, 4096, 1 << 20, u32::MAX];
        for table in [DESC, DATA] {
            for index in 0..QUEUE_SIZE {
                let address = addresses[random(10) as usize];
                let buffer = readable(address, lens[random(10) as usize]);
                let (flags, next) = (random(8) as u16, random(10) as u16);
                disk.driver.descriptor(table, index, buffer, flags, next);
            }
        }
        let kind = [0, 1, 4, 8, 11, 13, 14][random(7) as usize];
        disk.header(kind, random(SECTORS + 8));
        for _ in 0..random(9) {
            disk.driver.offer(random(9) as u16);
        }
        disk.driver.notify();
        std::thread::sleep(std::time::Duration::from_micros(random(300)));
    }
    disk.driver.start(ALL);
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
}

#[test]
fn polling_drivers_are_not_interrupted() {
    let mut disk = setup(false, 0);
    disk.driver.memory.write_obj(1u16, GuestAddress(AVAIL)).unwrap();
    for _ in 0..20 {
        assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
    }
    // The interrupt of a request comes before the use of the next.
    assert!(!disk.driver.line.level());
    disk.driver.memory.write_obj(0u16, GuestAddress(AVAIL)).unwrap();
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
    wait_until("the pin", || disk.driver.line.level());
    assert_eq!(disk.driver.read::<1>(ISR), [spec::ISR_QUEUE]);
    assert!(!disk.driver.line.level());
}

#[test]
fn interrupts_by_message_and_by_event_index() {
    let mut disk = setup(false, F_EVENT_IDX | BLK_F_FLUSH);
    disk.driver.write(COMMON + 0x1a, &1u16.to_le_bytes());
    let _ = disk
        .driver
        .function
        .config_write(0x40, 0x8000_0000, ByteEnables::of(2, 2));
    // used_event: the driver sleeps until three requests are done.
    let used_event = GuestAddress(AVAIL + 4 + 2 * u64::from(QUEUE_SIZE));
    disk.driver.memory.store(2u16, used_event, Ordering::Release).unwrap();
    for _ in 0..3 {
        assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
    }
    disk.driver.vectors[1].wait();
    // avail_event: the device asks to be told of the next request once it sleeps.
    let avail_event = GuestAddress(USED + 4 + 8 * u64::from(QUEUE_SIZE));
    wait_until("avail_event", || {
        let wanted: u16 = disk.driver.memory.load(avail_event, Ordering::Acquire).unwrap();
        wanted == disk.driver.available
    });
    assert_eq!(disk.block.statistics().counters().interrupts, 1);
    assert!(!disk.driver.line.level());
}

#[test]
fn a_full_ring_of_requests_keeps_its_order_and_wraps() {
    let mut disk = setup(false, F_EVENT_IDX);
    for round in 0..40u64 {
        for slot in 0..2u64 {
            let sector = (2 * round + slot) % SECTORS;
            let header = HEADER + 0x200 * slot;
            disk.driver.fill(header, &[0; 16]);
            disk.driver.fill(header + 8, &sector.to_le_bytes());
            let data = writable(DATA + 0x400 * slot, 512);
            let buffers = [readable(header, 16), data, writable(header + 0x100, 1)];
            disk.driver.chain(DESC, 4 * slot as u16, &buffers);
            disk.driver.offer(4 * slot as u16);
        }
        disk.driver.notify();
        assert_eq!(disk.driver.wait_used(), (0, 513));
        assert_eq!(disk.driver.wait_used(), (4, 513));
        assert_eq!(disk.driver.bytes(DATA, 512), pattern(2 * round % SECTORS));
        assert_eq!(disk.driver.bytes(DATA + 0x400, 512), pattern((2 * round + 1) % SECTORS));
    }
}

#[test]
fn nothing_happens_after_a_reset_or_without_bus_mastering() {
    let mut disk = setup(false, ALL);
    assert_eq!(disk.read(0, 512), spec::BLK_S_OK);
    let _ = disk.driver.function.config_write(0x04, 0x2, ByteEnables::of(0, 2));
    disk.header(spec::BLK_T_IN, 0);
    disk.driver.chain(
        DESC,
        0,
        &[readable(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)],
    );
    disk.driver.offer(0);
    disk.driver.notify();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(disk.status(), 0xee);
    let _ = disk.driver.function.config_write(0x04, 0x6, ByteEnables::of(0, 2));
    disk.driver.wait_used();
    assert_eq!(disk.status(), spec::BLK_S_OK, "what came meanwhile is done");

    disk.driver.set_status(0);
    disk.header(spec::BLK_T_IN, 0);
    disk.driver.offer(0);
    disk.driver.notify();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(disk.status(), 0xee);
    for _ in 0..50 {
        disk.driver.start(ALL);
        assert_eq!(disk.read(1, 512), spec::BLK_S_OK);
    }
    disk.driver.function.reset();
    disk.driver.enable();
    disk.driver.start(ALL);
    assert_eq!(disk.read(1, 512), spec::BLK_S_OK);
}

#[test]
fn a_written_disk_belongs_to_one_machine() {
    let file = image();
    let open = |readonly| Block::open("disk0", &options(file.as_path(), readonly));
    let writer = open(false).unwrap();
    for readonly in [false, true] {
        let error = open(readonly).unwrap_err();
        assert!(matches!(error, DiskError::Image(ImageError::Busy { .. })));
        assert!(error.to_string().contains(&file.as_path().display().to_string()));
    }
    drop(writer);
    let _readers = (open(true).unwrap(), open(true).unwrap());
    assert!(open(false).is_err());
}

#[test]
fn what_is_no_disk_is_refused_with_its_path() {
    let file = TempFile::new().unwrap();
    let open = |path: &Path, readonly| Block::open("disk0", &options(path, readonly)).unwrap_err().to_string();
    let path = file.as_path().display().to_string();
    for size in [0, 1, 511, 513] {
        file.as_file().set_len(size).unwrap();
        let message = open(file.as_path(), false);
        assert!(
            message.contains(&path) && message.contains(&format!("{size} bytes")),
            "{message}"
        );
    }
    assert!(open(Path::new("/nonexistent/disk.img"), false).contains("/nonexistent/disk.img"));
    assert!(open(Path::new("/dev/null"), true).contains("neither"));
    assert!(open(Path::new("/"), true).contains("neither"));

    file.as_file().set_len(512).unwrap();
    for serial in ["", "twenty-one-characters", "a b", "\u{e9}"] {
        let options = DiskOptions {
            serial: Some(serial.to_owned()),
            ..options(file.as_path(), false)
        };
        assert!(
            matches!(Block::open("disk0", &options), Err(DiskError::Serial { .. })),
            "{serial}"
        );
    }
    // What was refused holds no lock.
    File::open(file.as_path()).unwrap().try_lock().unwrap();
}
