//! What is in an expansion ROM: a chain of images, each for one kind of firmware. Pure.
//!
//! Layouts: PCI Firmware Specification 3.3 §5.1 (header, PCI data structure), UEFI Specification 2.10 §14.4.2 (EFI image
//! header).

use std::fmt;

/// Largest ROM a BAR can decode (PCI Express Base Specification 6.0 §7.5.1.2.4), and with it the largest file.
pub const LARGEST: u64 = 16 << 20;

/// More images than any card carries; a chain that is longer is made up.
const MOST_IMAGES: usize = 64;

/// What an image begins with.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Lengths of images count in these.
const UNIT: usize = 512;
/// Where the header points to the PCI data structure from.
const POINTER: usize = 0x18;
/// Bytes of a PCI data structure of revision 0, the shortest.
const STRUCTURE: usize = 0x18;
/// `EfiSignature` of an EFI image header.
const EFI_SIGNATURE: u32 = 0x0ef1;

/// Offsets in the PCI data structure (table 5-3).
mod pcir {
    pub const VENDOR: usize = 0x4;
    pub const DEVICE: usize = 0x6;
    pub const DEVICE_LIST: usize = 0x8;
    pub const REVISION: usize = 0xc;
    pub const CLASS: usize = 0xd;
    pub const LENGTH: usize = 0x10;
    pub const CODE_TYPE: usize = 0x14;
    pub const INDICATOR: usize = 0x15;
}

/// Why bytes are no expansion ROM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RomError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More than a BAR can decode.
    #[error("it has {0} bytes, and an expansion ROM has at most 16 MiB")]
    TooLarge(u64),
    /// It does not begin as an image does.
    #[error(
        "it begins with {found:02x} {:02x} and not with 55 aa{}",
        found2, inner(*.image_at)
    )]
    NoSignature {
        /// The first byte.
        found: u8,
        /// The second byte.
        found2: u8,
        /// Where a ROM begins further on: a vendor's header stands before it.
        image_at: Option<usize>,
    },
    /// The header does not lead to a PCI data structure.
    #[error("image {index} at {offset:#x} has no PCI data structure (`PCIR`)")]
    NoStructure {
        /// Number of the image, from 0.
        index: usize,
        /// Where it begins.
        offset: usize,
    },
    /// An image says that it is longer than the file.
    #[error("image {index} at {offset:#x} has {length} bytes, of which {present} are there: the file is cut short")]
    Truncated {
        /// Number of the image, from 0.
        index: usize,
        /// Where it begins.
        offset: usize,
        /// Its length in bytes.
        length: usize,
        /// Bytes from there to the end of the file.
        present: usize,
    },
    /// An image says that it has no length, or there is no end of them.
    #[error("image {index} at {offset:#x} does not say where the next one begins")]
    Endless {
        /// Number of the image, from 0.
        index: usize,
        /// Where it begins.
        offset: usize,
    },
}

fn inner(at: Option<usize>) -> String {
    at.map(|at| {
        format!(
            "; a ROM begins at byte {at}, behind a header that some tools write: \
             `tail -c +{} FILE > ROM` cuts that off",
            at + 1
        )
    })
    .unwrap_or_default()
}

/// For which firmware an image is (table 5-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A PC BIOS.
    Legacy {
        /// Whether its bytes add up to zero, as a BIOS demands.
        checksum_right: bool,
    },
    /// UEFI.
    Efi {
        /// Machine type of the PE/COFF specification: 0x8664 is x86-64.
        machine: u16,
        /// Whether it is compressed by UEFI's algorithm.
        compressed: bool,
    },
    /// Open Firmware (1), PA-RISC (2) and whatever came later.
    Other(u8),
}

/// PE/COFF machine type of x86-64.
pub const MACHINE_X64: u16 = 0x8664;

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy { checksum_right: true } => f.write_str("BIOS"),
            Self::Legacy { checksum_right: false } => f.write_str("BIOS, checksum wrong"),
            Self::Efi { machine, compressed } => {
                match machine {
                    0x014c => f.write_str("EFI for 32-bit x86")?,
                    &MACHINE_X64 => f.write_str("EFI for x86-64")?,
                    0xaa64 => f.write_str("EFI for 64-bit Arm")?,
                    0x0ebc => f.write_str("EFI byte code")?,
                    other => write!(f, "EFI for machine {other:#06x}")?,
                }
                f.write_str(if *compressed { ", compressed" } else { "" })
            }
            Self::Other(1) => f.write_str("Open Firmware"),
            Self::Other(2) => f.write_str("PA-RISC"),
            Self::Other(code) => write!(f, "code type {code:#04x}"),
        }
    }
}

/// One image of a ROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it begins in the ROM, in bytes.
    pub offset: usize,
    /// Its length in bytes.
    pub length: usize,
    /// Where its PCI data structure is in the ROM.
    structure: usize,
    /// Vendor ID of the devices it is for.
    pub vendor: u16,
    /// Device ID it is for.
    pub device: u16,
    /// More device IDs it is for.
    pub devices: Vec<u16>,
    /// Class code.
    pub class: u32,
    /// For which firmware.
    pub code: Code,
}

impl Image {
    /// Whether it says that it is for this device.
    pub fn is_for(&self, vendor: u16, device: u16) -> bool {
        self.vendor == vendor && (self.device == device || self.devices.contains(&device))
    }

    /// Whether OVMF runs it.
    pub fn is_efi_x64(&self) -> bool {
        matches!(
            self.code,
            Code::Efi {
                machine: MACHINE_X64,
                ..
            }
        )
    }
}

/// Reads the chain of images. What follows the last one is not looked at: files of whole flash chips are padded.
///
/// # Errors
/// See [`RomError`]: the first thing that a firmware would stumble over.
pub fn images(rom: &[u8]) -> Result<Vec<Image>, RomError> {
    match rom {
        [] => return Err(RomError::Empty),
        _ if rom.len() as u64 > LARGEST => return Err(RomError::TooLarge(rom.len() as u64)),
        _ => {}
    }
    let mut images = Vec::new();
    let mut offset = 0;
    loop {
        let index = images.len();
        let endless = RomError::Endless { index, offset };
        if index == MOST_IMAGES {
            return Err(endless);
        }
        let (image, last) = image(rom, index, offset)?;
        offset += image.length;
        images.push(image);
        // Some cards leave the mark of the last one out and go on with nothing.
        if last || rom.get(offset..).is_none_or(|rest| !rest.starts_with(&SIGNATURE)) {
            return Ok(images);
        }
    }
}

/// The image at `offset`, and whether it says that it is the last.
fn image(rom: &[u8], index: usize, offset: usize) -> Result<(Image, bool), RomError> {
    let bytes = rom.get(offset..).unwrap_or_default();
    if !bytes.starts_with(&SIGNATURE) {
        let [found, found2] = [0, 1].map(|at| bytes.get(at).copied().unwrap_or(0));
        return Err(RomError::NoSignature {
            found,
            found2,
            image_at: behind_header(rom),
        });
    }
    let no_structure = RomError::NoStructure { index, offset };
    let at = usize::from(u16_at(bytes, POINTER).ok_or(no_structure.clone())?);
    let structure = bytes.get(at..).filter(|bytes| bytes.starts_with(b"PCIR"));
    let structure = structure.filter(|bytes| bytes.len() >= STRUCTURE).ok_or(no_structure)?;
    let field = |at| u16_at(structure, at).unwrap_or(0);
    let byte = |at: usize| structure.get(at).copied().unwrap_or(0);
    let length = usize::from(field(pcir::LENGTH)) * UNIT;
    if length == 0 {
        return Err(RomError::Endless { index, offset });
    }
    let Some(image) = bytes.get(..length) else {
        return Err(RomError::Truncated {
            index,
            offset,
            length,
            present: bytes.len(),
        });
    };
    let image = Image {
        offset,
        length,
        structure: offset + at,
        vendor: field(pcir::VENDOR),
        device: field(pcir::DEVICE),
        devices: device_list(structure),
        class: u32::from(field(pcir::CLASS)) | u32::from(byte(pcir::CLASS + 2)) << 16,
        code: code(byte(pcir::CODE_TYPE), image),
    };
    Ok((image, byte(pcir::INDICATOR) & 0x80 != 0))
}

/// Device IDs beside the first: revision 3 has a list that ends with 0. Before, the field pointed at product data.
fn device_list(structure: &[u8]) -> Vec<u16> {
    let list = match (structure.get(pcir::REVISION), u16_at(structure, pcir::DEVICE_LIST)) {
        (Some(3..), Some(at @ 1..)) => structure.get(usize::from(at)..).unwrap_or_default(),
        _ => &[],
    };
    let ids = list.chunks_exact(2).map(|pair| u16_at(pair, 0).unwrap_or(0));
    ids.take_while(|id| *id != 0).take(256).collect()
}

fn code(kind: u8, image: &[u8]) -> Code {
    match kind {
        0 => Code::Legacy {
            checksum_right: image.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0,
        },
        3 if u32_at(image, 0x4) == Some(EFI_SIGNATURE) => Code::Efi {
            machine: u16_at(image, 0xa).unwrap_or(0),
            compressed: u16_at(image, 0xc) == Some(1),
        },
        kind => Code::Other(kind),
    }
}

/// Where a ROM begins in a file that does not begin with one. Dumps of NVIDIA cards often carry a header of `NVGI` before it.
fn behind_header(rom: &[u8]) -> Option<usize> {
    let starts = rom.windows(2).enumerate().skip(1).take(1 << 17);
    starts
        .filter(|(_, pair)| *pair == SIGNATURE)
        .map(|(at, _)| at)
        .find(|at| image(rom.get(*at..).unwrap_or_default(), 0, 0).is_ok())
}

/// Writes the device's ID into each image of its vendor that is for another device, so that a firmware takes it for this
/// one's, and mends the checksum of BIOS images. Answers how many were changed.
///
/// A card that was flashed with a sibling's image needs this: the sibling's ID is in the image and not in its config space.
pub fn adapt(rom: &mut [u8], vendor: u16, device: u16) -> usize {
    let others: Vec<Image> = images(rom)
        .unwrap_or_default()
        .into_iter()
        .filter(|image| image.vendor == vendor && !image.is_for(vendor, device))
        .collect();
    for image in &others {
        let id = image.structure + pcir::DEVICE;
        if let Some(bytes) = rom.get_mut(id..id + 2) {
            bytes.copy_from_slice(&device.to_le_bytes());
        }
        let end = image.offset + image.length;
        if let (Code::Legacy { checksum_right: true }, Some(bytes)) = (image.code, rom.get_mut(image.offset..end)) {
            let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            // Byte 6 is free in a BIOS image and serves to balance the sum.
            if let Some(balance) = bytes.get_mut(6) {
                *balance = balance.wrapping_sub(sum);
            }
        }
    }
    others.len()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
