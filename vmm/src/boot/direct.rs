//! A kernel, its initrd and its command line, opened once and loaded at each start of the guest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{E820Entry, EntryState, Error, bzimage, entry, layout, pvh};

/// Linux frees the initrd by pages.
const PAGE: u64 = 4096;

/// A kernel that can be started.
#[derive(Debug)]
pub struct DirectKernel {
    path: PathBuf,
    file: File,
    format: Format,
    initrd: Option<Initrd>,
    cmdline: Vec<u8>,
}

/// What the kernel's file holds.
#[derive(Debug)]
enum Format {
    BzImage(bzimage::Header),
    Pvh(pvh::Image),
}

/// The initial RAM disk.
#[derive(Debug)]
pub(super) struct Initrd {
    path: PathBuf,
    file: File,
    pub(super) size: u64,
}

/// What the kernel is loaded into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) memory: &'a GuestMemoryMmap,
    pub(super) e820: &'a [E820Entry],
    pub(super) rsdp: u64,
}

impl DirectKernel {
    /// The kernel's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the files and looks at what is in them. What kind of kernel it is, its content decides.
    ///
    /// # Errors
    /// When a file cannot be read, the kernel is none that can be started, or it takes no such command line.
    pub fn open(kernel: &Path, initrd: Option<&Path>, cmdline: &str) -> Result<Self, Error> {
        let (file, _) = open("kernel", kernel)?;
        let format = match bzimage::Header::read(kernel, &file)? {
            Some(header) => Format::BzImage(header),
            None => pvh::Image::read(kernel, &file)?
                .map(Format::Pvh)
                .ok_or_else(|| Error::NotAKernel {
                    path: kernel.to_owned(),
                })?,
        };
        let room = (layout::END - layout::COMMAND_LINE) as usize - 1;
        let most = match &format {
            Format::BzImage(header) => header.cmdline_max().min(room),
            Format::Pvh(_) => pvh::CMDLINE_MAX,
        };
        if cmdline.len() > most {
            return Err(Error::CommandLineTooLong {
                path: kernel.to_owned(),
                length: cmdline.len(),
                most,
            });
        }
        if cmdline.contains('\0') {
            return Err(Error::CommandLineNul);
        }
        let initrd = initrd
            .map(|path| {
                open("initrd", path).map(|(file, size)| Initrd {
                    path: path.to_owned(),
                    file,
                    size,
                })
            })
            .transpose()?;
        Ok(Self {
            path: kernel.to_owned(),
            file,
            format,
            initrd,
            cmdline: cmdline.as_bytes().to_vec(),
        })
    }

    /// Writes kernel, initrd, command line and boot parameters into guest memory and says where to enter.
    ///
    /// `e820` is what the kernel learns of memory; only its RAM is written to. `rsdp` is the address of the ACPI root
    /// pointer, 0 to let the kernel search. Everything is written anew each time: call it at each reset.
    ///
    /// # Errors
    /// When something does not fit into guest memory or a file changed since it was opened.
    pub fn load(&self, memory: &GuestMemoryMmap, e820: &[E820Entry], rsdp: u64) -> Result<EntryState, Error> {
        let surroundings = Surroundings { memory, e820, rsdp };
        surroundings.check_ram("the boot parameters", layout::GDT, layout::END)?;
        // Shares its offset with our handle; the loaders seek before they read.
        let mut file = self.file.try_clone().map_err(|source| Error::Read {
            key: "kernel",
            path: self.path.clone(),
            source,
        })?;
        entry::write_gdt(memory)?;
        surroundings.write(
            "the command line",
            &[self.cmdline.as_slice(), b"\0"].concat(),
            layout::COMMAND_LINE,
        )?;
        let kernel = (self.path.as_path(), &mut file);
        match &self.format {
            Format::BzImage(header) => bzimage::load(header, kernel, self.initrd.as_ref(), &surroundings),
            Format::Pvh(image) => pvh::load(image, kernel, self.initrd.as_ref(), &surroundings),
        }
    }
}

impl Surroundings<'_> {
    fn write(&self, what: &'static str, bytes: &[u8], address: u64) -> Result<(), Error> {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .map_err(|source| Error::Memory { what, source })
    }

    fn ram(&self) -> impl Iterator<Item = &E820Entry> {
        self.e820.iter().filter(|entry| entry.kind == E820Entry::RAM)
    }

    /// That one range of RAM holds all of `base` to `end`.
    pub(super) fn check_ram(&self, what: &'static str, base: u64, end: u64) -> Result<(), Error> {
        match self.ram().any(|entry| entry.base <= base && end <= entry.end()) {
            true => Ok(()),
            false => Err(Error::NotRam { what, base, end }),
        }
    }

    /// Reads the initrd to the highest place that starts at `floor` or above and ends at `limit` or below.
    pub(super) fn load_initrd(&self, initrd: &Initrd, floor: u64, limit: u64) -> Result<u64, Error> {
        let place = |entry: &E820Entry| {
            let start = entry.end().min(limit).checked_sub(initrd.size)? & !(PAGE - 1);
            (start >= floor.max(entry.base)).then_some(start)
        };
        let start = self
            .ram()
            .filter_map(place)
            .max()
            .ok_or_else(|| Error::NoRoomForInitrd {
                path: initrd.path.clone(),
                size: initrd.size,
                limit,
            })?;
        let failed = |source| Error::Read {
            key: "initrd",
            path: initrd.path.clone(),
            source,
        };
        let mut file = initrd.file.try_clone().map_err(failed)?;
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        self.memory
            .read_exact_volatile_from(GuestAddress(start), &mut file, initrd.size as usize)
            .map_err(|source| Error::Memory {
                what: "the initrd",
                source,
            })?;
        Ok(start)
    }
}

fn open(key: &'static str, path: &Path) -> Result<(File, u64), Error> {
    let failed = |source| Error::Read {
        key,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let size = fs::File::metadata(&file).map_err(failed)?.len();
    Ok((file, size))
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
