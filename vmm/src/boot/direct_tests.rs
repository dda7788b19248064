//! Tests of loading, on kernels of a header and a few bytes.

use linux_loader::loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_modlist_entry, hvm_start_info};
use vm_memory::ByteValued;
use vmm_sys_util::tempdir::TempDir;

use super::*;

const RAM: u64 = 128 << 20;
const PAYLOAD: [u8; 0x3000] = [0x90; 0x3000];

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap()
}

fn e820() -> Vec<E820Entry> {
    let ram = |base, end| E820Entry {
        base,
        len: end - base,
        kind: E820Entry::RAM,
    };
    let tables = E820Entry {
        base: RAM - 0x1_0000,
        len: 0x1_0000,
        kind: 3,
    };
    vec![ram(0, 0x9_fc00), ram(0x10_0000, RAM - 0x1_0000), tables]
}

struct Files(TempDir);

impl Files {
    fn new(kernel: &[u8], initrd: &[u8]) -> Self {
        let files = Self(TempDir::new().unwrap());
        fs::write(files.kernel(), kernel).unwrap();
        fs::write(files.initrd(), initrd).unwrap();
        files
    }

    fn kernel(&self) -> PathBuf {
        self.0.as_path().join("kernel")
    }

    fn initrd(&self) -> PathBuf {
        self.0.as_path().join("initrd")
    }

    fn open(&self, cmdline: &str) -> Result<DirectKernel, Error> {
        DirectKernel::open(&self.kernel(), Some(&self.initrd()), cmdline)
    }
}

fn bytes(memory: &GuestMemoryMmap, address: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

#[test]
fn bzimage_is_loaded_with_all_that_belongs_to_it() {
    let files = Files::new(&bzimage::sample(&PAYLOAD, 0x020f), &[0x55; 5000]);
    let memory = memory();
    let kernel = files.open("console=ttyS0").unwrap();
    let entry = kernel.load(&memory, &e820(), 0xe_0000).unwrap();
    assert_eq!((entry.rip, entry.rsi, entry.rbx), (0x10_0000, layout::BOOT_PARAMS, 0));
    assert_eq!(bytes(&memory, 0x10_0000, PAYLOAD.len()), PAYLOAD);
    assert_eq!(bytes(&memory, layout::COMMAND_LINE, 14), b"console=ttyS0\0");

    let mut params = boot_params::default();
    memory
        .read_slice(params.as_mut_slice(), GuestAddress(entry.rsi))
        .unwrap();
    let (header, rsdp) = (params.hdr, params.acpi_rsdp_addr);
    assert_eq!((rsdp, params.e820_entries, header.type_of_loader), (0xe_0000, 3, 0xff));
    let table = params.e820_table;
    let (base, kind) = (table[2].addr, table[2].r#type);
    assert_eq!((base, kind), (RAM - 0x1_0000, 3));
    let (image, size) = (header.ramdisk_image, header.ramdisk_size);
    // Just below the ACPI tables, on a page.
    assert_eq!((u64::from(image), size), (RAM - 0x1_0000 - 0x2000, 5000));
    assert_eq!(bytes(&memory, image.into(), 5000), [0x55; 5000]);
}

#[test]
fn pvh_is_loaded_with_all_that_belongs_to_it() {
    let files = Files::new(&pvh::sample(&PAYLOAD, 18), &[0x55; 5000]);
    let memory = memory();
    let kernel = files.open("console=ttyS0").unwrap();
    let entry = kernel.load(&memory, &e820(), 0xe_0000).unwrap();
    assert_eq!((entry.rip, entry.rsi, entry.rbx), (0x100_0020, 0, layout::START_INFO));
    assert_eq!(bytes(&memory, 0x100_0000, PAYLOAD.len()), PAYLOAD);

    let mut info = hvm_start_info::default();
    memory.read_slice(info.as_mut_slice(), GuestAddress(entry.rbx)).unwrap();
    assert_eq!(
        (info.magic, info.version, info.memmap_entries, info.nr_modules),
        (0x336e_c578, 1, 3, 1)
    );
    assert_eq!((info.rsdp_paddr, info.cmdline_paddr), (0xe_0000, layout::COMMAND_LINE));
    let mut module = hvm_modlist_entry::default();
    memory
        .read_slice(module.as_mut_slice(), GuestAddress(info.modlist_paddr))
        .unwrap();
    assert_eq!((module.paddr, module.size), (RAM - 0x1_0000 - 0x2000, 5000));
}

#[test]
fn loading_again_brings_everything_back() {
    let bzimage = (bzimage::sample(&PAYLOAD, 0x020f), [0x10_0000, layout::BOOT_PARAMS]);
    // The last bytes of the vmlinux are zeros that are in no file.
    let vmlinux = (
        pvh::sample(&PAYLOAD, 18),
        [0x100_0000 + 2 * PAYLOAD.len() as u64 - 32, layout::START_INFO],
    );
    for (image, places) in [bzimage, vmlinux] {
        let files = Files::new(&image, b"initrd");
        let memory = memory();
        let kernel = files.open(&"a".repeat(40)).unwrap();
        let first = kernel.load(&memory, &e820(), 0).unwrap();
        let places = [&places[..], &[layout::GDT, layout::COMMAND_LINE]].concat();
        let before: Vec<_> = places.iter().map(|place| bytes(&memory, *place, 32)).collect();
        for place in &places {
            memory.write_slice(&[0xee; 32], GuestAddress(*place)).unwrap();
        }
        assert_eq!(kernel.load(&memory, &e820(), 0).unwrap(), first);
        let after: Vec<_> = places.iter().map(|place| bytes(&memory, *place, 32)).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn files_that_are_no_kernel_are_refused() {
    let refusal = |image: &[u8]| Files::new(image, b"").open("").unwrap_err().to_string();
    assert!(refusal(b"").contains("neither a bzImage nor"));
    assert!(refusal(&[0x7f; 4096]).contains("neither a bzImage nor"));
    assert!(refusal(&bzimage::sample(&PAYLOAD, 0x0204)).contains("boot protocol 2.04"));
    assert!(refusal(&pvh::sample(&PAYLOAD, 6)).contains("CONFIG_PVH=y"));
    let image = bzimage::sample(&PAYLOAD, 0x020f);
    assert!(refusal(&image[..image.len() - 1]).contains("shorter than its header says"));
    let mut low = pvh::sample(&PAYLOAD, 18);
    low[64 + 56 + 24..][..8].copy_from_slice(&0x1000u64.to_le_bytes());
    assert!(refusal(&low).contains("is damaged"));
    assert!(matches!(
        DirectKernel::open(Path::new("/none"), None, ""),
        Err(Error::Read { key: "kernel", .. })
    ));
}

#[test]
fn command_lines_are_as_long_as_the_kernel_takes() {
    let files = Files::new(&bzimage::sample(&PAYLOAD, 0x020f), b"");
    assert!(files.open(&"x".repeat(2047)).is_ok());
    assert!(matches!(
        files.open(&"x".repeat(2048)),
        Err(Error::CommandLineTooLong { most: 2047, .. })
    ));
    assert!(matches!(files.open("a\0b"), Err(Error::CommandLineNul)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let memory = memory();
    let small = [
        E820Entry {
            base: 0,
            len: 0x9_fc00,
            kind: 1,
        },
        E820Entry {
            base: 0x10_0000,
            len: 0x10_0000,
            kind: 1,
        },
    ];
    let files = Files::new(&bzimage::sample(&PAYLOAD, 0x020f), b"");
    let error = files.open("").unwrap().load(&memory, &small, 0).unwrap_err();
    assert!(matches!(error, Error::NotRam { what: "the kernel", .. }), "{error}");
    let error = files.open("").unwrap().load(&memory, &small[1..], 0).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotRam {
                what: "the boot parameters",
                ..
            }
        ),
        "{error}"
    );
    let many = [
        &e820()[..],
        &vec![
            E820Entry {
                base: 1 << 40,
                len: 1,
                kind: 2
            };
            126
        ],
    ]
    .concat();
    assert!(matches!(
        files.open("").unwrap().load(&memory, &many, 0),
        Err(Error::MemoryMapTooLong(129))
    ));

    let initrd = vec![0; (RAM - 0x300_0000) as usize];
    for image in [bzimage::sample(&PAYLOAD, 0x020f), pvh::sample(&PAYLOAD, 18)] {
        let kernel = Files::new(&image, &[]);
        fs::write(kernel.initrd(), &initrd).unwrap();
        let loaded = kernel.open("").unwrap().load(&memory, &e820(), 0);
        // The vmlinux is tiny; the bzImage asks for 32 MiB to unpack itself.
        assert_eq!(
            matches!(loaded, Err(Error::NoRoomForInitrd { .. })),
            image[0] == 0,
            "{loaded:?}"
        );
    }
}

#[test]
fn a_truncated_kernel_is_refused_at_loading() {
    let image = pvh::sample(&PAYLOAD, 18);
    let files = Files::new(&image[..image.len() - 100], b"");
    let error = files.open("").unwrap().load(&memory(), &e820(), 0).unwrap_err();
    assert!(matches!(error, Error::Load { .. }), "{error}");
}
