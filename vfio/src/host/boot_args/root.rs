//! The one directory in which files are written. Every path is resolved by the kernel as if that directory were the
//! root (`openat2(2)`, `RESOLVE_IN_ROOT`), and what is written is made beside the file and moved over it: no link,
//! whatever it points to and whoever changes it meanwhile, leads a write out of the directory, and a disk that fills up
//! leaves the file as it was.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::super::tree::LARGEST_FILE;
use super::edits::{Edit, Edits};

/// As many links as the kernel itself would follow.
const MOST_LINKS: usize = 40;

/// Why files were not written. What had been written until then is undone.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The directory itself.
    #[error("cannot work in {path}")]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read, written or removed.
    #[error("cannot {what} {path}{}", undone_text(*.undone))]
    File {
        /// Read, write or remove.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
        /// Whether everything done before was undone.
        undone: bool,
    },
    /// A file changed between the plan and the writing.
    #[error("{path} was changed by something else just now{}; run the command again", undone_text(*.undone))]
    Changed {
        /// The file.
        path: String,
        /// Whether everything done before was undone.
        undone: bool,
    },
}

fn undone_text(undone: bool) -> &'static str {
    match undone {
        true => "; nothing was changed",
        false => "; what was changed before it could not be undone: `tenon boot-args --remove` takes it back",
    }
}

/// See the module's own words.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
}

/// A file by the directory that really holds it.
struct Spot {
    folder: OwnedFd,
    name: PathBuf,
}

impl Root {
    /// Opens the directory; `/` for the running system.
    ///
    /// # Errors
    /// It is no directory, or the kernel is older than 5.6 and has no `openat2(2)`.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let root = |source: Errno| RootError::Root {
            path: path.to_owned(),
            source: source.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(path, flags, Mode::empty()).map_err(root)?;
        let opened = Self { folder };
        opened.folder_at(Path::new(".")).map_err(root)?;
        Ok(opened)
    }

    /// Writes all the files of a set of edits, or none of them.
    ///
    /// # Errors
    /// A file could not be written, or was changed meanwhile; those written before it are as they were again.
    pub fn carry_out(&self, edits: &Edits) -> Result<(), RootError> {
        let (first, second) = match edits.undoing {
            true => (&edits.files, &edits.state),
            false => (&edits.state, &edits.files),
        };
        let mut done: Vec<&Edit> = Vec::new();
        for edit in first.iter().chain(second) {
            if let Err(error) = self.one(edit) {
                let mut undone = true;
                for edit in done.into_iter().rev() {
                    undone &= self.revert(edit).is_ok();
                }
                if !edits.undoing {
                    self.remove_empty(&edits.folders);
                }
                return Err(error.with(undone));
            }
            done.push(edit);
        }
        if edits.undoing {
            self.remove_empty(&edits.folders);
        }
        Ok(())
    }

    fn remove_empty(&self, folders: &[String]) {
        for folder in folders {
            // One that is not empty holds what is not ours.
            let _ = self.remove_folder(folder);
        }
    }

    fn one(&self, edit: &Edit) -> Result<(), RootError> {
        let failed = |what| {
            move |source: io::Error| RootError::File {
                what,
                path: edit.path.clone(),
                source,
                undone: true,
            }
        };
        if self.read(&edit.path).map_err(failed("read"))? != edit.before {
            return Err(RootError::Changed {
                path: edit.path.clone(),
                undone: true,
            });
        }
        match &edit.after {
            Some(bytes) => self.write(&edit.path, bytes, edit.mode).map_err(failed("write")),
            None => self.remove(&edit.path).map_err(failed("remove")),
        }
    }

    fn revert(&self, edit: &Edit) -> io::Result<()> {
        match &edit.before {
            Some(bytes) => self.write(&edit.path, bytes, edit.mode),
            None => self.remove(&edit.path),
        }
    }

    /// The content of a file; `None` where there is none.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let spot = match self.spot(path, false) {
            Ok(spot) => spot,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match open_regular(&spot) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(LARGEST_FILE).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let spot = self.spot(path, true)?;
        let old = match open_regular(&spot) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let temporary = PathBuf::from(format!(".tenon-{}.tmp", std::process::id()));
        let written = fill(&spot.folder, &temporary, bytes, (mode, old.as_ref()))
            .and_then(|()| Ok(fs::renameat(&spot.folder, &temporary, &spot.folder, &spot.name)?));
        if written.is_err() {
            let _ = fs::unlinkat(&spot.folder, &temporary, AtFlags::empty());
        }
        written?;
        sync(&spot.folder)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let spot = self.spot(path, false)?;
        fs::unlinkat(&spot.folder, &spot.name, AtFlags::empty())?;
        sync(&spot.folder)
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        let spot = self.spot(path, false)?;
        Ok(fs::unlinkat(&spot.folder, &spot.name, AtFlags::REMOVEDIR)?)
    }

    /// Where a file really is: links at its own place are followed, inside the root like those on the way to it.
    fn spot(&self, path: &str, make_folders: bool) -> io::Result<Spot> {
        let mut path = PathBuf::from(path);
        for _ in 0..MOST_LINKS {
            let (parent, name) = match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => (parent.to_owned(), PathBuf::from(name)),
                _ => return Err(io::ErrorKind::IsADirectory.into()),
            };
            let folder = match self.folder_at(&parent) {
                Err(Errno::NOENT) if make_folders => self.make_folder(&parent)?,
                other => other?,
            };
            match fs::readlinkat(&folder, &name, Vec::new()) {
                Ok(target) => path = parent.join(OsStr::from_bytes(target.to_bytes())),
                // EINVAL: it is no link.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(Spot { folder, name }),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::LOOP.into())
    }

    fn folder_at(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.folder, path, flags, Mode::empty(), inside)
    }

    fn make_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut here = PathBuf::new();
        let mut folder = self.folder_at(Path::new("."))?;
        for part in path.components() {
            let next = here.join(part);
            folder = match self.folder_at(&next) {
                Err(Errno::NOENT) => {
                    // Of several links one may lead to what is not there: then this is refused as existing.
                    fs::mkdirat(&folder, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                    sync(&folder)?;
                    self.folder_at(&next)?
                }
                other => other?,
            };
            here = next;
        }
        Ok(folder)
    }
}

impl RootError {
    fn with(mut self, all_undone: bool) -> Self {
        if let Self::File { undone, .. } | Self::Changed { undone, .. } = &mut self {
            *undone = all_undone;
        }
        self
    }
}

/// Opens what is there without following a link and without waiting for a pipe.
fn open_regular(spot: &Spot) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(fs::openat(&spot.folder, &spot.name, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Makes a file with the owner, mode and labels of the one it will replace.
fn fill(folder: &OwnedFd, name: &Path, bytes: &[u8], (mode, old): (u32, Option<&File>)) -> io::Result<()> {
    // One that a killed tenon left behind under the same process number.
    let _ = fs::unlinkat(folder, name, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(bytes)?;
    let mode = match old {
        Some(old) => {
            let Stat {
                st_uid,
                st_gid,
                st_mode,
                ..
            } = fs::fstat(old)?;
            let new = fs::fstat(&file)?;
            // FAT knows no owners, and does not let anybody set one.
            if (new.st_uid, new.st_gid) != (st_uid, st_gid) {
                let (uid, gid) = (fs::Uid::from_raw(st_uid), fs::Gid::from_raw(st_gid));
                fs::fchown(&file, Some(uid), Some(gid))?;
            }
            copy_attributes(old, &file)?;
            st_mode & 0o7777
        }
        None => mode,
    };
    fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()
}

/// Extended attributes, among them the SELinux label without which a boot loader's file might not be readable.
fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(from, &mut names) {
        Ok(length) => length,
        // Not every file system has them.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut value = vec![0u8; 64 << 10];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let length = fs::fgetxattr(from, name.as_str(), &mut value)?;
        let bytes = value.get(..length).unwrap_or_default();
        fs::fsetxattr(to, name.as_str(), bytes, fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn sync(folder: &impl AsFd) -> io::Result<()> {
    match fs::fsync(folder) {
        // Some file systems cannot for directories, FAT on old kernels for one.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
