//! The answer of `tenon check --scan`: the failures that logs tell of.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vfio::host::symptom::{LARGEST_LOG, Scan, Scanner, Sighting, quote};

use crate::cli::page::{Page, Tone};
use crate::exit::{ExitStatus, Failure};

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {}", path.display())]
pub(super) struct LogError {
    path: PathBuf,
    source: io::Error,
}

impl Failure for LogError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }
}

/// What one log was found to hold.
#[derive(Debug, Serialize)]
pub(super) struct LogReport {
    /// The file, `-` for standard input.
    log: String,
    lines: u64,
    /// Whether it goes on after what was read of it.
    cut: bool,
    sightings: Vec<Seen>,
}

#[derive(Debug, Serialize)]
struct Seen {
    symptom: &'static str,
    title: &'static str,
    line: u64,
    count: u64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u32>,
    cause: &'static str,
    remedy: String,
}

impl Seen {
    fn new(seen: &Sighting) -> Self {
        Self {
            symptom: seen.symptom.id,
            title: seen.symptom.title,
            line: seen.first,
            count: seen.count,
            text: quote(&seen.line),
            device: seen.bdf.map(|bdf| bdf.to_string()),
            group: seen.group,
            cause: seen.symptom.cause,
            remedy: seen.remedy(),
        }
    }

    fn write(&self, page: &mut Page) {
        let about = match (&self.device, self.group) {
            (Some(device), _) => format!("{device}: "),
            (None, Some(group)) => format!("group {group}: "),
            (None, None) => String::new(),
        };
        let times = match self.count {
            1 => String::new(),
            count => format!(", {count} times"),
        };
        page.line("");
        page.wrapped("  ", "  ", &format!("{about}{} ({})", self.title, self.symptom));
        page.line(&format!("    line {}{times}:", self.line));
        page.wrapped("      ", "      ", &self.text);
        page.wrapped("    ", "    ", self.cause);
        page.wrapped("    → ", "      ", &self.remedy);
    }
}

impl LogReport {
    /// Reads a log; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn of(path: &Path) -> Result<Self, LogError> {
        let scan = if path == Path::new("-") {
            Scanner::read(io::stdin().lock())
        } else {
            File::open(path).and_then(|file| Scanner::read(BufReader::new(file)))
        };
        let scan = scan.map_err(|source| LogError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(quote(&path.to_string_lossy()), &scan))
    }

    fn new(log: String, scan: &Scan) -> Self {
        Self {
            log,
            lines: scan.lines,
            cut: scan.cut,
            sightings: scan.sightings.iter().map(Seen::new).collect(),
        }
    }

    /// Whether nothing was found.
    pub(super) fn is_clean(&self) -> bool {
        self.sightings.is_empty()
    }

    /// For people.
    pub(super) fn write(&self, page: &mut Page) {
        let found = match self.sightings.len() {
            0 => "no known failure".to_owned(),
            1 => "1 known failure".to_owned(),
            count => format!("{count} known failures"),
        };
        let lines = match self.lines {
            1 => "1 line".to_owned(),
            lines => format!("{lines} lines"),
        };
        let cut = match self.cut {
            true => format!("; what follows after {} MiB was not read", LARGEST_LOG >> 20),
            false => String::new(),
        };
        let heading = format!("{}: {found} in {lines}{cut}", self.log);
        page.line(&page.toned(Tone::Strong, &heading));
        for seen in &self.sightings {
            seen.write(page);
        }
    }
}
