//! Colour on a terminal, and lines that fit it.

use std::io::IsTerminal;

use vfio::host::check::Status;

/// The width of what is printed; a terminal has at least that.
const WIDTH: usize = 80;

/// Whether there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Without colour.
    pub const PLAIN: Self = Self { colour: false };

    /// With colour where standard output is a terminal and nobody objects (no-color.org).
    pub fn of_output() -> Self {
        let objection = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stdout().is_terminal() && !objection,
        }
    }

    /// A status as its word, four letters wide.
    pub(super) fn word(self, status: Status) -> String {
        let (word, code) = match status {
            Status::Pass => ("pass", "32"),
            Status::Unknown => ("?   ", "36"),
            Status::Warn => ("warn", "33"),
            Status::Fail => ("FAIL", "1;31"),
        };
        self.coloured(word, code)
    }

    /// A heading.
    pub(super) fn heading(self, text: &str) -> String {
        self.coloured(text, "1")
    }

    fn coloured(self, text: &str, code: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// The text in lines that end by [`WIDTH`], each but the first indented; a word that is too long has a line of its own.
pub fn wrapped(text: &str, indent: usize) -> String {
    let room = WIDTH.saturating_sub(indent).max(20);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}
