//! Firmware volume headers (UEFI PI 1.8 vol. 3 §3.2.1), as far as they tell a whole image from a broken one.

use std::path::Path;

use super::{FLASH_BLOCK, FLASH_MAX, OvmfError};

/// Header with a block map of one entry: what OVMF's volumes have.
pub(super) const HEADER_SIZE: usize = 0x48;

/// Offsets in the header.
mod at {
    pub const GUID: usize = 0x10;
    pub const LENGTH: usize = 0x20;
    pub const SIGNATURE: usize = 0x28;
    pub const HEADER_LENGTH: usize = 0x30;
    pub const BLOCK_MAP: usize = 0x38;
}

/// gEfiSystemNvDataFvGuid FFF12B8D-7696-4C8B-A985-2747075B4F50 (edk2 `MdeModulePkg/Include/Guid/SystemNvDataGuid.h`).
const NV_DATA: [u8; 16] = guid(
    0xfff1_2b8d,
    0x7696,
    0x4c8b,
    [0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50],
);
/// gEfiAuthenticatedVariableGuid AAF32C78-947B-439A-A180-2E144EC37792 (edk2 `Guid/VariableFormat.h`).
const AUTHENTICATED: [u8; 16] = guid(
    0xaaf3_2c78,
    0x947b,
    0x439a,
    [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92],
);
/// gEfiVariableGuid DDCF3616-3275-4164-98B6-FE85707FFE7D: builds without authenticated variables.
const PLAIN: [u8; 16] = guid(
    0xddcf_3616,
    0x3275,
    0x4164,
    [0x98, 0xb6, 0xfe, 0x85, 0x70, 0x7f, 0xfe, 0x7d],
);

/// The bytes of a GUID: three little-endian numbers and the rest in order.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
    ]
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut value = [0; 8];
    value
        .get_mut(..size)?
        .copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(value))
}

/// Whether a volume for variables starts here: a VARS file, or a unified image.
pub(super) fn is_variable_store(bytes: &[u8]) -> bool {
    bytes.get(at::GUID..at::GUID + 16) == Some(&NV_DATA[..]) && has_signature(bytes)
}

fn has_signature(bytes: &[u8]) -> bool {
    bytes.get(at::SIGNATURE..at::SIGNATURE + 4) == Some(b"_FVH")
}

/// Length of the volume that starts at `bytes`, or what is wrong with its header.
fn volume_length(bytes: &[u8]) -> Result<u64, String> {
    if !has_signature(bytes) {
        return Err("no firmware volume signature `_FVH`".to_owned());
    }
    let header_length = number(bytes, at::HEADER_LENGTH, 2).unwrap_or(0) as usize;
    let header = bytes
        .get(..header_length)
        .filter(|header| header.len() >= HEADER_SIZE && header.len() % 2 == 0);
    let header = header.ok_or_else(|| format!("a volume header of {header_length} bytes"))?;
    let sum = header.chunks_exact(2).fold(0u16, |sum, pair| {
        sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]))
    });
    if sum != 0 {
        return Err("the checksum of a volume header is wrong".to_owned());
    }
    match number(header, at::LENGTH, 8) {
        Some(length) if length >= header_length as u64 && length <= FLASH_MAX => Ok(length),
        _ => Err("a volume header with an impossible length".to_owned()),
    }
}

/// Checks that an image is volumes from its first byte to its last and ends in a reset vector; returns the length of
/// the first volume.
pub(super) fn check_image(path: &Path, image: &[u8]) -> Result<u64, OvmfError> {
    let size = image.len() as u64;
    let wrong = |why: String| OvmfError::NotFirmware {
        path: path.to_owned(),
        why,
    };
    if size == 0 {
        return Err(wrong("it is empty".to_owned()));
    }
    let first = volume_length(image).map_err(wrong)?;
    let (mut end, mut length) = (0u64, first);
    loop {
        end += length;
        if end > size {
            // With a part of the second volume gone its header still tells what the size was.
            return Err(OvmfError::Truncated {
                path: path.to_owned(),
                size,
                expected: end,
            });
        }
        if end == size {
            break;
        }
        length = volume_length(&image[end as usize..]).map_err(|why| wrong(format!("at byte {end:#x}: {why}")))?;
    }
    if !size.is_multiple_of(FLASH_BLOCK) {
        return Err(OvmfError::Size {
            path: path.to_owned(),
            size,
        });
    }
    if !ends_in_reset_vector(image) {
        return Err(missing_reset_vector(path, image));
    }
    Ok(first)
}

/// Cut at a boundary between volumes the last bytes are filling; the processor starts in the last 16.
fn missing_reset_vector(path: &Path, image: &[u8]) -> OvmfError {
    let why = if is_variable_store(image) {
        "it is a variable store (VARS)"
    } else {
        "it does not end in a reset vector (cut off?)"
    };
    OvmfError::NotFirmware {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

/// Whether the processor finds a jump where it starts: near or short, among at most a few instructions.
fn ends_in_reset_vector(image: &[u8]) -> bool {
    let vector = image.last_chunk::<16>();
    vector.is_some_and(|code| code.iter().any(|byte| matches!(byte, 0xe9..=0xeb)))
}

/// Checks the header of a variable store as OVMF does before it decides to erase it (edk2
/// `OvmfPkg/QemuFlashFvbServicesRuntimeDxe`, ValidateFvHeader), and that its block map fits the flash.
pub(super) fn check_variable_store(store: &[u8]) -> Result<(), String> {
    let length = volume_length(store)?;
    if !is_variable_store(store) {
        return Err("the volume is not one for variables".to_owned());
    }
    if length != store.len() as u64 {
        return Err(format!("the header says {length} bytes, the file has {}", store.len()));
    }
    let (blocks, block_size) = (number(store, at::BLOCK_MAP, 4), number(store, at::BLOCK_MAP + 4, 4));
    if block_size != Some(FLASH_BLOCK) || blocks != Some(length / FLASH_BLOCK) {
        return Err("the block map does not describe blocks of 4096 bytes".to_owned());
    }
    let body = number(store, at::HEADER_LENGTH, 2).unwrap_or(0) as usize;
    let kind = store.get(body..body + 16).unwrap_or_default();
    if kind != AUTHENTICATED && kind != PLAIN {
        return Err("no variable store follows the header".to_owned());
    }
    // Size, then "formatted" and "healthy" (edk2 VARIABLE_STORE_FORMATTED, VARIABLE_STORE_HEALTHY).
    let fits = number(store, body + 16, 4).is_some_and(|size| size > 0 && size + body as u64 <= length);
    if !fits || number(store, body + 20, 2) != Some(0xfe5a) {
        return Err("the variable store is not formatted".to_owned());
    }
    Ok(())
}
