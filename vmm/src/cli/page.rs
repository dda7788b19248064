//! Text for people on standard output: as wide as the terminal, in colour where there is one, and free of anything that
//! a terminal would obey. What is shown may come from a stranger's capture.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What is assumed of what is no terminal, and the least that is written for.
const NARROW: usize = 80;

/// Lines longer than this are hard to read across.
const WIDE: usize = 160;

/// Columns in which a name cut in the middle still has two telling ends.
const ENDS_TELL: usize = 28;

/// What a piece of text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Worth a thought.
    Warning,
    /// As it should not be.
    Bad,
    /// What the eye should find first.
    Strong,
    /// What it may skip.
    Faint,
}

/// Text under construction.
#[derive(Debug)]
pub(super) struct Page {
    /// Columns of a line.
    pub width: usize,
    colour: bool,
    text: String,
}

impl Page {
    /// For this process's standard output. Colour follows `NO_COLOR`, `CLICOLOR` and what the terminal can do.
    pub(super) fn for_stdout() -> Self {
        let width = match (io::stdout().is_terminal(), terminal_size::terminal_size()) {
            (true, Some((terminal_size::Width(width), _))) => usize::from(width).clamp(NARROW, WIDE),
            _ => NARROW,
        };
        let colour = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        Self {
            width,
            colour,
            text: String::new(),
        }
    }

    /// Of 80 columns, without colour.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self {
            width: NARROW,
            colour: false,
            text: String::new(),
        }
    }

    /// Adds a line as it is.
    pub(super) fn line(&mut self, line: &str) {
        self.text += line.trim_end();
        self.text.push('\n');
    }

    /// Adds a text in lines of the page's width, the first below `first` and all others below `rest`.
    pub(super) fn wrapped(&mut self, first: &str, rest: &str, text: &str) {
        let options = textwrap::Options::new(self.width)
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .initial_indent(first)
            .subsequent_indent(rest);
        for line in textwrap::wrap(&clean(text), options) {
            self.line(&line);
        }
    }

    /// The text in the colour of its tone; plain where there is no colour.
    pub(super) fn toned(&self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Warning => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    /// All of it so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Writes it to standard output.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(super) fn print(&self) -> io::Result<()> {
        io::stdout().write_all(self.text().as_bytes())
    }
}

/// The text with what a terminal would obey or hide, and line ends, replaced by a mark.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        text.chars()
            .map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c })
            .collect()
    } else {
        text.into()
    }
}

/// Control characters, and those that hide or turn around what stands beside them.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text, cleaned, in exactly so many columns: filled up with spaces, or cut with a mark.
pub(super) fn fit(text: &str, width: usize) -> String {
    let text = clean(text);
    let wide = text.width();
    if wide <= width {
        return format!("{text}{}", " ".repeat(width - wide));
    }
    let mut cut = String::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars() {
        match left.checked_sub(c.width().unwrap_or(0)) {
            Some(rest) => left = rest,
            None => break,
        }
        cut.push(c);
    }
    let cut = cut.trim_end();
    let mark = if width == 0 { "" } else { "…" };
    let filled = width.saturating_sub(cut.width() + mark.width());
    format!("{cut}{mark}{}", " ".repeat(filled))
}

/// As [`fit`], but cut in the middle: of a long name the ends tell most.
pub(super) fn fit_middle(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.width() <= width || width < ENDS_TELL {
        return fit(&text, width);
    }
    let front = fit(&text, width * 3 / 5 + 1);
    let front = front.trim_end().trim_end_matches('…').trim_end();
    let mut left = width.saturating_sub(front.width() + 1);
    let mut back: Vec<char> = Vec::new();
    for c in text.chars().rev() {
        match left.checked_sub(c.width().unwrap_or(0)) {
            Some(rest) => left = rest,
            None => break,
        }
        back.push(c);
    }
    let back: String = back.iter().rev().collect();
    fit(&format!("{front}…{}", back.trim_start()), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_given_orders() {
        assert_eq!(clean("GTX 960"), "GTX 960");
        assert_eq!(
            clean("a\x1b[2Jb\u{9b}c\u{202e}d\ne"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e"
        );
    }

    #[test]
    fn columns_keep_their_width() {
        for (text, width, expected) in [
            ("abc", 5, "abc  "),
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("ab cd", 4, "ab… "),
            ("日本語", 4, "日… "),
            ("日本語", 6, "日本語"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(fit(text, width), expected, "{text}");
        }
    }

    #[test]
    fn long_names_keep_both_ends() {
        for (text, width, expected) in [
            ("Intel Xeon E3-1200 v2 Root Port", 31, "Intel Xeon E3-1200 v2 Root Port"),
            ("Intel Xeon E3-1200 v2 Root Port", 28, "Intel Xeon E3-12…2 Root Port"),
            ("日本語日本語日本語日本語日本語", 29, "日本語日本語日本…日本語日本語"),
            ("abcdefghijk", 7, "abcdef…"),
        ] {
            let cut = fit_middle(text, width);
            assert_eq!(cut.trim_end(), expected);
            assert_eq!(cut.width(), width.max(cut.width()), "{text}");
        }
    }

    #[test]
    fn long_texts_are_wrapped() {
        let mut page = Page::plain();
        page.wrapped("- ", "  ", &"word ".repeat(30));
        assert_eq!(page.text().lines().count(), 2);
        assert!(page.text().lines().all(|line| line.width() <= 80), "{}", page.text());
        assert_eq!(page.toned(Tone::Bad, "x"), "x");
    }
}
