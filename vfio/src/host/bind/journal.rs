//! Which functions were taken and what they were before, kept where it outlives this process: whoever gives them back
//! may be another, after this one was killed at any point.
//!
//! The journal is one file in a directory that only root may enter, replaced as a whole before each step. It goes with
//! the boot: at the next one the kernel gives all functions their drivers anew.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::root_hint;
use crate::host::{Bdf, HostTree};

/// Where the journal is kept when nothing else is said.
pub const DEFAULT_DIRECTORY: &str = "/run/tenon";

const FILE: &str = "taken.json";
const LOCK: &str = "lock";
/// Raised when the format changes its meaning.
const VERSION: u32 = 1;
/// A journal is a few hundred bytes a function.
const LARGEST: u64 = 1 << 20;

/// Why the journal cannot be used. In each case it stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory or a file in it.
    #[error("cannot {action} {path}: {source}{}", root_hint(source))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a journal.
    #[error(
        "{path} does not hold a journal of taken functions ({reason}); it was left as it is: read it, give the functions \
         in it back by hand, then remove it"
    )]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another boot's.
    #[error(
        "{path} was written before the last boot, and the kernel has bound all functions anew since; it was left as it \
         is: remove it"
    )]
    OtherBoot {
        /// The file.
        path: PathBuf,
    },
    /// Another tenon is at it.
    #[error(
        "another tenon{} is taking or giving back functions, or was killed while the kernel still does, and has not finished \
         within {} s; try again after it",
        holder(*pid), limit.as_secs_f32()
    )]
    Locked {
        /// Its process, where known.
        pid: Option<u32>,
        /// How long was waited.
        limit: Duration,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// For whom a function was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// `tenon bind`: until it is given back by `tenon release`.
    Bind,
    /// `tenon run`: for one run of the process.
    Run {
        /// The process.
        pid: u32,
    },
}

/// How far taking a function has got: the step that was about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Setting `driver_override`.
    Override,
    /// Unbinding its driver.
    Unbind,
    /// Binding it to vfio-pci.
    Bind,
    /// None is left to do.
    Taken,
    /// Giving it back.
    GiveBack,
}

/// One function that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// The function.
    #[serde(with = "as_text")]
    pub bdf: Bdf,
    /// Its vendor and device ID, by which a card that was exchanged meanwhile is told.
    pub id: (u16, u16),
    /// The driver that had it.
    pub driver: Option<String>,
    /// The `driver_override` it had.
    pub driver_override: Option<String>,
    /// For whom.
    pub purpose: Purpose,
    /// How far it has got.
    pub step: Step,
}

mod as_text {
    use super::Bdf;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bdf: &Bdf, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(bdf)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bdf, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    boot: String,
    taken: Vec<Entry>,
}

/// The journal, held by this process alone until it is dropped.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    content: Content,
    lock: File,
}

impl Journal {
    /// Opens the journal in a directory, which is made if need be; waits so long for another process that has it.
    ///
    /// # Errors
    /// See [`JournalError`]; a journal that cannot be understood is not touched.
    pub fn open(directory: &Path, tree: &HostTree, limit: Duration) -> Result<Self, JournalError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed("make", directory))?;
        let lock = lock(&directory.join(LOCK), limit)?;
        let boot = boot(tree);
        let content = read(&directory.join(FILE), &boot)?;
        Ok(Self {
            directory: directory.to_owned(),
            content: Content {
                version: VERSION,
                boot,
                ..content
            },
            lock,
        })
    }

    /// What is written in the journal of a directory of the host now, without a lock; empty where there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn peek(directory: &Path, tree: &HostTree) -> Result<Vec<Entry>, JournalError> {
        let path = directory.join(FILE);
        match tree.bytes(&path) {
            Ok(text) => parse(&path, &text, &boot(tree)).map(|content| content.taken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// The lock, for a process that works on behalf of this one. While this one lives, its word alone counts.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn share_lock(&self) -> Result<File, JournalError> {
        let path = self.directory.join(LOCK);
        self.lock.try_clone().map_err(failed("share", &path))
    }

    /// The functions taken, in the order in which they were.
    pub fn entries(&self) -> &[Entry] {
        &self.content.taken
    }

    /// The entry of a function.
    pub fn entry(&self, bdf: Bdf) -> Option<&Entry> {
        self.content.taken.iter().find(|entry| entry.bdf == bdf)
    }

    /// Adds a function that is about to be taken. What it was before the first time stays.
    ///
    /// # Errors
    /// The file cannot be written; then the function must not be touched.
    pub fn add(&mut self, entry: Entry) -> Result<(), JournalError> {
        let known = self.content.taken.iter_mut().find(|known| known.bdf == entry.bdf);
        match known {
            Some(known) => (known.purpose, known.step) = (entry.purpose, entry.step),
            None => self.content.taken.push(entry),
        }
        self.save()
    }

    /// Notes the step that is about to be done.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn step(&mut self, bdf: Bdf, step: Step) -> Result<(), JournalError> {
        for entry in self.content.taken.iter_mut().filter(|entry| entry.bdf == bdf) {
            entry.step = step;
        }
        self.save()
    }

    /// Forgets a function that has been given back.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn forget(&mut self, bdf: Bdf) -> Result<(), JournalError> {
        self.content.taken.retain(|entry| entry.bdf != bdf);
        self.save()
    }

    /// Replaces the file: at each moment the old or the new one is there as a whole.
    fn save(&self) -> Result<(), JournalError> {
        let path = self.directory.join(FILE);
        if self.content.taken.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
                _ => Ok(()),
            };
        }
        let part = self.directory.join("taken.json.new");
        let text = serde_json::to_vec_pretty(&self.content).map_err(|error| failed("write", &part)(error.into()))?;
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Explicitly: closing would leave it with a writer that hangs.
        let _ = self.lock.unlock();
    }
}

/// The identity of the running boot, new with each.
fn boot(tree: &HostTree) -> String {
    tree.text("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn read(path: &Path, boot: &str) -> Result<Content, JournalError> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file
            .take(LARGEST)
            .read_to_end(&mut text)
            .map_err(failed("read", path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        Err(error) => return Err(failed("read", path)(error)),
    };
    parse(path, &text, boot)
}

fn parse(path: &Path, text: &[u8], boot: &str) -> Result<Content, JournalError> {
    let garbage = |reason: String| JournalError::Garbage {
        path: path.to_owned(),
        reason,
    };
    let content: Content = serde_json::from_slice(text).map_err(|error| garbage(error.to_string()))?;
    if content.version != VERSION {
        return Err(garbage(format!("its version is {}, not {VERSION}", content.version)));
    }
    if content.boot != boot {
        return Err(JournalError::OtherBoot { path: path.to_owned() });
    }
    // They become names of files under /sys.
    let names = content
        .taken
        .iter()
        .flat_map(|entry| [&entry.driver, &entry.driver_override]);
    if let Some(name) = names.flatten().find(|name| !is_driver_name(name)) {
        return Err(garbage(format!("`{name}` is not the name of a driver")));
    }
    Ok(content)
}

fn is_driver_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (1..=64).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(plain)
}

/// Takes the lock, which the kernel gives back when this process ends, however it does.
fn lock(path: &Path, limit: Duration) -> Result<File, JournalError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(failed("open", path))?;
    let end = Instant::now() + limit;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(JournalError::Locked {
                    pid: text.trim().parse().ok(),
                    limit,
                });
            }
        }
    }
    // Only for the message of whoever waits in vain.
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    Ok(file)
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use vmm_sys_util::tempdir::TempDir;

    const SHORT: Duration = Duration::from_millis(50);

    fn entry(bdf: &str) -> Entry {
        Entry {
            bdf: bdf.parse().unwrap(),
            id: (0x10de, 0x1401),
            driver: Some("nouveau".into()),
            driver_override: None,
            purpose: Purpose::Run { pid: 7 },
            step: Step::Override,
        }
    }

    #[test]
    fn entries_outlive_the_process_that_wrote_them() {
        let dir = TempDir::new().unwrap();
        let directory = dir.as_path().join("run/tenon");
        let tree = HostTree::live();
        let mut journal = Journal::open(&directory, &tree, SHORT).unwrap();
        journal.add(entry("01:00.0")).unwrap();
        journal.add(entry("01:00.1")).unwrap();
        let bdf = "01:00.1".parse().unwrap();
        journal.step(bdf, Step::Unbind).unwrap();
        let other = Entry {
            driver: None,
            ..entry("01:00.1")
        };
        journal.add(other).unwrap();
        drop(journal);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

        let mut journal = Journal::open(&directory, &tree, SHORT).unwrap();
        assert_eq!(journal.entries(), Journal::peek(&directory, &tree).unwrap());
        assert_eq!(journal.entries().len(), 2);
        let found = journal.entry(bdf).unwrap();
        assert_eq!((found.step, found.driver.as_deref()), (Step::Override, Some("nouveau")));
        journal.forget(bdf).unwrap();
        journal.forget("01:00.0".parse().unwrap()).unwrap();
        assert!(!directory.join(FILE).exists());
    }

    #[test]
    fn two_processes_do_not_interleave() {
        let dir = TempDir::new().unwrap();
        let tree = HostTree::live();
        let first = Journal::open(dir.as_path(), &tree, SHORT).unwrap();
        let message = Journal::open(dir.as_path(), &tree, SHORT).unwrap_err().to_string();
        assert!(
            message.contains(&format!("(process {})", std::process::id())),
            "{message}"
        );
        drop(first);
        Journal::open(dir.as_path(), &tree, SHORT).unwrap();
    }

    #[test]
    fn what_is_no_journal_is_left_as_it_is() {
        let dir = TempDir::new().unwrap();
        let tree = HostTree::live();
        let boot = boot(&tree);
        let good = serde_json::to_string(&Content {
            version: VERSION,
            boot: boot.clone(),
            taken: vec![entry("01:00.0")],
        })
        .unwrap();
        let cases = [
            (String::new(), "EOF"),
            (good.replace("\"version\":1", "\"version\":2"), "version is 2"),
            (good[..good.len() / 2].to_owned(), "EOF"),
            (good.replace("nouveau", "../../x"), "not the name of a driver"),
            (good.replace("0000:01:00.0", "gpu"), "lspci"),
            (good.replace(&boot, "another"), "before the last boot"),
            ("\u{0}\u{1}".repeat(300), "does not hold a journal"),
        ];
        for (text, expected) in cases {
            let path = dir.as_path().join(FILE);
            fs::write(&path, &text).unwrap();
            let message = Journal::open(dir.as_path(), &tree, SHORT).unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.contains("taken.json"),
                "{message}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(dir.as_path().join(FILE), good).unwrap();
        assert_eq!(
            Journal::open(dir.as_path(), &tree, SHORT).unwrap().entries(),
            [entry("01:00.0")]
        );
    }
}
