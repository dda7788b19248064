//! Writes cpio archives of the `newc` kind, the one the kernel unpacks as its first root.
//!
//! Archives may be put one after the other: a base that is made once, then what one run adds to it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// File type bits of `st_mode` (inode(7)).
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// An archive being written.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
    dirs: BTreeSet<String>,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    data: &'a [u8],
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 1,
            dirs: BTreeSet::new(),
        }
    }

    /// Adds a regular file with the folders above it. `name` has no leading slash; `mode` is the permission bits.
    ///
    /// # Errors
    /// When writing fails.
    pub fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: S_IFREG | mode,
            device: (0, 0),
            data,
        })
    }

    /// Adds a file of this machine, or a folder with all that is in it. A link named by the caller is followed; links
    /// found in a folder stay links.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn copy(&mut self, from: &Path, name: &str) -> io::Result<()> {
        let meta = fs::metadata(from)?;
        if !meta.is_dir() {
            return self.file(name, meta.permissions().mode() & 0o7777, &fs::read(from)?);
        }
        self.dir(name)?;
        let mut entries: Vec<_> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_symlink() {
                self.link(&name, &fs::read_link(entry.path())?.to_string_lossy())?;
            } else {
                self.copy(&entry.path(), &name)?;
            }
        }
        Ok(())
    }

    /// Adds a folder with those above it, once.
    ///
    /// # Errors
    /// When writing fails.
    pub fn dir(&mut self, name: &str) -> io::Result<()> {
        if name.is_empty() || !self.dirs.insert(name.to_owned()) {
            return Ok(());
        }
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: S_IFDIR | 0o755,
            device: (0, 0),
            data: &[],
        })
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When writing fails.
    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: S_IFLNK | 0o777,
            device: (0, 0),
            data: target.as_bytes(),
        })
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// When writing fails.
    pub fn character_device(&mut self, name: &str, mode: u32, device: (u32, u32)) -> io::Result<()> {
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: S_IFCHR | mode,
            device,
            data: &[],
        })
    }

    /// Ends the archive and returns what it was written to.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry(&Entry {
            name: "TRAILER!!!",
            mode: 0,
            device: (0, 0),
            data: &[],
        })?;
        Ok(self.out)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.dir(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let too_big = |_| io::Error::new(io::ErrorKind::FileTooLarge, entry.name.to_owned());
        let size = u32::try_from(entry.data.len()).map_err(too_big)?;
        let name_size = u32::try_from(entry.name.len() + 1).map_err(too_big)?;
        // initramfs buffer format (Documentation/driver-api/early-userspace/buffer-format.rst): ino, mode, uid, gid,
        // nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let fields = [
            self.inode,
            entry.mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            entry.device.0,
            entry.device.1,
            name_size,
            0,
        ];
        let mut header = b"070701".to_vec();
        for field in fields {
            header.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        header.extend_from_slice(entry.name.as_bytes());
        header.push(0);
        header.resize(header.len().next_multiple_of(4), 0);
        self.out.write_all(&header)?;
        self.out.write_all(entry.data)?;
        self.out
            .write_all(&[0; 3][..entry.data.len().next_multiple_of(4) - entry.data.len()])?;
        self.inode += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn pads_and_makes_parents_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/x", 0o755, b"12345").unwrap();
        archive.file("a/b/y", 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5, "a, a/b, x, y and the trailer");
        assert!(text.find("a/b\0").unwrap() < text.find("a/b/x\0").unwrap());
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"));
    }
}
