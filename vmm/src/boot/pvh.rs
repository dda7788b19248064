//! PVH: an uncompressed vmlinux entered through the address in its Xen note (Xen docs/misc/pvh.pandoc).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::elf::{ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use linux_loader::loader::{Elf, KernelLoader};
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::direct::{Initrd, Surroundings};
use super::{EntryState, Error, MEMORY_MAP_MAX, layout};

/// `EI_CLASS`, `EI_DATA`: 64-bit, little-endian.
const CLASS_64_LITTLE: [u8; 2] = [2, 1];
/// `e_machine` of x86-64.
const MACHINE_X86_64: u16 = 62;
/// The note with the 32-bit entry (Xen xen/include/public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY).
const NOTE_PHYS32_ENTRY: u32 = 18;
/// A kernel's notes take some hundred bytes.
const NOTES_MAX: u64 = 1 << 20;
/// A kernel has some five program headers.
const PROGRAM_HEADERS_MAX: u16 = 64;
/// `hvm_start_info.magic` (Xen xen/include/public/arch-x86/hvm/start_info.h).
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// The version that has the memory map.
const START_INFO_VERSION: u32 = 1;
/// `COMMAND_LINE_SIZE` of x86 Linux, less the NUL.
pub(super) const CMDLINE_MAX: usize = 2047;

/// What the headers of a vmlinux say.
#[derive(Clone, Debug)]
pub(super) struct Image {
    entry: u64,
    segments: Vec<Segment>,
}

/// One loadable part of the kernel.
#[derive(Clone, Copy, Debug)]
struct Segment {
    base: u64,
    /// Bytes that come from the file; the rest is zeros.
    file_size: u64,
    end: u64,
}

impl Image {
    /// Reads the headers; none when the file is no ELF for x86-64.
    pub(super) fn read(path: &Path, file: &File) -> Result<Option<Self>, Error> {
        let read_error = |source| Error::Read {
            key: "kernel",
            path: path.to_owned(),
            source,
        };
        let damaged = |what| Error::Damaged {
            path: path.to_owned(),
            what,
        };
        let mut header = Elf64_Ehdr::default();
        if file.read_exact_at(header.as_mut_slice(), 0).is_err() || !is_x86_64(&header) {
            return Ok(None);
        }
        if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() || header.e_phnum > PROGRAM_HEADERS_MAX {
            return Err(damaged("its program headers have no valid size or number"));
        }
        let (mut entry, mut segments) = (None, Vec::new());
        for index in 0..u64::from(header.e_phnum) {
            let mut program = Elf64_Phdr::default();
            let offset = header.e_phoff.saturating_add(index * size_of::<Elf64_Phdr>() as u64);
            file.read_exact_at(program.as_mut_slice(), offset).map_err(read_error)?;
            match program.p_type {
                PT_LOAD => {
                    segments.push(segment(&program).ok_or_else(|| damaged("a segment lies at no valid address"))?);
                }
                PT_NOTE => entry = entry.or(read_entry(file, &program).map_err(read_error)?),
                _ => {}
            }
        }
        match entry {
            Some(entry) => Ok(Some(Self { entry, segments })),
            None => Err(Error::NoPvhEntry { path: path.to_owned() }),
        }
    }
}

fn is_x86_64(header: &Elf64_Ehdr) -> bool {
    let magic = [ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3];
    header.e_ident[..4]
        .iter()
        .map(|byte| u32::from(*byte))
        .eq(magic.map(u32::from))
        && header.e_ident[4..6] == CLASS_64_LITTLE
        && header.e_machine == MACHINE_X86_64
}

fn segment(program: &Elf64_Phdr) -> Option<Segment> {
    let end = program.p_paddr.checked_add(program.p_memsz)?;
    (program.p_paddr >= layout::HIGH_MEMORY && program.p_filesz <= program.p_memsz).then_some(Segment {
        base: program.p_paddr,
        file_size: program.p_filesz,
        end,
    })
}

fn read_entry(file: &File, program: &Elf64_Phdr) -> io::Result<Option<u64>> {
    let mut notes = vec![0; program.p_filesz.min(NOTES_MAX) as usize];
    file.read_exact_at(&mut notes, program.p_offset)?;
    Ok(find_entry(&notes))
}

/// Goes through a list of notes: sizes of name and descriptor, type, name, descriptor, the latter two padded to 4 bytes
/// (System V ABI, "Note Section").
fn find_entry(mut notes: &[u8]) -> Option<u64> {
    loop {
        let (head, rest) = notes.split_first_chunk::<12>()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (name_size, descriptor_size) = (word(0) as usize, word(4) as usize);
        let (name, rest) = rest.split_at_checked(name_size.checked_next_multiple_of(4)?)?;
        let descriptor = rest.get(..descriptor_size)?;
        if word(8) == NOTE_PHYS32_ENTRY && name.get(..name_size) == Some(b"Xen\0") {
            // 4 or 8 bytes, the address in the first 4.
            return descriptor
                .first_chunk::<4>()
                .map(|bytes| u32::from_le_bytes(*bytes).into());
        }
        notes = rest.get(descriptor_size.checked_next_multiple_of(4)?..)?;
    }
}

/// Puts the kernel, the initrd and `hvm_start_info` in place.
pub(super) fn load(
    image: &Image,
    kernel: (&Path, &mut File),
    initrd: Option<&Initrd>,
    surroundings: &Surroundings<'_>,
) -> Result<EntryState, Error> {
    let (path, file) = kernel;
    let memory = surroundings.memory;
    for segment in &image.segments {
        surroundings.check_ram("the kernel", segment.base, segment.end)?;
    }
    let loaded = Elf::load(memory, None, file, None).map_err(|source| Error::Load {
        path: path.to_owned(),
        source,
    })?;
    for segment in &image.segments {
        // linux-loader leaves what the file does not fill as it was, which after a reset is not zero.
        zero(memory, segment.base + segment.file_size, segment.end)?;
    }

    let mut start_info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: START_INFO_VERSION,
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: surroundings.rsdp,
        memmap_paddr: layout::MEMORY_MAP,
        ..Default::default()
    };
    let memory_map = memory_map(surroundings)?;
    start_info.memmap_entries = memory_map.len() as u32;
    let mut modules = Vec::new();
    if let Some(initrd) = initrd {
        // Linux keeps the address in the 32 bits of boot_params (arch/x86/platform/pvh/enlighten.c).
        let paddr = surroundings.load_initrd(initrd, loaded.kernel_end, 1 << 32)?;
        modules.push(hvm_modlist_entry {
            paddr,
            size: initrd.size,
            ..Default::default()
        });
        start_info.nr_modules = 1;
        start_info.modlist_paddr = layout::MODULE_LIST;
    }
    let mut params = BootParams::new(&start_info, GuestAddress(layout::START_INFO));
    params.set_sections(&memory_map, GuestAddress(layout::MEMORY_MAP));
    params.set_modules(&modules, GuestAddress(layout::MODULE_LIST));
    PvhBootConfigurator::write_bootparams(&params, memory)?;
    Ok(EntryState {
        rip: image.entry,
        rsi: 0,
        rbx: layout::START_INFO,
        rsp: layout::STACK_TOP,
        gdt: layout::GDT,
    })
}

fn memory_map(surroundings: &Surroundings<'_>) -> Result<Vec<hvm_memmap_table_entry>, Error> {
    let e820 = surroundings.e820;
    if e820.len() > MEMORY_MAP_MAX {
        return Err(Error::MemoryMapTooLong(e820.len()));
    }
    let convert = |entry: &super::E820Entry| hvm_memmap_table_entry {
        addr: entry.base,
        size: entry.len,
        type_: entry.kind,
        reserved: 0,
    };
    Ok(e820.iter().map(convert).collect())
}

fn zero(memory: &GuestMemoryMmap, mut start: u64, end: u64) -> Result<(), Error> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while start < end {
        let count = (end - start).min(ZEROS.len() as u64);
        memory
            .write_slice(&ZEROS[..count as usize], GuestAddress(start))
            .map_err(|source| Error::Memory {
                what: "the kernel's zeros",
                source,
            })?;
        start += count;
    }
    Ok(())
}

/// An ELF with one note and one segment at 16 MiB, `payload` followed by as many zeros.
#[cfg(test)]
pub(super) fn sample(payload: &[u8], note_type: u32) -> Vec<u8> {
    let headers = size_of::<Elf64_Ehdr>() + 2 * size_of::<Elf64_Phdr>();
    let mut notes = Vec::new();
    for (name, kind, value) in [(b"GNU\0", 3, 0u64), (b"Xen\0", note_type, 0x100_0020)] {
        for word in [4u32, 8, kind] {
            notes.extend_from_slice(&word.to_le_bytes());
        }
        notes.extend_from_slice(name);
        notes.extend_from_slice(&value.to_le_bytes());
    }
    let mut header = Elf64_Ehdr {
        e_machine: MACHINE_X86_64,
        e_entry: 0x100_0000,
        e_phoff: size_of::<Elf64_Ehdr>() as u64,
        e_phentsize: size_of::<Elf64_Phdr>() as u16,
        e_phnum: 2,
        ..Default::default()
    };
    header.e_ident[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let note = Elf64_Phdr {
        p_type: PT_NOTE,
        p_offset: headers as u64,
        p_filesz: notes.len() as u64,
        ..Default::default()
    };
    let load = Elf64_Phdr {
        p_type: PT_LOAD,
        p_offset: (headers + notes.len()) as u64,
        p_paddr: 0x100_0000,
        p_filesz: payload.len() as u64,
        p_memsz: 2 * payload.len() as u64,
        ..Default::default()
    };
    [header.as_slice(), note.as_slice(), load.as_slice(), &notes, payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_may_be_anything() {
        assert_eq!(find_entry(&[]), None);
        assert_eq!(find_entry(&[0xff; 64]), None);
        let mut note = [4u32, 2, NOTE_PHYS32_ENTRY].map(u32::to_le_bytes).concat();
        note.extend_from_slice(b"Xen\0ab");
        assert_eq!(find_entry(&note), None, "an address of two bytes");
    }
}
