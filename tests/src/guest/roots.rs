use super::{Error, Result};
use crate::lab::Root;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Debian packages unpacked into private folders, searched as if they were one file system.
#[derive(Debug, Clone)]
pub struct Roots(Vec<PathBuf>);

impl Roots {
    /// The roots to search, first match wins.
    pub fn new(roots: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self(roots.into_iter().map(Into::into).collect())
    }

    /// The first of `names` (paths relative to a root) that exists in any root.
    ///
    /// # Errors
    /// [`Error::Missing`], naming the alternatives and the roots.
    pub fn find(&self, names: &[&str]) -> Result<PathBuf> {
        let places = names
            .iter()
            .flat_map(|name| self.0.iter().map(move |root| root.join(name.trim_start_matches('/'))));
        places
            .into_iter()
            .find(|place| place.exists())
            .ok_or_else(|| self.missing(names.join(" or ")))
    }

    /// Reads the first of `names` that exists.
    ///
    /// # Errors
    /// As [`Roots::find`], or the file cannot be read.
    pub fn read(&self, names: &[&str]) -> Result<Vec<u8>> {
        let path = self.find(names)?;
        fs::read(&path).map_err(Error::io(path))
    }

    /// The entries of `folder` whose name starts with `prefix`, over all roots, sorted by path.
    pub(super) fn list(&self, folder: &str, prefix: &str) -> Vec<PathBuf> {
        let folders = self.0.iter().filter_map(|root| fs::read_dir(root.join(folder)).ok());
        let mut found: Vec<PathBuf> = folders
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
            .collect();
        found.sort();
        found
    }

    pub(super) fn missing(&self, name: String) -> Error {
        let roots: Vec<_> = self.0.iter().map(|root| root.display().to_string()).collect();
        Error::Missing {
            name,
            roots: roots.join(", "),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }
}

impl From<&Root> for Roots {
    fn from(root: &Root) -> Self {
        Self::new([root.path()])
    }
}
