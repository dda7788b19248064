//! The Linux 32-bit boot protocol (Documentation/arch/x86/boot.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{ByteValued, GuestAddress};

use super::direct::{Initrd, Surroundings};
use super::{E820Entry, EntryState, Error, MEMORY_MAP_MAX, layout};

/// Offset of the setup header in the file.
const HEADER_OFFSET: u64 = 0x1f1;
/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// `init_size` and `pref_address` exist from protocol 2.10 on.
const PROTOCOL_MIN: u16 = 0x020a;
/// A bootloader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// "normal" text mode, for a kernel that looks.
const VIDEO_MODE_NORMAL: u16 = 0xffff;

/// What the header of a bzImage says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    header: setup_header,
}

impl Header {
    /// Reads the header; none when the file is no bzImage.
    pub(super) fn read(path: &Path, file: &File) -> Result<Option<Self>, Error> {
        let mut header = setup_header::default();
        if file.read_exact_at(header.as_mut_slice(), HEADER_OFFSET).is_err() || header.header != HEADER_MAGIC {
            return Ok(None);
        }
        if header.version < PROTOCOL_MIN {
            let [minor, major] = header.version.to_le_bytes();
            return Err(Error::OldProtocol {
                path: path.to_owned(),
                major,
                minor,
            });
        }
        // linux-loader takes whatever the file holds for the kernel, so a short one would start and then crash.
        let sectors = u64::from(if header.setup_sects == 0 { 4 } else { header.setup_sects }) + 1;
        let least = sectors * 512 + u64::from(header.syssize) * 16;
        let length = file.metadata().map_err(|source| Error::Read {
            key: "kernel",
            path: path.to_owned(),
            source,
        })?;
        if length.len() < least {
            return Err(Error::Damaged {
                path: path.to_owned(),
                what: "it is shorter than its header says",
            });
        }
        Ok(Some(Self { header }))
    }

    /// The longest command line, without its NUL.
    pub(super) fn cmdline_max(&self) -> usize {
        self.header.cmdline_size as usize
    }

    /// Where the unpacked kernel runs: it moves itself to its preferred address when it was loaded below.
    fn runtime_range(&self, load: u64) -> (u64, u64) {
        let start = load.max(self.header.pref_address);
        (start, start.saturating_add(u64::from(self.header.init_size)))
    }
}

/// Puts the kernel, the initrd and `boot_params` in place.
pub(super) fn load(
    header: &Header,
    kernel: (&Path, &mut File),
    initrd: Option<&Initrd>,
    surroundings: &Surroundings<'_>,
) -> Result<EntryState, Error> {
    let (path, file) = kernel;
    let Surroundings { memory, e820, .. } = *surroundings;
    let loaded =
        BzImage::load(memory, None, file, Some(GuestAddress(layout::HIGH_MEMORY))).map_err(|source| Error::Load {
            path: path.to_owned(),
            source,
        })?;
    let (start, end) = header.runtime_range(loaded.kernel_load.0);
    surroundings.check_ram("the kernel", start, end)?;

    let mut params = boot_params {
        hdr: loaded.setup_header.unwrap_or(header.header),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.vid_mode = VIDEO_MODE_NORMAL;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.acpi_rsdp_addr = surroundings.rsdp;
    params.e820_table = e820_table(e820)?;
    params.e820_entries = e820.len() as u8;
    if let Some(initrd) = initrd {
        let limit = u64::from(params.hdr.initrd_addr_max) + 1;
        let address = surroundings.load_initrd(initrd, end.max(loaded.kernel_end), limit)?;
        // Both below 4 GiB: `limit` is.
        params.hdr.ramdisk_image = address as u32;
        params.hdr.ramdisk_size = initrd.size as u32;
    }
    let params = BootParams::new(&params, GuestAddress(layout::BOOT_PARAMS));
    LinuxBootConfigurator::write_bootparams(&params, memory)?;
    Ok(EntryState {
        rip: loaded.kernel_load.0,
        rsi: layout::BOOT_PARAMS,
        rbx: 0,
        rsp: layout::STACK_TOP,
        gdt: layout::GDT,
    })
}

fn e820_table(e820: &[E820Entry]) -> Result<[boot_e820_entry; MEMORY_MAP_MAX], Error> {
    let mut table = [boot_e820_entry::default(); MEMORY_MAP_MAX];
    if e820.len() > table.len() {
        return Err(Error::MemoryMapTooLong(e820.len()));
    }
    for (slot, entry) in table.iter_mut().zip(e820) {
        *slot = boot_e820_entry {
            addr: entry.base,
            size: entry.len,
            r#type: entry.kind,
        };
    }
    Ok(table)
}

/// A file with the least of a header, 1 KiB of setup and `payload` as its protected-mode part.
#[cfg(test)]
pub(super) fn sample(payload: &[u8], version: u16) -> Vec<u8> {
    let header = setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        jump: 0x6aeb,
        syssize: (payload.len() / 16) as u32,
        header: HEADER_MAGIC,
        version,
        loadflags: 1,
        code32_start: 0x10_0000,
        initrd_addr_max: 0x7fff_ffff,
        kernel_alignment: 0x20_0000,
        relocatable_kernel: 1,
        cmdline_size: 2047,
        pref_address: 0x100_0000,
        init_size: 0x200_0000,
        ..Default::default()
    };
    let mut image = vec![0; 1024];
    let at = HEADER_OFFSET as usize;
    image[at..at + size_of::<setup_header>()].copy_from_slice(header.as_slice());
    image.extend_from_slice(payload);
    image
}
