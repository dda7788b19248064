//! Reading a configuration file.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError};

impl Config {
    /// Reads a TOML file. Relative paths in it start from the directory it is in.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or says something that means nothing.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config = parse(path, &text)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for path in config.paths_mut() {
            *path = directory.join(&*path);
        }
        config.fallback_name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(config)
    }
}

fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
        match UnknownField::parse(error.message()) {
            Some(unknown) => unknown.into_error(path.to_owned(), text, line),
            None => ConfigError::Parse {
                path: path.to_owned(),
                line: line + 1,
                text: text.lines().nth(line).unwrap_or_default().trim().to_owned(),
                message: error.message().trim_end().replace('\n', ", "),
            },
        }
    })
}

/// What serde says of a key it does not know: ``unknown field `x`, expected one of `a`, `b` ``.
struct UnknownField<'a> {
    key: &'a str,
    known: Vec<&'a str>,
}

impl<'a> UnknownField<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
        Some(Self {
            key: quoted.next()?,
            known: quoted.collect(),
        })
    }

    fn into_error(self, path: PathBuf, text: &str, line: usize) -> ConfigError {
        let near = self.known.iter().map(|known| (distance(self.key, known), *known)).min();
        let remedy = match near {
            Some((edits, known)) if edits <= self.key.chars().count().div_ceil(3) => format!("did you mean `{known}`?"),
            _ => format!("there are: {}", self.known.join(", ")),
        };
        let section = text
            .lines()
            .take(line + 1)
            .filter_map(section_name)
            .last()
            .unwrap_or_default();
        // The header of an unknown table is the key itself, and stands at the top.
        let section = if section == self.key { "" } else { section };
        ConfigError::UnknownKey {
            path,
            line: line + 1,
            key: self.key.to_owned(),
            section: section.to_owned(),
            remedy,
        }
    }
}

/// The name in a `[table]` or `[[table]]` header.
fn section_name(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?.trim_start_matches('[');
    inner.split(']').next().map(str::trim)
}

/// How many characters must be changed, left out or put in to make one word of the other (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(Path::new("vm.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_their_line() {
        assert_eq!(
            refusal("cpus = 2\nmemroy = \"8G\"\n"),
            "vm.toml, line 2: there is no setting `memroy`; did you mean `memory`?"
        );
        assert_eq!(
            refusal("[[disk]]\npath = \"a\"\n\n[[disk]]\npath = \"b\"\nread-only = true\n"),
            "vm.toml, line 6: there is no setting `read-only` in [disk]; did you mean `readonly`?"
        );
        assert_eq!(
            refusal("[[disk]]\npath = \"a\"\ncache = \"none\"\n"),
            "vm.toml, line 3: there is no setting `cache` in [disk]; there are: path, readonly, bootindex"
        );
        let table = refusal("cpus = 1\n[devices]\naddress = \"01:00.0\"\n");
        assert_eq!(
            table,
            "vm.toml, line 2: there is no setting `devices`; did you mean `device`?"
        );
        assert!(refusal("[cpu]\nphysbits = 39\n").ends_with("in [cpu]; did you mean `phys-bits`?"));
    }

    #[test]
    fn wrong_values_are_named_with_their_line() {
        let message = refusal("cpus = 2\nmemory = \"8X\"\n");
        assert!(
            message.starts_with("vm.toml, line 2: `8X` is not a value for `memory`"),
            "{message}"
        );
        let message = refusal("memory = 8\n");
        assert!(
            message.contains("line 1") && message.contains("in `memory = 8`"),
            "{message}"
        );
        let message = refusal("[[device]]\naddress = \"gpu\"\n");
        assert!(
            message.contains("line 2") && message.contains("0000:01:00.0"),
            "{message}"
        );
        assert!(refusal("cpus = \n").contains("vm.toml, line 1"), "syntax");
        assert!(refusal("cpus = 1\ncpus = 2\n").contains("line 2"), "duplicate key");
        assert!(refusal("[[disk]]\nreadonly = true\n").contains("path"), "missing path");
        assert!(refusal("rtc = \"local\"\n").contains("localtime"));
    }

    #[test]
    fn paths_start_from_the_file() {
        let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let file = directory.as_path().join("gaming.toml");
        fs::write(
            &file,
            "vars = \"V.fd\"\nserial = \"file=s.log\"\n[[disk]]\npath = \"/abs.img\"\n",
        )
        .unwrap();
        let config = Config::from_file(&file).unwrap();
        assert_eq!(config.vars, Some(directory.as_path().join("V.fd")));
        assert_eq!(
            config.serial,
            Some(super::super::SerialTarget::File(directory.as_path().join("s.log")))
        );
        assert_eq!(config.disks[0].path, Path::new("/abs.img"));
        assert_eq!(config.fallback_name.as_deref(), Some("gaming"));
        assert!(matches!(
            Config::from_file(Path::new("/nowhere.toml")),
            Err(ConfigError::Read { .. })
        ));
    }

    #[test]
    fn distances() {
        assert_eq!(
            (
                distance("", "ab"),
                distance("kitten", "sitting"),
                distance("vars", "vars")
            ),
            (2, 3, 0)
        );
    }
}
