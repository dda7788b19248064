//! Writes a capture: the same files give the same bytes, whoever writes them and whenever.

use std::io::{self, Write};
use std::path::Path;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::memory::{Memory, Visit};

/// Why a capture could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the capture")]
pub struct WriteError(#[from] io::Error);

/// Writes the files as a `.tar.zst`.
///
/// # Errors
/// What it is written to does not take it.
pub fn write(files: &Memory, mut to: impl Write) -> Result<(), WriteError> {
    to.write_all(&pack(files)?)?;
    Ok(to.flush()?)
}

fn pack(files: &Memory) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    files.each(|path, visit| member(&mut archive, path, visit))?;
    let archive = archive.into_inner()?;
    Ok(compress_to_vec(archive.as_slice(), CompressionLevel::Fastest))
}

fn member(archive: &mut tar::Builder<Vec<u8>>, path: &Path, visit: Visit<'_>) -> io::Result<()> {
    // Neither owner nor time: they say nothing of the host, and would make each capture another.
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mode(0o644);
    match visit {
        Visit::File(content) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(u64::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?);
            archive.append_data(&mut header, path, content)
        }
        Visit::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            archive.append_data(&mut header, path, io::empty())
        }
        Visit::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)
        }
    }
}
