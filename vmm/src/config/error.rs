//! What can be wrong with a configuration. Each message names the setting and says what to do about it.

use std::path::PathBuf;

use vfio::Bdf;

use super::value::{MemorySize, ValueError};
use crate::exit::{ExitStatus, Failure};

/// A configuration that is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file could not be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or a value in it has the wrong type or form.
    #[error("{path}, line {line}: {message} (in `{text}`)")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// The file has a key that means nothing.
    #[error("{path}, line {line}: there is no setting `{key}`{}; {remedy}", in_section(section))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// The table it stands in, empty at the top.
        section: String,
        /// The nearest key or all that there are.
        remedy: String,
    },
    /// Too little memory for a guest.
    #[error("`memory` is {given}; give at least {least}")]
    MemoryTooSmall {
        /// What was asked for.
        given: MemorySize,
        /// The least.
        least: MemorySize,
    },
    /// Memory comes in huge pages.
    #[error("`memory` is {given}; make it a multiple of 2 MiB")]
    MemoryUnaligned {
        /// What was asked for.
        given: MemorySize,
    },
    /// A number outside its range.
    #[error("`{key}` is {given}; choose from {least} to {most}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What was asked for.
        given: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A kernel is started either by firmware or without.
    #[error("`kernel` starts Linux without firmware, `{key}` belongs to firmware; remove one of them")]
    KernelWithFirmware {
        /// The other setting.
        key: &'static str,
    },
    /// A setting of a directly started kernel, and no kernel.
    #[error("`{key}` is only used with `kernel`; add `kernel` or remove `{key}`")]
    NeedsKernel {
        /// The setting.
        key: &'static str,
    },
    /// One function twice.
    #[error("`device` {address} is given twice; remove one")]
    DuplicateDevice {
        /// The function.
        address: Bdf,
    },
    /// One file in two roles: what is written through one would be torn for the other.
    #[error("`{key}` {path} is the same file as `{other_key}` {other}; use each file once")]
    SameFile {
        /// The later setting.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// The earlier setting.
        other_key: &'static str,
        /// Its path.
        other: PathBuf,
    },
    /// Two disks for one place in the boot order.
    #[error("`bootindex` {index} is given to {first} and to {second}; give each disk its own")]
    BootIndexClash {
        /// The index.
        index: u32,
        /// The first disk.
        first: PathBuf,
        /// The second.
        second: PathBuf,
    },
    /// The boot order is the firmware's.
    #[error("`bootindex` of disk {path} is an order for firmware; remove it or `kernel`")]
    BootIndexWithKernel {
        /// The disk.
        path: PathBuf,
    },
    /// A file that should be there is not.
    #[error("`{key}` {path} cannot be used; check that the path is right and readable")]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something is there that is no file.
    #[error("`{key}` {path} is a {kind}; name a file")]
    NotAFile {
        /// The setting.
        key: &'static str,
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Text that does not fit where it is going.
    #[error("`{key}` is `{value}`; {remedy}")]
    Text {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// No place for the UEFI variables.
    #[error("there is no place to keep UEFI variables: neither XDG_STATE_HOME nor HOME is set; give `vars`")]
    NoStateHome,
}

impl Failure for ConfigError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }
}

impl Failure for ValueError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }
}

fn in_section(section: &str) -> String {
    if section.is_empty() {
        String::new()
    } else {
        format!(" in [{section}]")
    }
}
