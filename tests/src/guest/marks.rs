/// One `@@ key=value` line of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it is about, such as `driver 0000:01:00.0`.
    pub key: String,
    /// What the guest found; empty for a bare key.
    pub value: String,
}

/// The marks in a serial log, in order.
#[derive(Debug, Clone, Default)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// Reads a serial log. A mark may follow other output on its line (a kernel message without its line end), and the
    /// last line counts only once it is complete.
    #[must_use]
    pub fn parse(log: &[u8]) -> Self {
        let text = String::from_utf8_lossy(log);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let marks = complete.lines().filter_map(|line| {
            let (_, mark) = line.split_once("@@ ")?;
            let mark = mark.trim_end_matches('\r');
            let (key, value) = mark.split_once('=').unwrap_or((mark, ""));
            Some(Mark {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            })
        });
        Self(marks.collect())
    }

    /// The value of the last mark of that key: after a reboot it is the newest boot's.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|mark| mark.key == key)
            .map(|mark| mark.value.as_str())
    }

    /// All values of that key, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |mark| mark.key == key)
            .map(|mark| mark.value.as_str())
    }

    /// The marks whose key is `word` and something more: `("0000:01:00.0", "bochs-drm")` for `driver`.
    pub fn about<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter_map(move |mark| Some((mark.key.strip_prefix(word)?.strip_prefix(' ')?, mark.value.as_str())))
    }

    /// All marks.
    pub fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.0.iter()
    }
}

/// The fields of a value of the form `kind=msi before=3 after=9`.
pub fn field<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value
        .split_whitespace()
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::{Marks, field};

    const LOG: &[u8] = b"EFI stub: loading\r\n@@ init=3.1\r\n[ 1.0] x@@ driver 0000:01:00.0=bochs-drm\r\n\
        @@ tone card0=kind=msi before=3 after=90\r\n@@ init=4.2\r\n@@ pow";

    #[test]
    fn marks_are_found_and_the_last_incomplete_one_is_not() {
        let marks = Marks::parse(LOG);
        assert_eq!(marks.iter().count(), 4);
        assert_eq!(marks.get("init"), Some("4.2"));
        assert_eq!(marks.all("init").collect::<Vec<_>>(), ["3.1", "4.2"]);
        assert_eq!(
            marks.about("driver").collect::<Vec<_>>(),
            [("0000:01:00.0", "bochs-drm")]
        );
        assert_eq!(
            marks.get("tone card0").and_then(|value| field(value, "after")),
            Some("90")
        );
        assert_eq!(marks.get("pow"), None);
    }
}
