//! Words of a kernel command line where they stand in a file, so that one can be put in or taken out and every other
//! byte of the file stays as it is.

use std::ops::Range;

/// One byte of what a value says, and the bytes of the file that say it: two for `\"` in a shell's double quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub byte: u8,
    pub raw: Range<usize>,
}

/// One argument, and the bytes of the file it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub raw: Range<usize>,
}

/// The bytes of a stretch of the file, each of which stands for itself.
pub(super) fn plain(bytes: &[u8], stretch: Range<usize>) -> Vec<Letter> {
    let (start, end) = (stretch.start, stretch.end);
    let inside = bytes.get(stretch).unwrap_or_default();
    (start..end)
        .zip(inside)
        .map(|(at, byte)| Letter {
            byte: *byte,
            raw: at..at + 1,
        })
        .collect()
}

/// The words of a line as the kernel tells them apart: white space between them, except within double quotes
/// (`next_arg()` in lib/cmdline.c).
pub(super) fn words(letters: &[Letter]) -> Vec<Word> {
    let mut all = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    let mut raw: Option<Range<usize>> = None;
    let mut quoted = false;
    for letter in letters {
        if letter.byte.is_ascii_whitespace() && !quoted {
            finish(&mut all, &mut text, &mut raw);
            continue;
        }
        quoted ^= letter.byte == b'"';
        text.push(letter.byte);
        let start = raw.as_ref().map_or(letter.raw.start, |range| range.start);
        raw = Some(start..letter.raw.end);
    }
    finish(&mut all, &mut text, &mut raw);
    all
}

fn finish(all: &mut Vec<Word>, text: &mut Vec<u8>, raw: &mut Option<Range<usize>>) {
    if let Some(raw) = raw.take() {
        all.push(Word {
            text: String::from_utf8_lossy(text).into_owned(),
            raw,
        });
    }
    text.clear();
}

/// The arguments of a command line as text, such as `/proc/cmdline`.
pub(super) fn split(line: &str) -> Vec<String> {
    words(&plain(line.as_bytes(), 0..line.len()))
        .into_iter()
        .map(|word| word.text)
        .collect()
}

/// The bytes without a word and without one of the spaces beside it, the one that was put before it when it came.
pub(super) fn without(bytes: &[u8], word: &Range<usize>) -> Vec<u8> {
    let blank = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(|b| matches!(b, b' ' | b'\t'))
    };
    let (mut start, mut end) = (word.start, word.end);
    if blank(start.checked_sub(1)) {
        start -= 1;
    } else if blank(Some(end)) {
        end += 1;
    }
    let mut rest = bytes.get(..start).unwrap_or_default().to_vec();
    rest.extend_from_slice(bytes.get(end..).unwrap_or_default());
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_as_the_kernel_does() {
        for (line, expected) in [
            ("", &[][..]),
            ("  ro\tquiet ", &["ro", "quiet"]),
            ("a=\"b c\" d", &["a=\"b c\"", "d"]),
            (
                "dyndbg=\"file x.c +p; module y\" ro",
                &["dyndbg=\"file x.c +p; module y\"", "ro"],
            ),
            ("open=\"never closed", &["open=\"never closed"]),
        ] {
            assert_eq!(split(line), expected, "{line}");
        }
    }

    #[test]
    fn a_word_goes_with_the_space_before_it() {
        for (line, word, expected) in [
            ("ro quiet", 1, "ro"),
            ("ro quiet", 0, "quiet"),
            ("ro  quiet x", 1, "ro  x"),
            ("ro", 0, ""),
        ] {
            let all = words(&plain(line.as_bytes(), 0..line.len()));
            assert_eq!(without(line.as_bytes(), &all[word].raw), expected.as_bytes(), "{line}");
        }
        assert_eq!(without(b"ro  quiet", &(4..9)), b"ro ");
    }
}
