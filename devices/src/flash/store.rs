//! The user's variable store: one file for one virtual machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

use super::cfi::BLOCK_SIZE;
use crate::lock::lock;

/// The least time between two background `fdatasync`. A variable update is some hundred writes; the disk is asked once for them all.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Why there is no variable store.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum VarsError {
    #[error("cannot open the variable store {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the variable store {} does not exist, and there is no template to make it from", path.display())]
    NoTemplate { path: PathBuf },
    #[error("cannot read the variable store template {}", path.display())]
    Template { path: PathBuf, source: io::Error },
    #[error("cannot create the variable store {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "{} is {actual} bytes long; the variable store of this firmware is {expected} bytes: name the store made for it, or \
         another file, to be created",
        path.display()
    )]
    Size { path: PathBuf, actual: u64, expected: u64 },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is the firmware's template; each virtual machine needs a copy of its own", path.display())]
    IsTemplate { path: PathBuf },
    #[error("the variable store {} is in use by another virtual machine; each needs one of its own", path.display())]
    InUse { path: PathBuf },
    #[error("cannot lock the variable store {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot map the variable store")]
    Map(#[source] io::Error),
    #[error("cannot start the thread that writes the variable store to disk")]
    Thread(#[source] io::Error),
}

/// What becomes of the guest's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VarsMode {
    /// They reach the file.
    #[default]
    Persistent,
    /// They last until the process ends. The file is only read, and may be shared with others that do the same.
    Snapshot,
    /// They fail, as on a chip whose write-protect pin is tied. OVMF then takes the store for a ROM, keeps variables in RAM and writes
    /// a `NvVars` file to the guest's first FAT volume: rarely what one wants.
    WriteProtected,
}

/// Which store, and how.
#[derive(Debug, Clone, Copy)]
pub struct VarsOptions<'a> {
    /// The user's file.
    pub path: &'a Path,
    /// What it is created from if it does not exist.
    pub template: Option<&'a Path>,
    /// Bytes it must have, a multiple of 4 KiB: 0x84000 beside a 4 MiB OVMF.
    pub size: u64,
    /// What becomes of the guest's writes.
    pub mode: VarsMode,
}

/// An open, locked variable store. The lock goes with the process, however that ends.
#[derive(Debug)]
pub struct VarsStore {
    path: PathBuf,
    file: File,
    size: u64,
    mode: VarsMode,
    sync: Option<Syncer>,
    /// A failing disk is reported once, not once a byte.
    reported: bool,
}

impl VarsStore {
    /// Opens the store, made from the template if it does not exist, and locks it against every other virtual machine.
    ///
    /// # Errors
    /// The file or the template is missing or has another size, or another process holds the lock.
    pub fn open(options: &VarsOptions<'_>) -> Result<Self, VarsError> {
        let path = options.path;
        let writable = options.mode == VarsMode::Persistent;
        if !path.try_exists().map_err(|source| open_error(path, source))? {
            let path = path.to_owned();
            let template = options.template.ok_or(VarsError::NoTemplate { path })?;
            create(options.path, template, options.size)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(|source| open_error(path, source))?;
        check_file(path, &file, options.size)?;
        if writable {
            refuse_template(path, &file, options.template)?;
        }
        let locked = if writable {
            file.try_lock()
        } else {
            file.try_lock_shared()
        };
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => VarsError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => VarsError::Lock {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::with_file(path, file, options)
    }

    /// Looks for what [`VarsStore::open`] would refuse, without creating or keeping anything.
    ///
    /// # Errors
    /// As for [`VarsStore::open`].
    pub fn check(options: &VarsOptions<'_>) -> Result<(), VarsError> {
        let path = options.path;
        if path.try_exists().map_err(|source| open_error(path, source))? {
            return Self::open(options).map(drop);
        }
        let path = path.to_owned();
        let template = options.template.ok_or(VarsError::NoTemplate { path })?;
        read_template(template, options.size).map(drop)
    }

    pub(super) fn with_file(path: &Path, file: File, options: &VarsOptions<'_>) -> Result<Self, VarsError> {
        let sync = if options.mode == VarsMode::Persistent {
            let shared = file.try_clone().map_err(|source| open_error(path, source))?;
            Some(Syncer::start(path, shared).map_err(VarsError::Thread)?)
        } else {
            None
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            size: options.size,
            mode: options.mode,
            sync,
            reported: false,
        })
    }

    /// The file's bytes.
    pub(super) fn load(&self) -> Result<Vec<u8>, VarsError> {
        let len = usize::try_from(self.size).map_err(|error| VarsError::Map(io::Error::other(error)))?;
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, 0)
            .map_err(|source| open_error(&self.path, source))?;
        Ok(bytes)
    }

    /// Whether the guest may change the store.
    pub(super) fn writable(&self) -> bool {
        self.mode != VarsMode::WriteProtected
    }

    /// Stores `data` at `offset` and returns whether that worked. What is in the page cache survives this process.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        match self.mode {
            VarsMode::WriteProtected => return false,
            VarsMode::Snapshot => return true,
            VarsMode::Persistent => {}
        }
        if let Err(error) = self.file.write_all_at(data, offset) {
            if !self.reported {
                self.reported = true;
                tracing::error!(path = %self.path.display(), %error, "cannot write the variable store");
            }
            return false;
        }
        if let Some(sync) = &self.sync {
            sync.shared.request();
        }
        true
    }

    /// Whether the disk may lack something.
    pub(super) fn dirty(&self) -> bool {
        self.sync.as_ref().is_some_and(|sync| lock(&sync.shared.state).dirty())
    }

    /// What brings the file to the disk; none if nothing is ever written.
    pub(super) fn sync(&self) -> Option<Arc<SyncShared>> {
        self.sync.as_ref().map(|sync| Arc::clone(&sync.shared))
    }
}

fn open_error(path: &Path, source: io::Error) -> VarsError {
    VarsError::Open {
        path: path.to_owned(),
        source,
    }
}

fn check_file(path: &Path, file: &File, expected: u64) -> Result<(), VarsError> {
    let metadata = file.metadata().map_err(|source| open_error(path, source))?;
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(VarsError::NotAFile { path });
    }
    let actual = metadata.len();
    if actual != expected || !actual.is_multiple_of(BLOCK_SIZE) {
        return Err(VarsError::Size { path, actual, expected });
    }
    Ok(())
}

/// A store written in place would become the template of every machine to come.
fn refuse_template(path: &Path, file: &File, template: Option<&Path>) -> Result<(), VarsError> {
    let Some(template) = template.and_then(|template| fs::metadata(template).ok()) else {
        return Ok(());
    };
    let metadata = file.metadata().map_err(|source| open_error(path, source))?;
    if (metadata.dev(), metadata.ino()) == (template.dev(), template.ino()) {
        return Err(VarsError::IsTemplate { path: path.to_owned() });
    }
    Ok(())
}

fn read_template(template: &Path, size: u64) -> Result<Vec<u8>, VarsError> {
    let error = |source| VarsError::Template {
        path: template.to_owned(),
        source,
    };
    let mut file = File::open(template).map_err(error)?;
    check_file(template, &file, size)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// Makes `path` a copy of `template`: whole or not at all.
fn create(path: &Path, template: &Path, size: u64) -> Result<(), VarsError> {
    let bytes = read_template(template, size)?;
    let error = |source| VarsError::Create {
        path: path.to_owned(),
        source,
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".new-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let made = write_new(&temporary, &bytes).and_then(|()| publish(&temporary, path));
    // Gone already if it was renamed.
    let _ = fs::remove_file(&temporary);
    made.map_err(error)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A process of this number may have died here.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives the finished file its name. By a link where the file system has them, which fails instead of replacing: another machine may have
/// created the store in the meantime, and hold it open.
fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(_) => fs::rename(temporary, path)?,
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Brings the file to the disk soon after it changed, off the vCPUs' path.
#[derive(Debug)]
struct Syncer {
    shared: Arc<SyncShared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread shares with the flash.
#[derive(Debug)]
pub(super) struct SyncShared {
    path: PathBuf,
    file: File,
    state: Mutex<SyncState>,
    changed: Condvar,
    reported: AtomicBool,
}

#[derive(Debug, Default)]
struct SyncState {
    /// Writes to the file so far.
    written: u64,
    /// How many of them the disk was last asked for.
    synced: u64,
    stop: bool,
}

impl SyncState {
    fn dirty(&self) -> bool {
        self.written != self.synced
    }
}

impl Syncer {
    fn start(path: &Path, file: File) -> io::Result<Self> {
        let shared = Arc::new(SyncShared {
            path: path.to_owned(),
            file,
            state: Mutex::default(),
            changed: Condvar::new(),
            reported: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("flash-sync".into())
            .spawn(move || for_thread.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl SyncShared {
    fn request(&self) {
        let mut state = lock(&self.state);
        let was_dirty = state.dirty();
        state.written = state.written.wrapping_add(1);
        if !was_dirty {
            self.changed.notify_all();
        }
    }

    /// Waits for the disk.
    pub fn now(&self) -> io::Result<()> {
        let asked = lock(&self.state).written;
        let result = self.file.sync_data();
        // After a failure too: the kernel drops what it could not write, and asking again would only seem to work.
        lock(&self.state).synced = asked;
        result.inspect_err(|error| {
            if !self.reported.swap(true, Ordering::Relaxed) {
                tracing::error!(path = %self.path.display(), %error, "cannot bring the variable store to the disk");
            }
        })
    }

    fn run(&self) {
        loop {
            let idle = |state: &mut SyncState| !state.stop && !state.dirty();
            let state = self.changed.wait_while(lock(&self.state), idle);
            let state = state.unwrap_or_else(PoisonError::into_inner);
            // Lets the rest of the update come in first; a stop does not wait.
            let pause = self
                .changed
                .wait_timeout_while(state, SYNC_INTERVAL, |state| !state.stop);
            let (stop, dirty) = {
                let (state, _) = pause.unwrap_or_else(PoisonError::into_inner);
                (state.stop, state.dirty())
            };
            if dirty {
                // Reported there.
                let _ = self.now();
            }
            if stop {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
