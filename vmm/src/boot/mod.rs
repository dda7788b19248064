//! Starting a Linux kernel without firmware, for integration-test machines: the bootloader's part of the work, done by
//! the machine. Files are opened and looked at once; loading them may be repeated at each reset of the guest.

mod bzimage;
mod direct;
mod entry;
mod pvh;

use std::path::PathBuf;

pub use direct::DirectKernel;
pub use entry::EntryState;

/// One range of the memory map handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First guest physical address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// What is there (ACPI 6.5 §15.1): 1 is RAM, 2 reserved, 3 ACPI tables, 4 ACPI NVS.
    pub kind: u32,
}

impl E820Entry {
    /// The kind of memory the kernel may use.
    pub const RAM: u32 = 1;

    fn end(&self) -> u64 {
        self.base.saturating_add(self.len)
    }
}

/// Where the bootloader's structures lie, all of them in conventional memory below the kernel. Linux copies what it
/// needs of them before it uses that memory for anything else.
mod layout {
    /// Four descriptors.
    pub const GDT: u64 = 0x500;
    /// The stack grows down from here; the kernel takes its own before it calls anything.
    pub const STACK_TOP: u64 = 0x5ff0;
    /// `hvm_start_info`.
    pub const START_INFO: u64 = 0x6000;
    /// One `hvm_modlist_entry`.
    pub const MODULE_LIST: u64 = 0x6100;
    /// `boot_params`, one page.
    pub const BOOT_PARAMS: u64 = 0x7000;
    /// `hvm_memmap_table_entry`, as many as `boot_params` has room for: under a page.
    pub const MEMORY_MAP: u64 = 0x8000;
    /// The command line and its final NUL.
    pub const COMMAND_LINE: u64 = 0x2_0000;
    /// The end of all that.
    pub const END: u64 = 0x4_0000;
    /// Kernels start here at the lowest.
    pub const HIGH_MEMORY: u64 = 0x10_0000;
}

/// Why a kernel is not started directly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or read.
    #[error("cannot read {key} {path}")]
    Read {
        /// `kernel` or `initrd`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is nothing that can be started.
    #[error(
        "kernel {path} is neither a bzImage nor a 64-bit x86 ELF; give the distribution's /boot/vmlinuz-* or a vmlinux"
    )]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// A bzImage from before 2010.
    #[error(
        "kernel {path} speaks boot protocol {major}.{minor:02}, at least 2.10 is needed; give Linux 2.6.31 or later"
    )]
    OldProtocol {
        /// The file.
        path: PathBuf,
        /// Protocol version.
        major: u8,
        /// Protocol version.
        minor: u8,
    },
    /// An ELF that has no 32-bit entry.
    #[error("kernel {path} has no PVH entry; build it with CONFIG_PVH=y or give the bzImage")]
    NoPvhEntry {
        /// The file.
        path: PathBuf,
    },
    /// A kernel that contradicts itself.
    #[error("kernel {path} is damaged: {what}; copy it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The kernel takes no command line of this length.
    #[error("`cmdline` is {length} bytes long; kernel {path} takes {most}")]
    CommandLineTooLong {
        /// The kernel.
        path: PathBuf,
        /// The length given.
        length: usize,
        /// The most the kernel takes.
        most: usize,
    },
    /// A NUL would end the command line early.
    #[error("`cmdline` holds a NUL character; remove it")]
    CommandLineNul,
    /// A place that must be RAM is none.
    #[error("{what} needs guest memory at {base:#x} to {end:#x}; give the guest more `memory`")]
    NotRam {
        /// What would lie there.
        what: &'static str,
        /// First address.
        base: u64,
        /// The address after the last.
        end: u64,
    },
    /// The initrd fits nowhere.
    #[error(
        "initrd {path} of {size} bytes fits nowhere between the kernel and {limit:#x}; give the guest more `memory`"
    )]
    NoRoomForInitrd {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The highest end the kernel allows.
        limit: u64,
    },
    /// The memory map has more ranges than the structure for it.
    #[error("the memory map has {0} ranges; a kernel is given {max} at most", max = MEMORY_MAP_MAX)]
    MemoryMapTooLong(usize),
    /// The file was not what its headers say.
    #[error("cannot load kernel {path}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        source: linux_loader::loader::Error,
    },
    /// The structures for the kernel could not be written.
    #[error("cannot hand the kernel its boot parameters")]
    Parameters(#[from] linux_loader::configurator::Error),
    /// Guest memory could not be written.
    #[error("cannot write {what} to guest memory")]
    Memory {
        /// What.
        what: &'static str,
        /// What the memory said.
        source: vm_memory::GuestMemoryError,
    },
}

/// Ranges in `boot_params` (Linux arch/x86/include/uapi/asm/setup_data.h, E820_MAX_ENTRIES_ZEROPAGE).
const MEMORY_MAP_MAX: usize = 128;
