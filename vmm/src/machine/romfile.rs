//! The ROM files that a user gives for devices, looked through before the guest's firmware meets them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vfio::Bdf;
use vfio::rom::image::{self, Image, LARGEST, RomError};

use crate::config::Device;

/// Why a file cannot stand in for a device's ROM.
#[derive(Debug, thiserror::Error)]
pub enum RomFileError {
    /// It cannot be read.
    #[error("cannot read romfile {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no expansion ROM.
    #[error("romfile {} is no expansion ROM", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RomError,
    },
}

/// Reads each device's file and looks through it, so that a bad one is told before anything is opened.
pub(super) fn read_all(devices: &[Device]) -> Result<BTreeMap<Bdf, Vec<u8>>, RomFileError> {
    let mut roms = BTreeMap::new();
    for device in devices {
        let Some(path) = &device.romfile else { continue };
        let (bytes, images) = read(path)?;
        if !images.iter().any(Image::is_efi_x64) {
            let kinds: Vec<String> = images.iter().map(|image| image.code.to_string()).collect();
            tracing::warn!(
                "{}: romfile {} has no EFI image for x86-64 ({}); OVMF draws nothing with it",
                device.address,
                path.display(),
                kinds.join(", ")
            );
        }
        roms.insert(device.address, bytes);
    }
    Ok(roms)
}

/// The content of a ROM file and the images in it.
fn read(path: &Path) -> Result<(Vec<u8>, Vec<Image>), RomFileError> {
    let failed = |source| RomFileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // One more than there may be, so that too much is told from just enough.
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    let images = image::images(&bytes).map_err(|source| RomFileError::Bad {
        path: path.to_owned(),
        source,
    })?;
    Ok((bytes, images))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    /// The shortest ROM: one EFI image for x86-64.
    fn rom() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(&[0x55, 0xaa, 1, 0]);
        bytes[0x4..0x6].copy_from_slice(&[0xf1, 0x0e]);
        bytes[0xa..0xc].copy_from_slice(&[0x64, 0x86]);
        bytes[0x18] = 0x1c;
        bytes[0x1c..0x20].copy_from_slice(b"PCIR");
        bytes[0x1c + 0x10] = 1;
        bytes[0x1c + 0x14..0x1c + 0x16].copy_from_slice(&[3, 0x80]);
        bytes
    }

    fn given(content: &[u8]) -> Result<BTreeMap<Bdf, Vec<u8>>, RomFileError> {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("gpu.rom");
        std::fs::write(&path, content).unwrap();
        read_all(&[Device {
            address: "01:00.0".parse().unwrap(),
            romfile: Some(path),
        }])
    }

    #[test]
    fn a_rom_is_taken_and_anything_else_is_named() {
        assert_eq!(given(&rom()).unwrap(), [("01:00.0".parse().unwrap(), rom())].into());
        for (content, words) in [
            (&b"PK\x03\x04 a zip file"[..], "begins with 50 4b"),
            (b"", "empty"),
            (&rom()[..300], "cut short"),
        ] {
            let error = given(content).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                error.to_string().contains("gpu.rom") && cause.contains(words),
                "{cause}"
            );
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(
            error,
            RomFileError::Bad {
                source: RomError::TooLarge(_),
                ..
            }
        ));
    }
}
