//! Assignments in a file that a shell sources, such as `/etc/default/grub`: found without running anything, with the
//! place of each byte of the value.

use std::ops::Range;

use super::words::Letter;

/// A quote that is opened and never closed: the shell could not read the file either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: the quote that is opened here is never closed, so the shell cannot read the file either; close it"
)]
pub struct Unbalanced {
    /// The line with the opening quote.
    pub line: usize,
}

/// One `NAME=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub name: String,
    /// Whether it is `NAME+=value`.
    pub extends: bool,
    /// The bytes of the value, quotes included.
    pub raw: Range<usize>,
    pub letters: Vec<Letter>,
    /// Where the quote is that closes the last part of the value; none where that part is not quoted.
    pub closing: Option<usize>,
}

/// The assignments that start a line, in the order of the file.
pub(super) fn assignments(bytes: &[u8]) -> Result<Vec<Assignment>, Unbalanced> {
    let mut scanner = Scanner { bytes, at: 0 };
    let mut found = Vec::new();
    while scanner.at < bytes.len() {
        scanner.skip(|b| matches!(b, b' ' | b'\t'));
        scanner.skip_word(b"export");
        if let Some((name, extends)) = scanner.name() {
            found.push(scanner.value(name, extends)?);
        }
        scanner.rest_of_line()?;
    }
    Ok(found)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&what) {
            self.at += 1;
        }
    }

    fn skip_word(&mut self, word: &[u8]) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let blank = |b: &u8| matches!(b, b' ' | b'\t');
        if rest.strip_prefix(word).and_then(<[u8]>::first).is_some_and(blank) {
            self.at += word.len();
            self.skip(|b| matches!(b, b' ' | b'\t'));
        }
    }

    /// A name with `=` or `+=` behind it; otherwise nothing is consumed.
    fn name(&mut self) -> Option<(String, bool)> {
        let start = self.at;
        self.skip(|b| b.is_ascii_alphanumeric() || b == b'_');
        let name = String::from_utf8_lossy(self.bytes.get(start..self.at)?).into_owned();
        let rest = self.bytes.get(self.at..)?;
        let sign = [&b"+="[..], b"="].into_iter().find(|sign| rest.starts_with(sign));
        match sign {
            Some(sign) if !name.is_empty() => {
                self.at += sign.len();
                Some((name, sign.len() == 2))
            }
            _ => {
                self.at = start;
                None
            }
        }
    }

    fn value(&mut self, name: String, extends: bool) -> Result<Assignment, Unbalanced> {
        let start = self.at;
        let (mut letters, mut closing) = (Vec::new(), None);
        while let Some(byte) = self.peek() {
            match byte {
                b'\'' | b'"' => {
                    self.quoted(byte, &mut letters)?;
                    closing = Some(self.at - 1);
                }
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' => break,
                // A carriage return before the end of the line ends the line, wherever the file was edited.
                b'\r' if self.bytes.get(self.at + 1).is_none_or(|next| *next == b'\n') => break,
                b'\\' => {
                    self.escaped(&mut letters, true);
                    closing = None;
                }
                _ => {
                    self.one(&mut letters);
                    closing = None;
                }
            }
        }
        Ok(Assignment {
            name,
            extends,
            raw: start..self.at,
            letters,
            closing,
        })
    }

    fn one(&mut self, letters: &mut Vec<Letter>) {
        if let Some(byte) = self.peek() {
            letters.push(Letter {
                byte,
                raw: self.at..self.at + 1,
            });
        }
        self.at += 1;
    }

    /// A backslash and what it escapes. Within double quotes it is itself before most bytes.
    fn escaped(&mut self, letters: &mut Vec<Letter>, always: bool) {
        match self.bytes.get(self.at + 1) {
            Some(b'\n') => self.at += 2,
            Some(byte) if always || b"$`\"\\".contains(byte) => {
                letters.push(Letter {
                    byte: *byte,
                    raw: self.at..self.at + 2,
                });
                self.at += 2;
            }
            _ => self.one(letters),
        }
    }

    fn quoted(&mut self, quote: u8, letters: &mut Vec<Letter>) -> Result<(), Unbalanced> {
        let opened = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => {
                    let before = self.bytes.get(..opened).unwrap_or_default();
                    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
                    return Err(Unbalanced { line });
                }
                Some(byte) if byte == quote => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') if quote == b'"' => self.escaped(letters, false),
                Some(_) => self.one(letters),
            }
        }
    }

    /// The end of the line: of a command with quotes that go over several lines, the end of the last.
    fn rest_of_line(&mut self) -> Result<(), Unbalanced> {
        let mut ignored = Vec::new();
        let mut blank_before = true;
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => {
                    self.at += 1;
                    break;
                }
                b'#' if blank_before => self.skip(|b| b != b'\n'),
                b'\'' | b'"' => self.quoted(byte, &mut ignored)?,
                b'\\' => self.escaped(&mut ignored, true),
                _ => self.at += 1,
            }
            blank_before = byte.is_ascii_whitespace();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(assignment: &Assignment) -> String {
        String::from_utf8(assignment.letters.iter().map(|letter| letter.byte).collect()).unwrap()
    }

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        for (text, name, value) in [
            ("A=\"ro quiet\"\n", "A", "ro quiet"),
            ("A='ro \"x y\"' # why\n", "A", "ro \"x y\""),
            ("A=ro", "A", "ro"),
            ("A=\n", "A", ""),
            ("  export A=\"a\"'b'c\n", "A", "abc"),
            ("A=\"one \\\n two\"\n", "A", "one  two"),
            ("A=\"d=\\\"x y\\\" \\$B\"\r\n", "A", "d=\"x y\" $B"),
            ("# it's a comment\nA=b;C=d\n", "A", "b"),
            ("if [ -n \"$X\" ]; then\n\tA=\"in\"\nfi\n", "A", "in"),
            ("A+=\" more\"\n", "A", " more"),
            ("X=\"$(sed 's, release .*$,,g' /etc/system-release)\"\nA=b\n", "A", "b"),
        ] {
            let all = assignments(text.as_bytes()).unwrap();
            let last = all.iter().rfind(|a| a.name == name).unwrap();
            assert_eq!(said(last), value, "{text}");
        }
    }

    #[test]
    fn text_within_quotes_is_no_assignment() {
        let all = assignments(b"NOTE=\"first\nA=not one\n\"\necho 'A=\nA=x' \nB=y\n").unwrap();
        let names: Vec<&str> = all.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["NOTE", "B"]);
    }

    #[test]
    fn an_open_quote_is_named_by_its_line() {
        for (text, line) in [("A=\"x\n", 1), ("B=1\nA='x\n\n", 2), ("echo \"\n", 1)] {
            assert_eq!(assignments(text.as_bytes()).unwrap_err(), Unbalanced { line }, "{text}");
        }
    }
}
