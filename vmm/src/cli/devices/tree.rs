//! The tree view: functions as they hang on each other, from the root buses down.

use std::collections::{BTreeMap, BTreeSet};

use vfio::host::Bdf;
use vfio::host::survey::{Function, Survey, Verdict, short};

use super::label;
use crate::cli::page::{Page, Tone, fit, fit_middle};

/// The most columns that a driver's name gets.
const DRIVER: usize = 14;

/// What stands right of the driver: the group and whether a guest can have it.
const HEADING: &str = "  grp  guest";

/// Levels that are drawn with all their lines; of those below only the number is.
const LEVELS: usize = 8;

/// The deepest level; PCI has 256 buses, and no host has a tenth of them in a row.
const DEEPEST: usize = 32;

/// Writes the functions and those that they hang on.
pub(super) fn write(page: &mut Page, survey: &Survey, shown: &[&Function]) {
    let shown = with_ancestors(survey, shown);
    let mut children: BTreeMap<Option<Bdf>, Vec<Bdf>> = BTreeMap::new();
    let mut levels: BTreeMap<Bdf, usize> = BTreeMap::new();
    for bdf in &shown {
        // Buses are numbered from the root down, so that parents come first. Only forged paths have it otherwise, or
        // go deeper; then the function stands by itself.
        let parent = survey.get(*bdf).and_then(Function::parent);
        let level = parent.and_then(|parent| levels.get(&parent)).map(|level| level + 1);
        let level = level.filter(|level| *level < DEEPEST);
        levels.insert(*bdf, level.unwrap_or(0));
        children
            .entry(parent.filter(|_| level.is_some()))
            .or_default()
            .push(*bdf);
    }
    let roots = children.remove(&None).unwrap_or_default();
    let mut buses: BTreeMap<(u32, u8), Vec<Bdf>> = BTreeMap::new();
    for root in roots {
        buses.entry((root.domain, root.bus)).or_default().push(root);
    }
    let drivers = shown.iter().filter_map(|bdf| survey.get(*bdf)?.facts.driver.as_deref());
    let driver = drivers.map(str::len).max().unwrap_or(0).clamp("driver".len(), DRIVER);
    let right = format!("{:<driver$}{HEADING}", "driver");
    let columns = format!("{right:>width$}", width = page.width);
    page.line(&columns);
    let mut tree = Tree {
        driver,
        page,
        survey,
        children,
    };
    for ((domain, bus), functions) in buses {
        let title = tree.page.toned(Tone::Strong, &format!("Bus {domain:04x}:{bus:02x}"));
        tree.page.line(&title);
        tree.branch(&functions, &mut Vec::new());
    }
}

fn with_ancestors(survey: &Survey, shown: &[&Function]) -> BTreeSet<Bdf> {
    let mut all = BTreeSet::new();
    for function in shown {
        let mut next = Some(function.bdf());
        while let Some(function) = next.and_then(|bdf| survey.get(bdf)) {
            if !all.insert(function.bdf()) {
                break;
            }
            next = function.parent();
        }
    }
    all
}

struct Tree<'a> {
    /// Columns of the drivers' names.
    driver: usize,
    page: &'a mut Page,
    survey: &'a Survey,
    children: BTreeMap<Option<Bdf>, Vec<Bdf>>,
}

impl Tree<'_> {
    /// `open` says of each level above whether more of it comes below.
    fn branch(&mut self, functions: &[Bdf], open: &mut Vec<bool>) {
        for (position, bdf) in functions.iter().enumerate() {
            let more = position + 1 < functions.len();
            let Some(function) = self.survey.get(*bdf) else {
                continue;
            };
            self.line(function, &lead(open, more));
            // Taken out, so that nothing is drawn twice.
            if let Some(below) = self.children.remove(&Some(*bdf)) {
                open.push(more);
                self.branch(&below, open);
                open.pop();
            }
        }
    }

    fn line(&mut self, function: &Function, lead: &str) {
        let (page, width) = (&mut *self.page, self.driver);
        let front = format!(
            "{lead}{}  {:<9}",
            short(function.bdf()),
            label::kind(function.facts.class)
        );
        let driver = fit(function.facts.driver.as_deref().unwrap_or("-"), width);
        let group = function
            .facts
            .group
            .map_or_else(|| "-".to_owned(), |group| group.to_string());
        let (tone, verdict) = match &function.verdict {
            _ if function.facts.is_bridge() => (Tone::Faint, ""),
            Verdict::Yes => (Tone::Good, "yes"),
            Verdict::WithSiblings(_) => (Tone::Good, "with"),
            Verdict::No(_) => (Tone::Bad, "no"),
        };
        let right = 2 + width + HEADING.len();
        let left = page.width.saturating_sub(front.chars().count() + right);
        let text = format!(
            "{front}{}  {driver}  {group:>3}  ",
            fit_middle(&label::name(function), left)
        );
        let text = if function.facts.is_bridge() {
            page.toned(Tone::Faint, &text)
        } else {
            text
        };
        let verdict = page.toned(tone, verdict);
        page.line(&format!("{text}{verdict}"));
    }
}

fn lead(open: &[bool], more: bool) -> String {
    let end = if more { "├─ " } else { "└─ " };
    if open.len() > LEVELS {
        return format!("({}) ", open.len() + 1);
    }
    let mut lead: String = open.iter().map(|more| if *more { "│  " } else { "   " }).collect();
    lead += end;
    lead
}
