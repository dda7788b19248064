//! The answer of `tenon check`: lines, their sum, and both forms they are printed in.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use vfio::host::check::{LONGEST_TITLE, Line, Section, Status};

use super::style::{Style, wrapped};

/// The number of the JSON form. Fields may be added without a new one.
const SCHEMA: u32 = 1;

/// Where the text of a line begins: the indent, the status, the title.
const TEXT: usize = 2 + 4 + 2 + LONGEST_TITLE + 2;

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    /// Whether nothing failed, so that a run would work.
    works: bool,
    /// How many lines there are of each status.
    sum: BTreeMap<Status, usize>,
    lines: Vec<Line>,
}

impl Report {
    /// Of these lines.
    pub fn new(mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| line.section);
        let mut sum = BTreeMap::new();
        for line in &lines {
            *sum.entry(line.finding.status).or_default() += 1;
        }
        Self {
            schema: SCHEMA,
            works: !sum.contains_key(&Status::Fail),
            sum,
            lines,
        }
    }

    /// Whether a run would work.
    pub fn works(&self) -> bool {
        self.works
    }

    /// For people.
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        let mut section = None;
        for line in &self.lines {
            if section.replace(line.section) != Some(line.section) {
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}{}", style.heading(heading(line.section)));
            }
            text += &one(line, style);
        }
        let _ = write!(text, "\n{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let count = |status| self.sum.get(&status).copied().unwrap_or(0);
        let mut parts = Vec::new();
        for (status, word) in [
            (Status::Fail, "failed"),
            (Status::Warn, "warned"),
            (Status::Unknown, "unknown"),
            (Status::Pass, "passed"),
        ] {
            if count(status) > 0 {
                parts.push(format!("{} {word}", count(status)));
            }
        }
        let verdict = match (self.works, count(Status::Unknown)) {
            (true, 0) => "Nothing stands in the way.",
            (true, _) => "Nothing stands in the way, as far as can be seen.",
            (false, _) => "A run would not work before that is seen to.",
        };
        let mut text = wrapped(&format!("{}. {verdict}", parts.join(", ")), 0);
        let mut ids: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| line.finding.status >= Status::Warn) {
            ids.extend(line.finding.symptom.filter(|id| !ids.contains(id)));
        }
        if !ids.is_empty() {
            let _ = write!(
                text,
                "\nMore: tenon check --explain ID, with ID one of\n  {}",
                wrapped(&ids.join(" "), 2)
            );
        }
        text + "\n"
    }
}

fn heading(section: Section) -> &'static str {
    match section {
        Section::Machine => "Machine",
        Section::Iommu => "IOMMU",
        Section::Devices => "Devices",
        Section::Memory => "Memory",
        Section::Guest => "Guest",
        Section::Log => "Log",
    }
}

fn one(line: &Line, style: Style) -> String {
    let finding = &line.finding;
    let mut text = format!(
        "  {}  {:LONGEST_TITLE$}  {}\n",
        style.word(finding.status),
        line.title,
        wrapped(&finding.seen, TEXT)
    );
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "{:TEXT$}→ {}", "", wrapped(remedy, TEXT + 2));
    }
    text
}
