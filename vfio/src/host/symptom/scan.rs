//! Looking a log up in the catalogue, line by line and within limits.

use std::io::{self, BufRead};
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::{Symptom, all};
use crate::host::Bdf;

/// The most that is read of a log.
pub const LARGEST_LOG: u64 = 64 << 20;

/// A longer line is cut before it is looked at.
const LONGEST_LINE: usize = 8192;

/// More different devices than one log names for one failure; further ones are counted with the last.
const MOST_SUBJECTS: usize = 32;

/// A PCI address as the kernel writes it; the domain may be left out where the sign itself says that an address follows.
const BDF: &str = r"(?P<bdf>(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7])";
/// The same with its domain, which nothing else in a log looks like.
const FULL_BDF: &str = r"\b[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\b";
const GROUP: &str = r"(?P<group>\d{1,6})";

/// A failure seen in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// What it is.
    pub symptom: &'static Symptom,
    /// The function it is about, where the log says.
    pub bdf: Option<Bdf>,
    /// The IOMMU group it is about, where the log says.
    pub group: Option<u32>,
    /// The number of the first such line, from 1.
    pub first: u64,
    /// That line as it stands; see [`super::quote`] before it is shown.
    pub line: String,
    /// How many such lines there are.
    pub count: u64,
}

impl Sighting {
    /// What to do about this one.
    pub fn remedy(&self) -> String {
        let bdf = self.bdf.map(|bdf| bdf.to_string());
        self.symptom.remedy_for(bdf.as_deref(), self.group)
    }
}

/// What a log was found to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The failures, in order of their first line.
    pub sightings: Vec<Sighting>,
    /// How many lines were read.
    pub lines: u64,
    /// Whether the log goes on after [`LARGEST_LOG`].
    pub cut: bool,
}

/// The catalogue made ready for looking up.
struct Signs {
    any: RegexSet,
    each: Vec<Sign>,
    bdf: Option<Regex>,
}

/// One expression of it, and whose it is.
struct Sign {
    expression: Regex,
    symptom: &'static Symptom,
    /// Whether it is no sign itself, but what must stand besides one.
    is_context: bool,
}

static SIGNS: LazyLock<Signs> = LazyLock::new(|| {
    let signs = |symptom: &'static Symptom| symptom.signs.iter().map(move |sign| (*sign, symptom, false));
    let context = |symptom: &'static Symptom| symptom.context.map(|context| (context, symptom, true));
    let all = all().flat_map(|symptom| signs(symptom).chain(context(symptom)));
    // A sign that is no expression would be left out; a test holds that none is.
    let each: Vec<Sign> = all
        .filter_map(|(sign, symptom, is_context)| {
            Some(Sign {
                expression: compile(sign)?,
                symptom,
                is_context,
            })
        })
        .collect();
    let any = RegexSetBuilder::new(each.iter().map(|sign| sign.expression.as_str()))
        .case_insensitive(true)
        .unicode(false)
        .build()
        .unwrap_or_else(|_| RegexSet::empty());
    Signs {
        any,
        each,
        bdf: compile(FULL_BDF),
    }
});

/// Bytes rather than letters, as logs hold anything; that also makes the automaton of all signs small enough to be fast.
pub(super) fn compile(sign: &str) -> Option<Regex> {
    let sign = sign.replace("<BDF>", BDF).replace("<GROUP>", GROUP);
    RegexBuilder::new(&sign)
        .case_insensitive(true)
        .unicode(false)
        .build()
        .ok()
}

/// Looks at one log.
#[derive(Debug, Default)]
pub struct Scanner {
    found: Scan,
    /// The symptoms whose context was seen.
    contexts: Vec<&'static str>,
}

impl Scanner {
    /// All of a log that can be read, up to [`LARGEST_LOG`].
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(log: impl BufRead) -> io::Result<Scan> {
        Self::read_within(LARGEST_LOG, log)
    }

    pub(super) fn read_within(most: u64, log: impl BufRead) -> io::Result<Scan> {
        let mut scanner = Self::default();
        let mut log = log.take(most);
        while let Some(line) = next_line(&mut log)? {
            scanner.line(&line);
        }
        scanner.found.cut = log.limit() == 0 && !log.into_inner().fill_buf()?.is_empty();
        Ok(scanner.finish())
    }

    /// Lines that are there already.
    pub fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Scan {
        let mut scanner = Self::default();
        lines.into_iter().for_each(|line| scanner.line(line.as_bytes()));
        scanner.finish()
    }

    fn line(&mut self, line: &[u8]) {
        self.found.lines += 1;
        let mut told: Vec<&'static str> = Vec::new();
        let signs = &*SIGNS;
        for sign in signs.any.matches(line).iter().filter_map(|index| signs.each.get(index)) {
            let id = sign.symptom.id;
            if sign.is_context {
                if !self.contexts.contains(&id) {
                    self.contexts.push(id);
                }
            } else if !told.contains(&id) {
                // Two signs of one failure on one line are one sighting.
                told.push(id);
                self.sighted(&sign.expression, sign.symptom, line);
            }
        }
    }

    fn sighted(&mut self, sign: &Regex, symptom: &'static Symptom, line: &[u8]) {
        let captures = sign.captures(line);
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let named = |name: &str| text(captures.as_ref()?.name(name)?.as_bytes());
        let anywhere = || text(SIGNS.bdf.as_ref()?.find(line)?.as_bytes());
        let bdf: Option<Bdf> = named("bdf").or_else(anywhere).and_then(|text| text.parse().ok());
        let group: Option<u32> = named("group").and_then(|text| text.parse().ok());

        let mut same = self
            .found
            .sightings
            .iter_mut()
            .filter(|seen| seen.symptom.id == symptom.id);
        let known = same.find(|seen| (seen.bdf, seen.group) == (bdf, group));
        if let Some(seen) = known {
            seen.count += 1;
            return;
        }
        let mut others = self
            .found
            .sightings
            .iter_mut()
            .filter(|seen| seen.symptom.id == symptom.id);
        if let Some(last) = others.nth(MOST_SUBJECTS - 1) {
            last.count += 1;
            return;
        }
        self.found.sightings.push(Sighting {
            symptom,
            bdf,
            group,
            first: self.found.lines,
            line: String::from_utf8_lossy(line).trim_end().to_owned(),
            count: 1,
        });
    }

    fn finish(mut self) -> Scan {
        let contexts = self.contexts;
        self.found
            .sightings
            .retain(|seen| seen.symptom.context.is_none() || contexts.contains(&seen.symptom.id));
        self.found
    }
}

/// The next line without its end, cut at [`LONGEST_LINE`]; `None` after the last.
fn next_line(log: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut read = false;
    loop {
        let buffer = match log.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if buffer.is_empty() {
            return Ok(read.then_some(line));
        }
        read = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = LONGEST_LINE.saturating_sub(line.len());
        line.extend(part.iter().take(room));
        let used = end.map_or(buffer.len(), |end| end + 1);
        log.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
