//! The small Linux guest that the monitor runs: its initramfs, its disk and the marks it leaves on its serial
//! console. Everything comes from Debian packages unpacked into private roots ([`Roots`]); nothing here runs a program.
//!
//! What the guest does is told on its kernel command line: `tenon.do=word,word=argument,...` (`init.sh` is the list of
//! words). Each answer is one line `@@ key=value` on the serial console, read back by [`Marks`].

mod disk;
mod elf;
mod grub;
mod initramfs;
mod kernel;
mod marks;
mod roots;
mod tone;
mod unpack;

#[cfg(test)]
mod boot_test;
#[cfg(test)]
mod disk_test;

pub use disk::{Boot, GuestDisk, VARIABLE_GUID};
pub use grub::{CONFIG_SIZE, GrubConfig, MENU_TITLE};
pub use initramfs::Initramfs;
pub use kernel::{Kernel, extract_vmlinux};
pub use marks::{Mark, Marks, field};
pub use roots::Roots;

use std::{fmt, io, path::PathBuf};

/// What can go wrong while the guest is being built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No unpacked package has the file.
    #[error("{name}: in none of the unpacked packages ({roots})")]
    Missing {
        /// The path looked for, relative to a package's root.
        name: String,
        /// The roots that were searched.
        roots: String,
    },
    /// A file is not of the format it should be.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk image could not be laid out.
    #[error("{path}: partition table: {why}")]
    Gpt {
        /// The image.
        path: PathBuf,
        /// What the GPT writer said.
        why: String,
    },
    /// A GRUB configuration does not fit the space kept for it on the disk.
    #[error("GRUB configuration of {size} bytes: at most {CONFIG_SIZE} fit; shorten the kernel command line")]
    ConfigTooLong {
        /// Its size.
        size: usize,
    },
}

impl Error {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    fn format(path: impl Into<PathBuf>, why: &dyn fmt::Display) -> Self {
        Self::Format {
            path: path.into(),
            why: why.to_string(),
        }
    }
}

/// The kernel command line that makes the guest do `words` (comma-separated, see `init.sh`), with the kernel's own
/// messages kept off both consoles: on the serial port each byte costs exits.
#[must_use]
pub fn cmdline(words: &str) -> String {
    format!("console=tty0 console=ttyS0 quiet tenon.do={words}")
}

type Result<T> = std::result::Result<T, Error>;
