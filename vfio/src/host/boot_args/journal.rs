//! What was added to which file, so that exactly that is taken back: kept in the host's own tree, with each file as it
//! was before and as tenon left it. Not beside the files: what lies in `grub.d` or among boot entries is read there.

use std::io;

use serde::{Deserialize, Serialize};

use super::super::HostTree;
use super::place::Place;
use super::program::Told;

/// Where all of it lies.
pub(super) const FOLDER: &str = "/var/lib/tenon/boot-args";
/// The format written. Another one is refused.
const FORMAT: u32 = 1;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file of it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what tenon writes.
    #[error(
        "{path} is not a journal that this tenon writes; what was added must be taken back by hand, see the copies in {FOLDER}/before"
    )]
    Garbled {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by a later version.
    #[error("{path} has format {found}; this tenon knows format {FORMAT}: use the tenon that wrote it")]
    Format {
        /// The file.
        path: String,
        /// The format it has.
        found: u32,
    },
}

/// What tenon did to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(super) enum Deed {
    /// Words were put in, and others taken out.
    Words {
        place: Place,
        added: Vec<String>,
        taken: Vec<String>,
    },
    /// The file was made.
    File { executable: bool },
}

/// A file, what was done to it, and how it was before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub path: String,
    #[serde(flatten)]
    pub deed: Deed,
    #[serde(skip)]
    pub before: Option<Vec<u8>>,
    #[serde(skip)]
    pub after: Vec<u8>,
}

/// See the module's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub format: u32,
    /// What a program was told that keeps arguments.
    #[serde(default)]
    pub told: Told,
    /// Folders that were made.
    #[serde(default)]
    pub folders: Vec<String>,
    pub entries: Vec<Entry>,
}

impl Journal {
    pub(super) fn path() -> String {
        format!("{FOLDER}/journal.json")
    }

    /// The journal of a tree; an empty one where nothing was applied.
    pub(super) fn of(tree: &HostTree) -> Result<Self, JournalError> {
        let path = Self::path();
        let bytes = match tree.bytes(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(JournalError::Read { path, source }),
        };
        let mut journal: Self = match serde_json::from_slice(&bytes) {
            Ok(journal) => journal,
            Err(source) => return Err(JournalError::Garbled { path, source }),
        };
        if journal.format != FORMAT {
            let found = journal.format;
            return Err(JournalError::Format { path, found });
        }
        for entry in &mut journal.entries {
            // A copy that is lost is no obstacle: the words are known, and a file of ours is then one that was edited.
            entry.before = tree.bytes(copy("before", &entry.path)).ok();
            entry.after = tree.bytes(copy("after", &entry.path)).unwrap_or_default();
        }
        Ok(journal)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.told.is_empty()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// The files that hold it.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        if self.is_empty() {
            return Vec::new();
        }
        let journal = Self {
            format: FORMAT,
            ..self.clone()
        };
        // Maps with keys that are no text are what serde_json refuses; there are none here.
        let text = serde_json::to_string_pretty(&journal).unwrap_or_default() + "\n";
        let mut files = vec![(Self::path(), text.into_bytes())];
        for entry in &self.entries {
            if let Some(before) = &entry.before {
                files.push((copy("before", &entry.path), before.clone()));
            }
            files.push((copy("after", &entry.path), entry.after.clone()));
        }
        files
    }
}

fn copy(which: &str, path: &str) -> String {
    format!("{FOLDER}/{which}/{}", path.trim_start_matches('/'))
}
