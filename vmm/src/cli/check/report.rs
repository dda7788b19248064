//! The answer of `tenon check`: lines, their sum, and both forms they are printed in.

use std::collections::BTreeMap;

use serde::Serialize;
use vfio::host::check::{LONGEST_TITLE, Line, Section, Status};

use crate::cli::page::{Page, Tone};

/// The number of the JSON form. Fields may be added without a new one.
const SCHEMA: u32 = 1;

/// Where the text of a line begins: the indent, the status, the title.
const TEXT: usize = 2 + 4 + 2 + LONGEST_TITLE + 2;

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    /// Whether nothing failed, so that a run would work.
    works: bool,
    /// How many lines there are of each status.
    sum: BTreeMap<Status, usize>,
    lines: Vec<Line>,
}

impl Report {
    /// Of these lines.
    pub(super) fn new(mut lines: Vec<Line>) -> Self {
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
    pub(super) fn works(&self) -> bool {
        self.works
    }

    /// For people.
    pub(super) fn write(&self, page: &mut Page) {
        let mut section = None;
        for line in &self.lines {
            let first = section.is_none();
            if section.replace(line.section) != Some(line.section) {
                if !first {
                    page.line("");
                }
                page.line(&page.toned(Tone::Strong, heading(line.section)));
            }
            one(line, page);
        }
        page.line("");
        self.summary(page);
    }

    fn summary(&self, page: &mut Page) {
        let count = |status| self.sum.get(&status).copied().unwrap_or(0);
        let words = [
            (Status::Fail, "failed"),
            (Status::Warn, "warned"),
            (Status::Unknown, "unknown"),
            (Status::Pass, "passed"),
        ];
        let counted = words.iter().filter(|(status, _)| count(*status) > 0);
        let parts: Vec<String> = counted
            .map(|(status, word)| format!("{} {word}", count(*status)))
            .collect();
        let verdict = match (self.works, count(Status::Unknown)) {
            (true, 0) => "Nothing stands in the way.",
            (true, _) => "Nothing stands in the way, as far as can be seen.",
            (false, _) => "A run would not work before that is seen to.",
        };
        page.wrapped("", "", &format!("{}. {verdict}", parts.join(", ")));
        let mut ids: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| line.finding.status >= Status::Warn) {
            ids.extend(line.finding.symptom.filter(|id| !ids.contains(id)));
        }
        if !ids.is_empty() {
            page.line("More: tenon check --explain ID, with ID one of");
            page.wrapped("  ", "  ", &ids.join(" "));
        }
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

fn one(line: &Line, page: &mut Page) {
    let (word, tone) = match line.finding.status {
        Status::Pass => ("pass", Tone::Good),
        Status::Unknown => ("?   ", Tone::Faint),
        Status::Warn => ("warn", Tone::Warning),
        Status::Fail => ("FAIL", Tone::Bad),
    };
    let first = format!("  {}  {:LONGEST_TITLE$}  ", page.toned(tone, word), line.title);
    page.wrapped(&first, &" ".repeat(TEXT), &line.finding.seen);
    if let Some(remedy) = &line.finding.remedy {
        let indent = " ".repeat(TEXT);
        page.wrapped(&format!("{indent}→ "), &format!("{indent}  "), remedy);
    }
}
