use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const RAM: usize = 1 << 20;
const DESCRIPTOR: u64 = 0x1000;

fn memory() -> Arc<GuestMemoryMmap> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap())
}

struct Rig {
    device: Arc<FwCfg>,
    memory: Arc<GuestMemoryMmap>,
}

impl Rig {
    fn new(items: FwCfgItems) -> Self {
        let memory = memory();
        Self {
            device: FwCfg::new(items, Arc::<GuestMemoryMmap>::clone(&memory)),
            memory,
        }
    }

    fn select(&self, key: u16) {
        assert_eq!(self.device.write(0, &key.to_le_bytes()), Effect::None);
    }

    /// As `rep insb` arrives.
    fn bytes(&self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                let mut byte = [0xee];
                self.device.read(1, &mut byte);
                byte[0]
            })
            .collect()
    }

    /// Runs a descriptor and returns what its control word became.
    fn dma(&self, control: u32, len: u32, address: u64) -> u32 {
        let mut descriptor = control.to_be_bytes().to_vec();
        descriptor.extend(len.to_be_bytes());
        descriptor.extend(address.to_be_bytes());
        assert!(GuestBytes::write(&*self.memory, DESCRIPTOR, &descriptor));
        let _ = self.device.write(4, &0u32.to_be_bytes());
        let _ = self.device.write(8, &(DESCRIPTOR as u32).to_be_bytes());
        u32::from_be_bytes(self.ram(DESCRIPTOR, 4).try_into().unwrap())
    }

    fn ram(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(GuestBytes::read(&*self.memory, address, &mut bytes));
        bytes
    }

    fn key_of(&self, name: &str) -> u16 {
        self.select(key::FILE_DIR);
        let count = u32::from_be_bytes(self.bytes(4).try_into().unwrap());
        let files: Vec<Vec<u8>> = (0..count).map(|_| self.bytes(64)).collect();
        let found = files
            .iter()
            .find(|file| file[8..].starts_with(format!("{name}\0").as_bytes()))
            .unwrap();
        u16::from_be_bytes([found[4], found[5]])
    }
}

fn fixed(bytes: &[u8]) -> FileContent {
    FileContent::Fixed(bytes.to_vec())
}

#[test]
fn firmware_recognises_the_interface() {
    let rig = Rig::new(FwCfgItems::new());
    rig.select(key::SIGNATURE);
    assert_eq!(rig.bytes(6), b"QEMU\0\0");
    rig.select(key::FEATURES);
    assert_eq!(rig.bytes(4), [3, 0, 0, 0]);
    let mut high = [0; 4];
    let mut low = [0; 4];
    rig.device.read(4, &mut high);
    rig.device.read(8, &mut low);
    assert_eq!((&high, &low), (b"QEMU", b" CFG"));
}

#[test]
fn numbers_are_little_endian_and_absent_items_are_zero() {
    let mut items = FwCfgItems::new();
    items.add_u16(key::NB_CPUS, 0x0102).unwrap();
    items.add_u32(0x08, 1).unwrap();
    items.add_u64(0x03, 2).unwrap();
    assert_eq!(items.add_u16(key::NB_CPUS, 1), Err(FwCfgError::KeyTaken { key: 5 }));
    assert!(items.add_u16(key::FILE_DIR, 1).is_err());
    assert!(items.add_u16(0x25, 1).is_err());
    let rig = Rig::new(items);
    rig.select(key::NB_CPUS);
    assert_eq!(rig.bytes(3), [2, 1, 0]);
    rig.select(key::NB_CPUS | 0x4000);
    assert_eq!(rig.bytes(1), [2]);
    rig.select(0x0017);
    assert_eq!(rig.bytes(4), [0; 4]);
}

#[test]
fn the_directory_is_sorted_and_big_endian() {
    let mut items = FwCfgItems::new();
    items.add_file("opt/b", fixed(&[1, 2, 3])).unwrap();
    items.add_file("bootorder", fixed(&[])).unwrap();
    let rig = Rig::new(items);
    rig.select(key::FILE_DIR);
    let directory = rig.bytes(4 + 2 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..12], [0, 0, 0, 0, 0, 0x20, 0, 0]);
    assert!(directory[12..].starts_with(b"bootorder\0"));
    assert_eq!(directory[68..76], [0, 0, 0, 3, 0, 0x21, 0, 0]);
    assert!(directory[76..].starts_with(b"opt/b\0"));
    rig.select(rig.key_of("opt/b"));
    assert_eq!(rig.bytes(4), [1, 2, 3, 0]);
}

#[test]
fn bad_names_are_refused() {
    let mut items = FwCfgItems::new();
    items.add_file(&"x".repeat(55), fixed(&[])).unwrap();
    for name in ["", &"x".repeat(56), "a\0b"] {
        let name = name.to_owned();
        assert_eq!(items.add_file(&name, fixed(&[])), Err(FwCfgError::Name { name }));
    }
    assert!(matches!(
        items.add_file(&"x".repeat(55), fixed(&[])),
        Err(FwCfgError::Duplicate { .. })
    ));
}

#[test]
fn dma_selects_skips_and_reads_with_zeros_beyond_the_end() {
    let mut items = FwCfgItems::new();
    items.add_file("f", fixed(b"abcdef")).unwrap();
    let rig = Rig::new(items);
    let select = u32::from(rig.key_of("f")) << 16 | control::SELECT;
    assert!(GuestBytes::write(&*rig.memory, 0x2000, &[0xee; 16]));
    assert_eq!(rig.dma(select | control::SKIP, 2, 0), 0);
    assert_eq!(rig.dma(control::READ, 2, 0x2000), 0);
    assert_eq!(rig.dma(control::READ, 6, 0x2002), 0);
    assert_eq!(rig.ram(0x2000, 9), b"cdef\0\0\0\0\xee");
    assert_eq!(rig.dma(control::READ, 0, u64::MAX), 0, "no bytes, no error");
    rig.select(rig.key_of("f"));
    assert_eq!(rig.bytes(1), b"a", "the ports go on with the same item");
    assert_eq!(rig.dma(control::READ, 1, 0x2000), 0);
    assert_eq!(rig.ram(0x2000, 1), b"b");
}

#[test]
fn dma_copies_more_than_a_chunk() {
    let content: Vec<u8> = (0..CHUNK * 2 + 77).map(|index| (index / 7) as u8).collect();
    let mut items = FwCfgItems::new();
    items.add_file("f", fixed(&content)).unwrap();
    let rig = Rig::new(items);
    rig.select(rig.key_of("f"));
    assert_eq!(rig.dma(control::READ, content.len() as u32, 0x2000), 0);
    assert_eq!(rig.ram(0x2000, content.len()), content);
}

#[test]
fn dma_outside_ram_is_an_error_and_ends_soon() {
    let rig = Rig::new(FwCfgItems::new());
    assert_eq!(rig.dma(control::READ, 16, RAM as u64), control::ERROR);
    assert_eq!(rig.dma(control::READ, 16, RAM as u64 - 8), control::ERROR);
    assert_eq!(rig.dma(control::READ, 16, u64::MAX - 8), control::ERROR);
    assert_eq!(rig.dma(control::READ, u32::MAX, 0x2000), control::ERROR);
    assert_eq!(rig.dma(control::SKIP, u32::MAX, 0), 0);
    // A descriptor that is not RAM, high half first.
    let _ = rig.device.write(4, &1u32.to_be_bytes());
    let _ = rig.device.write(8, &0u32.to_be_bytes());
    assert_eq!(rig.dma(control::SKIP, 0, 0), 0, "the high half does not stay");
}

#[test]
fn the_guest_writes_writable_files_alone() {
    let mut items = FwCfgItems::new();
    items
        .add_file("etc/address", FileContent::Writable(vec![0; 8]))
        .unwrap();
    items.add_file("etc/fixed", fixed(&[0; 8])).unwrap();
    let rig = Rig::new(items);
    assert!(GuestBytes::write(&*rig.memory, 0x2000, &[1, 2, 3, 4, 5]));
    rig.select(rig.key_of("etc/address"));
    assert_eq!(rig.dma(control::SKIP, 4, 0), 0);
    assert_eq!(rig.dma(control::WRITE, 4, 0x2000), 0);
    assert_eq!(rig.device.file("etc/address").unwrap(), [0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(rig.dma(control::WRITE, 1, 0x2000), control::ERROR, "full");
    rig.select(rig.key_of("etc/fixed"));
    assert_eq!(rig.dma(control::WRITE, 1, 0x2000), control::ERROR);
    assert_eq!(rig.device.file("nothing"), None);
    rig.device.reset();
    assert_eq!(rig.device.file("etc/address").unwrap(), [0; 8]);
}

fn tables(count: &Arc<AtomicUsize>, second: usize) -> FwCfgItems {
    let mut items = FwCfgItems::new();
    let count = Arc::clone(count);
    let generator = Box::new(move || {
        let time = count.fetch_add(1, Ordering::Relaxed) as u8 + 1;
        vec![vec![time; 2], vec![time; second]]
    });
    items
        .add_lazy(&[("etc/table-loader", 4), ("etc/acpi/tables", 4)], generator)
        .unwrap();
    items
}

#[test]
fn a_lazy_set_is_made_once_when_first_read_and_again_after_a_reset() {
    let count = Arc::new(AtomicUsize::new(0));
    let rig = Rig::new(tables(&count, 4));
    let (loader, blob) = (rig.key_of("etc/table-loader"), rig.key_of("etc/acpi/tables"));
    rig.select(loader);
    assert_eq!(
        count.load(Ordering::Relaxed),
        0,
        "the directory and a selection tell nothing"
    );
    assert_eq!(rig.bytes(5), [1, 1, 0, 0, 0]);
    rig.select(blob);
    assert_eq!(rig.bytes(4), [1; 4]);
    rig.device.reset();
    rig.select(blob);
    assert_eq!(rig.bytes(4), [2; 4]);
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[test]
fn a_lazy_set_that_does_not_fit_is_all_zeros() {
    let rig = Rig::new(tables(&Arc::default(), 5));
    rig.select(rig.key_of("etc/table-loader"));
    assert_eq!(rig.bytes(4), [0; 4]);
}

#[test]
fn accesses_of_any_shape_are_survived() {
    let rig = Rig::new(FwCfgItems::new());
    for offset in [0, 1, 2, 3, 4, 7, 8, 11, 12, u64::MAX] {
        for len in [0, 1, 2, 3, 4, 8, 16] {
            rig.device.read(offset, &mut vec![0; len]);
            let _ = rig.device.write(offset, &vec![0xff; len]);
        }
    }
}
