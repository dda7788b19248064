//! What a plan means for the files of a host as they are now, or what it means to take it back: each file before and
//! after, computed without writing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::Serialize;

use super::super::HostTree;
use super::arguments;
use super::early::HEADER;
use super::journal::{Deed, Entry, FOLDER, Journal, JournalError};
use super::place::{Place, PlaceError};
use super::plan::{BootPlan, Change};
use super::program::Told;
use super::system::Arguments;

mod undo;

/// Where a script goes that was edited by hand before it was taken back.
const KEPT: &str = "/var/lib/tenon/kept";

/// Why files cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {source}")]
    Place {
        /// The file.
        path: String,
        /// What is wrong.
        source: PlaceError,
    },
    /// An argument in a file would undo the plan.
    #[error(
        "{path} holds `{argument}`, which {why}; take it out, or say --replace to have that done (--remove puts it back)"
    )]
    Defeated {
        /// The file.
        path: String,
        /// The argument.
        argument: String,
        /// What it does.
        why: String,
    },
    /// Somebody else has made the file.
    #[error("{path} exists and was not made by tenon; move it away")]
    Foreign {
        /// The file.
        path: String,
    },
    /// A script of tenon's was edited by hand.
    #[error(
        "{path} was edited by hand; `tenon boot-args --remove` keeps a copy of it and takes it back, then apply again"
    )]
    Edited {
        /// The file.
        path: String,
    },
}

/// One file before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The file.
    pub path: String,
    /// Its content now; `None` where it does not exist.
    pub before: Option<Vec<u8>>,
    /// Its content afterwards; `None` where it goes away.
    pub after: Option<Vec<u8>>,
    /// The mode of a file that is made.
    pub(super) mode: u32,
}

/// See the module's own words.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// The files of the host that change.
    pub files: Vec<Edit>,
    /// What there is to say about files that were edited by hand.
    pub remarks: Vec<String>,
    /// What rpm-ostree or kernelstub were told, and has to be taken back.
    pub told: Told,
    pub(super) state: Vec<Edit>,
    pub(super) folders: Vec<String>,
    pub(super) undoing: bool,
}

/// A change to a file, as `--json` tells it.
#[derive(Debug, Serialize)]
pub struct Summary {
    path: String,
    diff: String,
}

impl Edits {
    /// What carrying out a plan means. Where it was carried out before, in this form or in another, only the
    /// difference is left.
    ///
    /// # Errors
    /// A file cannot be read, makes no sense, or holds what would undo the plan.
    pub fn applying(plan: &BootPlan, tree: &HostTree) -> Result<Self, EditError> {
        let journal = Journal::of(tree)?;
        let mut edits = Self::default();
        let mut next = Journal {
            told: plan.told.clone(),
            ..Journal::default()
        };
        plan.check_program()?;
        for change in &plan.changes {
            let known = journal.get(change.path());
            let now = content(tree, change.path())?;
            let (after, entry) = match change {
                Change::Words { path, place, words } => words_after(plan, path, (place, words), known, now.as_deref())?,
                Change::File { path, text, executable } => {
                    file_after(path, (text, *executable), known, now.as_deref())?
                }
            };
            edits.push(change.path(), now, after, entry.as_ref());
            next.entries.extend(entry);
        }
        for stale in journal.entries.iter().filter(|entry| next.get(&entry.path).is_none()) {
            // An entry of the plan that needs nothing any more was restored above.
            if !plan.changes.iter().any(|change| change.path() == stale.path) {
                edits.undo(tree, stale)?;
            }
        }
        next.folders = made_folders(tree, &next, &journal);
        edits.folders = deepest_first(&next.folders);
        edits.keep(tree, &journal, &next);
        Ok(edits)
    }

    /// What taking everything back means.
    ///
    /// # Errors
    /// A file cannot be read or makes no sense.
    pub fn undoing(tree: &HostTree) -> Result<Self, EditError> {
        let journal = Journal::of(tree)?;
        let mut edits = Self {
            undoing: true,
            told: journal.told.clone(),
            ..Self::default()
        };
        for entry in &journal.entries {
            edits.undo(tree, entry)?;
        }
        edits.folders = deepest_first(&journal.folders);
        edits.keep(tree, &journal, &Journal::default());
        Ok(edits)
    }

    /// Whether no file changes and nothing has to be taken from a program.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.state.is_empty()
    }

    /// The changes as unified diffs.
    pub fn diff(&self) -> String {
        self.files.iter().map(Edit::diff).collect()
    }

    /// For scripts.
    pub fn summary(&self) -> Vec<Summary> {
        let of = |edit: &Edit| Summary {
            path: edit.path.clone(),
            diff: edit.diff(),
        };
        self.files.iter().map(of).collect()
    }

    fn push(&mut self, path: &str, before: Option<Vec<u8>>, after: Option<Vec<u8>>, entry: Option<&Entry>) {
        if before == after {
            return;
        }
        let executable = matches!(
            entry,
            Some(Entry {
                deed: Deed::File { executable: true },
                ..
            })
        );
        self.files.push(Edit {
            path: path.to_owned(),
            before,
            after,
            mode: if executable { 0o755 } else { 0o644 },
        });
    }

    fn undo(&mut self, tree: &HostTree, entry: &Entry) -> Result<(), EditError> {
        let Some(now) = content(tree, &entry.path)? else {
            self.remarks.push(format!("{} is gone already", entry.path));
            return Ok(());
        };
        let undone = undo::undone(entry, &now).map_err(|source| EditError::Place {
            path: entry.path.clone(),
            source,
        })?;
        if undone.by_hand {
            self.remarks.push(match &undone.kept {
                Some(_) => format!("{0} was edited by hand: a copy is kept in {KEPT}{0}", entry.path),
                None => format!("{} was edited since: only what tenon added is taken out", entry.path),
            });
        }
        if let Some(script) = undone.kept {
            self.push(&format!("{KEPT}{}", entry.path), None, Some(script), None);
        }
        self.push(&entry.path, Some(now), undone.after, None);
        Ok(())
    }

    /// The journal's own files: written before anything else, and taken away after everything else.
    fn keep(&mut self, tree: &HostTree, old: &Journal, new: &Journal) {
        let read = |path: &String| tree.bytes(path).ok();
        let mut paths: BTreeMap<String, Option<Vec<u8>>> =
            old.files().into_iter().map(|(path, _)| (path, None)).collect();
        paths.extend(new.files().into_iter().map(|(path, bytes)| (path, Some(bytes))));
        for (path, after) in paths {
            let before = read(&path);
            if before != after {
                self.state.push(Edit {
                    path,
                    before,
                    after,
                    mode: 0o600,
                });
            }
        }
    }
}

impl Edit {
    fn diff(&self) -> String {
        let text = |bytes: &Option<Vec<u8>>| String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
        let (old, new) = (text(&self.before), text(&self.after));
        let name = |side: &str, bytes: &Option<Vec<u8>>| match bytes {
            Some(_) => format!("{side}{}", self.path),
            None => "/dev/null".to_owned(),
        };
        similar::TextDiff::from_lines(&old, &new)
            .unified_diff()
            .context_radius(2)
            .header(&name("a", &self.before), &name("b", &self.after))
            .to_string()
    }
}

fn content(tree: &HostTree, path: &str) -> Result<Option<Vec<u8>>, EditError> {
    match tree.bytes(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EditError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

impl BootPlan {
    /// Where a program keeps the arguments, those that the kernel was started with stand for a file.
    fn check_program(&self) -> Result<(), EditError> {
        let kept = self
            .system
            .arguments
            .iter()
            .any(|arguments| matches!(arguments, Arguments::Kept(_)));
        let standing = self
            .in_force
            .iter()
            .filter(|word| kept && !self.told.withdrawn.contains(word));
        for argument in standing {
            if let Some(why) = arguments::defeats(argument, &self.functions) {
                return Err(EditError::Defeated {
                    path: "/proc/cmdline".into(),
                    argument: argument.clone(),
                    why,
                });
            }
        }
        Ok(())
    }
}

type After = (Option<Vec<u8>>, Option<Entry>);

fn words_after(
    plan: &BootPlan,
    path: &str,
    (place, wanted): (&Place, &[String]),
    known: Option<&Entry>,
    now: Option<&[u8]>,
) -> Result<After, EditError> {
    let at = |source| EditError::Place {
        path: path.to_owned(),
        source,
    };
    let now = now.ok_or_else(|| EditError::Read {
        path: path.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })?;
    let pristine = match known {
        Some(entry) => undo::undone(entry, now).map_err(at)?.after.unwrap_or_default(),
        None => now.to_vec(),
    };
    let unwanted = |word: &str| plan.replace && arguments::replaced(word, &plan.arguments);
    let edited = place.edit(&pristine, wanted, unwanted).map_err(at)?;
    let there = place.arguments(&pristine).map_err(at)?;
    let standing = there.iter().filter(|word| !edited.taken.contains(word));
    for argument in standing {
        if let Some(why) = arguments::defeats(argument, &plan.functions) {
            return Err(EditError::Defeated {
                path: path.to_owned(),
                argument: argument.clone(),
                why,
            });
        }
    }
    if let Some(entry) = known
        && still_in_force(
            entry,
            (&edited.added, &edited.taken),
            &place.arguments(now).map_err(at)?,
        )
    {
        return Ok((Some(now.to_vec()), Some(entry.clone())));
    }
    let entry = (!edited.added.is_empty() || !edited.taken.is_empty()).then(|| Entry {
        path: path.to_owned(),
        deed: Deed::Words {
            place: place.clone(),
            added: edited.added,
            taken: edited.taken,
        },
        before: Some(pristine),
        after: edited.bytes.clone(),
    });
    Ok((Some(edited.bytes), entry))
}

/// Whether a file has all that would be put into it, wherever the user has moved it meanwhile.
fn still_in_force(entry: &Entry, (add, take): (&[String], &[String]), now: &[String]) -> bool {
    let Deed::Words { added, taken, .. } = &entry.deed else {
        return false;
    };
    let set = |words: &[String]| words.iter().cloned().collect::<BTreeSet<String>>();
    set(added) == set(add)
        && set(taken) == set(take)
        && added.iter().all(|word| now.contains(word))
        && !taken.iter().any(|word| now.contains(word))
}

fn file_after(
    path: &str,
    (text, executable): (&str, bool),
    known: Option<&Entry>,
    now: Option<&[u8]>,
) -> Result<After, EditError> {
    let text = text.as_bytes().to_vec();
    let entry = Entry {
        path: path.to_owned(),
        deed: Deed::File { executable },
        before: None,
        after: text.clone(),
    };
    let made_by_us = |bytes: &[u8]| bytes == text || bytes.windows(HEADER.len()).any(|part| part == HEADER.as_bytes());
    match (known, now) {
        (None, Some(bytes)) if !made_by_us(bytes) => Err(EditError::Foreign { path: path.to_owned() }),
        (Some(known), Some(bytes)) if bytes != known.after => {
            if known.after == text {
                return Ok((Some(bytes.to_vec()), Some(known.clone())));
            }
            if executable {
                return Err(EditError::Edited { path: path.to_owned() });
            }
            let mut both = text;
            both.extend(undo::leftover(&known.after, bytes));
            Ok((Some(both), Some(entry)))
        }
        _ => Ok((Some(text), Some(entry))),
    }
}

fn deepest_first(folders: &[String]) -> Vec<String> {
    let mut folders = folders.to_vec();
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    folders
}

/// The folders that are made for the files, and those that were made before and are still needed.
fn made_folders(tree: &HostTree, next: &Journal, old: &Journal) -> Vec<String> {
    let state = format!("{FOLDER}/journal.json");
    let copies = next.files();
    let paths = next
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .chain([state.as_str()])
        .chain(copies.iter().map(|(path, _)| path.as_str()));
    let mut folders: BTreeSet<String> = old.folders.iter().cloned().collect();
    for path in paths {
        for (at, _) in path.match_indices('/').skip(1) {
            let folder = path.get(..at).unwrap_or_default();
            if !tree.is_dir(folder) {
                folders.insert(folder.to_owned());
            }
        }
    }
    folders.into_iter().collect()
}
