//! OVMF images: finding them, checking them, and where they go in the guest.
//!
//! A flash image is two files, CODE (executed in place, read-only) and VARS (the variable store), or one file with VARS
//! in front. Both end at 4 GiB without a gap, because OVMF has the addresses compiled in.

mod descriptor;
mod search;
mod volume;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::AddressRange;

pub use search::{Candidate, FirmwareSearch, Verdict};

/// Where the flash ends.
const FLASH_END: u64 = 1 << 32;

/// Erase block of the flash, compiled into OVMF (edk2 `OvmfPkg/OvmfPkgDefines.fdf.inc`, BLOCK_SIZE).
pub const FLASH_BLOCK: u64 = 0x1000;

/// The largest image taken: 8 MiB of flash would reach down to the chipset's fixed registers.
const FLASH_MAX: u64 = 8 << 20;

/// First bytes of a qcow2 image.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OvmfError {
    /// A file cannot be read.
    #[error("cannot read {}: name an existing firmware image or install the package `ovmf`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image is a qcow2 container.
    #[error("{} is a qcow2 image and must be raw: convert it with `qemu-img convert -O raw`", path.display())]
    Qcow2 {
        /// The file.
        path: PathBuf,
    },
    /// The image needs system management mode.
    #[error(
        "{} needs system management mode (feature requires-smm in {}), which this machine does not have: use the image \
         without Secure Boot, such as OVMF_CODE_4M.fd", path.display(), descriptor.display()
    )]
    NeedsSmm {
        /// The file.
        path: PathBuf,
        /// The descriptor that says so.
        descriptor: PathBuf,
    },
    /// The file is too big, empty or not whole blocks.
    #[error("{} is {size} bytes long; flash images are whole blocks of 4096 bytes, up to 8 MiB", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file holds something else than firmware volumes.
    #[error("{} is no OVMF image: {why}. Name OVMF_CODE*.fd or OVMF.fd of the package `ovmf`", path.display())]
    NotFirmware {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The file ends early.
    #[error(
        "{} is truncated: {size} bytes, but its firmware volumes reach to byte {expected}. Copy it again or reinstall \
         the package it came from", path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The size its headers tell.
        expected: u64,
    },
    /// A variable store of another layout than the code's.
    #[error(
        "{} is {size} bytes long, but {} wants a variable store of {wanted} bytes: 2 MiB and 4 MiB builds do not mix, \
         start from the template that belongs to the code", path.display(), code.display()
    )]
    VarsSize {
        /// The variable store.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The size that goes with the code.
        wanted: u64,
        /// The code.
        code: PathBuf,
    },
    /// A variable store OVMF would erase.
    #[error(
        "{} holds no valid variable store ({why}): OVMF would erase it. Delete it to start from the template again",
        path.display()
    )]
    VarsHeader {
        /// The variable store.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No variable store belongs to the code.
    #[error(
        "no variable store template for {}: {}. Put the template that belongs to it beside it (OVMF_VARS.fd for \
         OVMF_CODE.fd), or use the unified OVMF.fd", code.display(), looked_for(tried)
    )]
    NoVars {
        /// The code.
        code: PathBuf,
        /// Where a template was looked for.
        tried: Vec<PathBuf>,
    },
    /// No descriptor leads to an image that works.
    #[error(
        "no usable OVMF found through the firmware descriptors in {}: {}. Install the package `ovmf` (Debian) or \
         `edk2-ovmf` (Fedora), or name an image",
        list(directories),
        search::verdicts(candidates)
    )]
    NoneUsable {
        /// Directories searched.
        directories: Vec<PathBuf>,
        /// What was there.
        candidates: Vec<Candidate>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// An image by its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareImage {
    /// CODE, or the unified image.
    pub code: PathBuf,
    /// Template of VARS, to be copied for each machine; `None` when it is the first part of `code`.
    pub vars_template: Option<PathBuf>,
}

/// Where the two parts of the flash lie in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlashLayout {
    /// Read-only code, ending at 4 GiB.
    pub code: AddressRange,
    /// Variable store, ending where the code starts.
    pub vars: AddressRange,
}

impl FlashLayout {
    /// The layout for code of `code_size` bytes, at most 8 MiB.
    ///
    /// The flash is a power of two and VARS is what CODE leaves of it: 0x37C000 + 0x84000 = 4 MiB, 0x1E0000 + 0x20000 =
    /// 2 MiB (edk2 `OvmfPkg/OvmfPkgDefines.fdf.inc`).
    #[must_use]
    pub const fn for_code(code_size: u64) -> Self {
        let vars_size = code_size.next_power_of_two() - code_size;
        let code = FLASH_END - code_size;
        Self {
            code: AddressRange::new(code, code_size),
            vars: AddressRange::new(code - vars_size, vars_size),
        }
    }

    /// Both parts.
    #[must_use]
    pub const fn flash(&self) -> AddressRange {
        AddressRange::new(self.vars.base, self.vars.size + self.code.size)
    }
}

/// An image read and found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFirmware {
    /// Contents of CODE.
    pub code: Vec<u8>,
    /// Contents of the VARS template.
    pub vars_template: Vec<u8>,
    /// Where they go.
    pub layout: FlashLayout,
}

impl FirmwareImage {
    /// The image the user named: CODE with the template that lies beside it, or a unified image. Where there is none, `store`
    /// stands in for it, a machine's variable store that exists already.
    ///
    /// # Errors
    /// The file cannot be read, is qcow2, or has no template and, without one, whatever else is wrong with it.
    pub fn named(code: &Path, store: Option<&Path>) -> Result<Self, OvmfError> {
        let mut head = [0; volume::HEADER_SIZE];
        let taken = File::open(code).and_then(|mut file| file.read(&mut head));
        let length = taken.map_err(|source| OvmfError::Read {
            path: code.to_owned(),
            source,
        })?;
        if head.starts_with(&QCOW2_MAGIC) {
            return Err(OvmfError::Qcow2 { path: code.to_owned() });
        }
        let unified = volume::is_variable_store(&head[..length]);
        let vars_template = match (sibling_template(code), store) {
            _ if unified => None,
            (Ok(template), _) => Some(template),
            (Err(_), Some(store)) => Some(store.to_owned()),
            (Err(error), None) => {
                // A copy cut short seldom has its template beside it; that it is cut short is the truer complaint.
                volume::check_image(code, &read(code)?)?;
                return Err(error);
            }
        };
        Ok(Self {
            code: code.to_owned(),
            vars_template,
        })
    }

    /// Reads the files and checks all that can be checked without running them.
    ///
    /// # Errors
    /// An [`OvmfError`] that names the file.
    pub fn load(&self) -> Result<LoadedFirmware, OvmfError> {
        let mut code = read(&self.code)?;
        let first = volume::check_image(&self.code, &code)?;
        let vars_template = match &self.vars_template {
            Some(path) => read(path)?,
            None if volume::is_variable_store(&code) => {
                let rest = code.split_off(first as usize);
                std::mem::replace(&mut code, rest)
            }
            None => {
                return Err(OvmfError::NoVars {
                    code: self.code.clone(),
                    tried: vec![self.code.clone()],
                });
            }
        };
        let layout = FlashLayout::for_code(code.len() as u64);
        self.check_vars(
            self.vars_template.as_deref().unwrap_or(&self.code),
            &vars_template,
            &layout,
        )?;
        Ok(LoadedFirmware {
            code,
            vars_template,
            layout,
        })
    }

    /// Checks a variable store at `path`, the template or a machine's own, against the layout of this image.
    ///
    /// # Errors
    /// [`OvmfError::VarsSize`] and [`OvmfError::Qcow2`] are final. [`OvmfError::VarsHeader`] in a machine's own store is
    /// worth no more than a warning: a power failure while OVMF was reclaiming space looks like that, and OVMF repairs
    /// it.
    pub fn check_vars(&self, path: &Path, vars: &[u8], layout: &FlashLayout) -> Result<(), OvmfError> {
        if vars.starts_with(&QCOW2_MAGIC) {
            return Err(OvmfError::Qcow2 { path: path.to_owned() });
        }
        let (size, wanted) = (vars.len() as u64, layout.vars.size);
        if size != wanted {
            return Err(OvmfError::VarsSize {
                path: path.to_owned(),
                size,
                wanted,
                code: self.code.clone(),
            });
        }
        volume::check_variable_store(vars).map_err(|why| OvmfError::VarsHeader {
            path: path.to_owned(),
            why,
        })
    }
}

/// Reads an image no larger than a flash can be.
fn read(path: &Path) -> Result<Vec<u8>, OvmfError> {
    let failed = |source| OvmfError::Read {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    // The limit holds for what is read, not for what the file system says: the name may be a device or a pipe.
    let mut bytes = Vec::new();
    let limited = File::open(path).and_then(|file| file.take(FLASH_MAX + 1).read_to_end(&mut bytes));
    limited.map_err(failed)?;
    if bytes.starts_with(&QCOW2_MAGIC) {
        return Err(OvmfError::Qcow2 { path: path.to_owned() });
    }
    if bytes.len() as u64 > FLASH_MAX {
        return Err(OvmfError::Size {
            path: path.to_owned(),
            size: metadata.len().max(bytes.len() as u64),
        });
    }
    Ok(bytes)
}

fn looked_for(tried: &[PathBuf]) -> String {
    if tried.is_empty() {
        "a name without `CODE` in it tells of none".to_owned()
    } else {
        format!("looked for {}", list(tried))
    }
}

/// The template beside `code`: OVMF_VARS for OVMF_CODE, with and without the variant in the name.
fn sibling_template(code: &Path) -> Result<PathBuf, OvmfError> {
    let name = code.file_name().unwrap_or_default().to_string_lossy();
    let mut names = vec![name.replace("CODE", "VARS")];
    if let Some(plain) = names[0].strip_suffix(".secboot.fd") {
        names.push(format!("{plain}.fd"));
    }
    // The pair QEMU itself ships: its store is shared with the 32-bit build.
    names.push(name.replace("x86_64", "i386").replace("code", "vars"));
    names.retain(|candidate| *candidate != name);
    let tried: Vec<_> = names.iter().map(|candidate| code.with_file_name(candidate)).collect();
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(OvmfError::NoVars {
            code: code.to_owned(),
            tried,
        }),
    }
}
