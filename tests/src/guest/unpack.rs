use super::{Error, Result};
use std::{
    fs,
    io::{Cursor, Read},
    path::Path,
};

const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Reads a file, decompressing xz and zstd by their magic numbers.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(path).map_err(Error::io(path))?;
    unpack(path, packed)
}

/// Decompresses `packed` if it is xz or zstd, else gives it back. `path` is for messages.
///
/// What follows the stream is ignored: a kernel's payload ends with its unpacked size.
pub fn unpack(path: &Path, packed: Vec<u8>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(packed.len() * 4);
    if packed.starts_with(XZ) {
        let mut stream = lzma_rust2::XzReader::new(Cursor::new(packed), false);
        stream.read_to_end(&mut bytes).map_err(Error::io(path))?;
    } else if packed.starts_with(ZSTD) {
        let mut stream = ruzstd::decoding::StreamingDecoder::new(Cursor::new(packed))
            .map_err(|error| Error::format(path, &error))?;
        stream.read_to_end(&mut bytes).map_err(Error::io(path))?;
    } else {
        return Ok(packed);
    }
    Ok(bytes)
}
