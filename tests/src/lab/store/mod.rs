//! The package store: Debian packages unpacked into private roots, nothing installed on the machine.
//!
//! Everything the lab runs comes from here: QEMU, the kernels, the firmware, busybox. A set is one Debian suite, unpacked
//! once into `sets/<name>-<recipe>` of the cache folder and never changed afterwards.

mod apt;
mod unpack;

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::CommandError;

/// Raised whenever a change here makes a set that was unpacked earlier wrong.
const RECIPE: u32 = 1;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither a cache folder nor a home is known.
    #[error("no place for the lab's cache: set TENON_LAB_CACHE, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// A file or folder could not be used.
    #[error("{action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program of the package tools failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The machine's apt configuration names no Debian archive.
    #[error(
        "apt on this machine has no source for its own release ({suite}); the lab takes the mirror's address from there"
    )]
    NoMirror {
        /// The release looked for.
        suite: String,
    },
    /// A set lacks a file that it ought to have.
    #[error("{path} is not in the set `{set}`")]
    Missing {
        /// The file, relative to the root.
        path: PathBuf,
        /// The set's name.
        set: &'static str,
    },
}

impl StoreError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// A generation of Debian packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Set {
    /// QEMU 10.0, Linux 6.12, OVMF 2025.02 (ECAM at 0xE0000000).
    New,
    /// QEMU 7.2, Linux 6.1, OVMF 2022.11 (ECAM at 0xB0000000).
    Old,
}

impl Set {
    /// Both, the newer first.
    pub const ALL: [Self; 2] = [Self::New, Self::Old];

    /// The name used in folders, flags and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Old => "old",
        }
    }

    /// The Debian suite it comes from.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::New => "trixie",
            Self::Old => "bookworm",
        }
    }
}

/// The cache folder with its sets.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the cache: `$TENON_LAB_CACHE`, or `tenon-lab` under `$XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// When no place is known or the folder cannot be made.
    pub fn open() -> Result<Self, StoreError> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("TENON_LAB_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("tenon-lab")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/tenon-lab")))
            .ok_or(StoreError::NoCache)?;
        Self::at(&dir)
    }

    /// Opens a cache in a folder of the caller's choice, which is made if needed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn at(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::io("cannot make", dir))?;
        let dir = dir.canonicalize().map_err(StoreError::io("cannot resolve", dir))?;
        Ok(Self { dir })
    }

    /// The cache folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root of a set, downloaded and unpacked first if it is not there yet. Two processes may ask at once.
    ///
    /// # Errors
    /// When packages cannot be fetched or unpacked.
    pub fn set(&self, set: Set) -> Result<Root, StoreError> {
        let root = Root {
            set,
            path: self.dir.join("sets").join(format!("{}-{RECIPE}", set.name())),
        };
        if root.path.is_dir() {
            return Ok(root);
        }
        let _lock = self.lock(set.name())?;
        // Whoever held the lock before us may just have made it.
        if !root.path.is_dir() {
            self.make(&root)?;
        }
        Ok(root)
    }

    /// The name of a set's folder under `sets`.
    #[must_use]
    pub fn folder(set: Set) -> String {
        format!("{}-{RECIPE}", set.name())
    }

    /// Holds one of the cache's locks until the returned file is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self, name: &str) -> Result<File, StoreError> {
        let path = self.dir.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(StoreError::io("cannot make", &path))?;
        file.lock().map_err(StoreError::io("cannot lock", &path))?;
        Ok(file)
    }

    fn make(&self, root: &Root) -> Result<(), StoreError> {
        let work = self.dir.join("sets").join(format!(".{}", root.set.name()));
        if work.exists() {
            fs::remove_dir_all(&work).map_err(StoreError::io("cannot clear", &work))?;
        }
        fs::create_dir_all(&work).map_err(StoreError::io("cannot make", &work))?;
        let apt = apt::Apt::new(&self.dir.join("apt").join(root.set.name()), root.set.suite())?;
        let packages = apt.download()?;
        unpack::all(&packages, &work, root.set.name())?;
        unpack::depmod(&Root {
            set: root.set,
            path: work.clone(),
        })?;
        // The rename is what makes the set exist: an interrupted run leaves only the hidden folder.
        fs::rename(&work, &root.path).map_err(StoreError::io("cannot move into place", &root.path))?;
        apt.clean();
        Ok(())
    }
}

/// An unpacked set.
#[derive(Debug, Clone)]
pub struct Root {
    set: Set,
    path: PathBuf,
}

impl Root {
    /// Which set this is.
    #[must_use]
    pub fn set(&self) -> Set {
        self.set
    }

    /// The folder that stands for `/`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the set, by its path without the leading slash.
    ///
    /// # Errors
    /// When the set has no such file.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<PathBuf, StoreError> {
        let path = path.as_ref();
        let full = self.path.join(path);
        if full.exists() {
            Ok(full)
        } else {
            Err(StoreError::Missing {
                path: path.to_path_buf(),
                set: self.set.name(),
            })
        }
    }

    /// The kernel's release, such as `6.12.107+deb13-amd64`: the name of its folder under `/lib/modules`.
    ///
    /// # Errors
    /// When the set has no kernel.
    pub fn kernel_release(&self) -> Result<String, StoreError> {
        let dir = self.file("usr/lib/modules")?;
        let entries = fs::read_dir(&dir).map_err(StoreError::io("cannot list", &dir))?;
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.pop().ok_or_else(|| StoreError::Missing {
            path: "usr/lib/modules/*".into(),
            set: self.set.name(),
        })
    }

    /// The kernel image (bzImage).
    ///
    /// # Errors
    /// When the set has no kernel.
    pub fn kernel(&self) -> Result<PathBuf, StoreError> {
        self.file(format!("boot/vmlinuz-{}", self.kernel_release()?))
    }

    /// A command that runs a program of the set with the set's own loader and libraries.
    ///
    /// # Errors
    /// When the set lacks the program or the loader.
    pub fn command(&self, program: &str) -> Result<Command, StoreError> {
        let mut command = Command::new(self.file("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")?);
        command.arg("--library-path").arg(self.library_path());
        command
            .arg("--argv0")
            .arg(Path::new(program).file_name().unwrap_or_default());
        command.arg(self.file(program)?);
        Ok(command)
    }

    /// Where the set's loader finds the set's libraries.
    #[must_use]
    pub fn library_path(&self) -> String {
        let dirs = [
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu/pulseaudio",
            "usr/lib/x86_64-linux-gnu/systemd",
            "usr/lib",
        ];
        let dirs: Vec<String> = dirs
            .iter()
            .map(|dir| self.path.join(dir).display().to_string())
            .collect();
        dirs.join(":")
    }
}
