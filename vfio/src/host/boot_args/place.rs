//! Where kernel arguments stand in a file: a variable of `/etc/default/grub`, the line of `/etc/kernel/cmdline`, the
//! `options` of a boot loader entry. Arguments are put in and taken out there; all other bytes stay as they are.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::arguments;
use super::shell::{self, Assignment, Unbalanced};
use super::words::{Letter, Word, plain, without, words};

/// Where the arguments stand in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "in")]
pub enum Place {
    /// A shell variable; arguments that stand in one of the others need not be added to it.
    Shell {
        /// The variable that is added to.
        variable: String,
        /// Variables whose arguments are in force too.
        others: Vec<String>,
    },
    /// The lines that are no comments, as in `/etc/kernel/cmdline`.
    Line,
    /// The `options` of a Boot Loader Specification entry.
    Options,
    /// A list with an item on each line, as `/etc/initramfs-tools/modules`.
    List,
}

/// Why arguments cannot be put into a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// See [`Unbalanced`].
    #[error(transparent)]
    Unbalanced(#[from] Unbalanced),
    /// A command line file without a command line: with our arguments alone the host would not find its root.
    #[error(
        "it holds no arguments; with these alone the host would not find its root file system: write the command line \
         of this host into it first (`cat /proc/cmdline`)"
    )]
    Empty,
    /// What the kernel would take for part of another argument.
    #[error(
        "a quotation mark among its arguments is never closed, so the kernel would take what is added for part of it; close it"
    )]
    OpenQuote,
    /// Bytes that no text file has.
    #[error("it is not a text file")]
    NotText,
}

/// The arguments of a place, and where more go.
struct Found {
    words: Vec<Word>,
    slot: Slot,
}

/// Where arguments are added: `open`, a space if `glue`, the arguments, `close`.
struct Slot {
    at: usize,
    open: String,
    close: &'static str,
    glue: bool,
}

/// A file with arguments put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edited {
    pub bytes: Vec<u8>,
    pub added: Vec<String>,
    pub taken: Vec<String>,
}

impl Place {
    /// The arguments that stand there.
    pub(super) fn arguments(&self, bytes: &[u8]) -> Result<Vec<String>, PlaceError> {
        Ok(self.find(bytes)?.words.into_iter().map(|word| word.text).collect())
    }

    /// The file with those of the wanted arguments that it does not have, and without those that `unwanted` picks.
    pub(super) fn edit(
        &self,
        bytes: &[u8],
        wanted: &[String],
        unwanted: impl Fn(&str) -> bool,
    ) -> Result<Edited, PlaceError> {
        let mut bytes = bytes.to_vec();
        let mut taken = Vec::new();
        while let Some(word) = self.find(&bytes)?.words.into_iter().find(|word| unwanted(&word.text)) {
            bytes = self.cut(&bytes, &word.raw);
            taken.push(word.text);
        }
        let added = arguments::missing(&self.arguments(&bytes)?, wanted);
        self.put(&mut bytes, &added)?;
        let there = self.arguments(&bytes)?;
        if !added.iter().all(|word| there.contains(word)) {
            return Err(PlaceError::OpenQuote);
        }
        Ok(Edited { bytes, added, taken })
    }

    /// The file without arguments of ours, each taken out once, and with those back that were taken from it.
    pub(super) fn restore(&self, bytes: &[u8], added: &[String], taken: &[String]) -> Result<Vec<u8>, PlaceError> {
        let mut bytes = bytes.to_vec();
        if let Err(PlaceError::Empty) = self.find(&bytes) {
            return Ok(bytes);
        }
        for ours in added {
            // The last one: where the same was written by hand it stands before ours, or was found and not added.
            if let Some(word) = self.find(&bytes)?.words.into_iter().rfind(|word| word.text == *ours) {
                bytes = self.cut(&bytes, &word.raw);
            }
        }
        let there = self.arguments(&bytes)?;
        let back: Vec<String> = taken.iter().filter(|word| !there.contains(word)).cloned().collect();
        self.put(&mut bytes, &back)?;
        Ok(bytes)
    }

    fn cut(&self, bytes: &[u8], word: &Range<usize>) -> Vec<u8> {
        match self {
            Self::List => {
                let mut rest = bytes.to_vec();
                rest.drain(word.clone());
                rest
            }
            Self::Shell { .. } | Self::Line | Self::Options => without(bytes, word),
        }
    }

    fn put(&self, bytes: &mut Vec<u8>, added: &[String]) -> Result<(), PlaceError> {
        if added.is_empty() {
            return Ok(());
        }
        let Slot { at, open, close, glue } = self.find(bytes)?.slot;
        let space = if glue { " " } else { "" };
        let between = if *self == Self::List { "\n" } else { " " };
        let text = format!("{open}{space}{}{close}", added.join(between));
        bytes.splice(at..at, text.into_bytes());
        Ok(())
    }

    fn find(&self, bytes: &[u8]) -> Result<Found, PlaceError> {
        if bytes.contains(&0) {
            return Err(PlaceError::NotText);
        }
        match self {
            Self::Shell { variable, others } => in_shell(bytes, variable, others),
            Self::Line => in_line(bytes),
            Self::Options => Ok(in_options(bytes)),
            Self::List => Ok(in_list(bytes)),
        }
    }
}

fn in_shell(bytes: &[u8], variable: &str, others: &[String]) -> Result<Found, PlaceError> {
    let all = shell::assignments(bytes)?;
    // The file is sourced from top to bottom: the last assignment is the one in force.
    let last = |name: &str| all.iter().rfind(|assignment| assignment.name == name);
    let slot = last(variable).map_or_else(
        || Slot {
            at: bytes.len(),
            open: format!("{}{variable}=\"", line_end(bytes)),
            close: "\"\n",
            glue: false,
        },
        shell_slot,
    );
    let mut found: Vec<Word> = others
        .iter()
        .filter_map(|name| last(name))
        .flat_map(|assignment| words(&assignment.letters))
        .collect();
    found.extend(
        last(variable)
            .into_iter()
            .flat_map(|assignment| words(&assignment.letters)),
    );
    Ok(Found { words: found, slot })
}

fn shell_slot(assignment: &Assignment) -> Slot {
    let glue = !assignment.letters.is_empty() || assignment.extends;
    let (at, quote) = match assignment.closing {
        Some(at) => (at, ""),
        None => (assignment.raw.end, "\""),
    };
    Slot {
        at,
        open: quote.to_owned(),
        close: quote,
        glue,
    }
}

/// All lines are in force, as one. The last is added to: of two arguments that exclude each other the later one wins.
fn in_line(bytes: &[u8]) -> Result<Found, PlaceError> {
    let is_said = |line: &Range<usize>| {
        let text = bytes.get(line.clone()).unwrap_or_default().trim_ascii();
        !text.is_empty() && !text.starts_with(b"#")
    };
    let lines: Vec<Range<usize>> = lines(bytes).into_iter().filter(is_said).collect();
    let slot = end_of(bytes, lines.last().ok_or(PlaceError::Empty)?);
    let letters: Vec<Letter> = lines.into_iter().flat_map(|line| plain(bytes, line)).collect();
    Ok(Found {
        words: words(&letters),
        slot,
    })
}

fn in_options(bytes: &[u8]) -> Found {
    let key = b"options";
    let options: Vec<Range<usize>> = lines(bytes)
        .into_iter()
        .filter_map(|line| {
            let text = bytes.get(line.clone())?;
            let from = line.start + text.len() - text.trim_ascii_start().len();
            let rest = bytes.get(from..line.end)?.strip_prefix(key)?;
            let separated = rest.first().is_none_or(u8::is_ascii_whitespace);
            separated.then_some(from + key.len()..line.end)
        })
        .collect();
    let slot = options.last().map_or_else(
        || Slot {
            at: bytes.len(),
            open: format!("{}options ", line_end(bytes)),
            close: "\n",
            glue: false,
        },
        |line| end_of(bytes, line),
    );
    Found {
        words: options
            .into_iter()
            .flat_map(|line| words(&plain(bytes, line)))
            .collect(),
        slot,
    }
}

fn in_list(bytes: &[u8]) -> Found {
    let item = |line: Range<usize>| {
        let text = bytes.get(line.clone())?.trim_ascii();
        let is_item = !text.is_empty() && !text.starts_with(b"#");
        is_item.then(|| Word {
            text: String::from_utf8_lossy(text).into_owned(),
            raw: line,
        })
    };
    Found {
        words: lines(bytes).into_iter().filter_map(item).collect(),
        slot: Slot {
            at: bytes.len(),
            open: line_end(bytes).to_owned(),
            close: "\n",
            glue: false,
        },
    }
}

/// Behind the last byte of a line that is no white space.
fn end_of(bytes: &[u8], line: &Range<usize>) -> Slot {
    let text = bytes.get(line.clone()).unwrap_or_default().trim_ascii_end();
    Slot {
        at: line.start + text.len(),
        open: String::new(),
        close: "",
        glue: true,
    }
}

/// What a line that is appended needs before it.
fn line_end(bytes: &[u8]) -> &'static str {
    match bytes.last() {
        None | Some(b'\n') => "",
        Some(_) => "\n",
    }
}

/// The lines with the byte that ends each.
fn lines(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut start = 0;
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let range = start..start + line.len();
            start = range.end;
            range
        })
        .collect()
}

#[cfg(test)]
mod tests;
