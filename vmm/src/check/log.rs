//! The answer of `tenon check --scan`: the failures that logs tell of.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vfio::host::symptom::{LARGEST_LOG, Scan, Scanner, Sighting, quote};

use super::style::{Style, wrapped};
use crate::exit::{ExitStatus, Failure};

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {}", path.display())]
pub struct LogError {
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
pub struct LogReport {
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
}

impl LogReport {
    /// Reads a log; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: &Path) -> Result<Self, LogError> {
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
    pub fn is_clean(&self) -> bool {
        self.sightings.is_empty()
    }

    /// For people.
    pub fn text(&self, style: Style) -> String {
        let found = match self.sightings.len() {
            0 => "no known failure".to_owned(),
            1 => "1 known failure".to_owned(),
            count => format!("{count} known failures"),
        };
        let lines = if self.lines == 1 {
            "1 line".to_owned()
        } else {
            format!("{} lines", self.lines)
        };
        let cut = match self.cut {
            true => format!("; what follows after {} MiB was not read", LARGEST_LOG >> 20),
            false => String::new(),
        };
        let mut text = format!("{}\n", style.heading(&format!("{}: {found} in {lines}{cut}", self.log)));
        for seen in &self.sightings {
            let about = match (&seen.device, seen.group) {
                (Some(device), _) => format!("{device}: "),
                (None, Some(group)) => format!("group {group}: "),
                (None, None) => String::new(),
            };
            let times = if seen.count > 1 {
                format!(", {} times", seen.count)
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "\n  {}",
                wrapped(&format!("{about}{} ({})", seen.title, seen.symptom), 2)
            );
            let _ = writeln!(text, "    line {}{times}:", seen.line);
            let _ = writeln!(text, "      {}", wrapped(&seen.text, 6));
            let _ = writeln!(text, "    {}", wrapped(seen.cause, 4));
            let _ = writeln!(text, "    → {}", wrapped(&seen.remedy, 6));
        }
        text
    }
}
