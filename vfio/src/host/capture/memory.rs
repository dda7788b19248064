//! A tree of files in memory. What is put in may be hostile: each name, path and count has a limit.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::host::tree::{Files, LARGEST_FILE, LONGEST_LIST, Node};

/// The longest path, and the longest target of a link (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// The longest name in a path (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// Directories in each other; a device far down a bus of switches stands some 30 deep.
const DEEPEST: usize = 64;

/// Files, directories and links in all. A host of 500 PCI functions has some 20,000 that are looked at.
const MOST_NODES: usize = 100_000;

/// Why something was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is absolute or has `..` in it.
    #[error("its path leads out of the archive")]
    Outside,
    /// The path or one of its names is too long, or too deep.
    #[error("its path is too long")]
    TooLong,
    /// The path is not UTF-8, or holds a NUL.
    #[error("its path is not text")]
    NotText,
    /// Something else stands there.
    #[error("something stands at its path already")]
    Duplicate,
    /// Part of the path is a file or a link.
    #[error("its path leads through a file or a link")]
    NotADirectory,
    /// The file is larger than any that is read.
    #[error("it is larger than {} MiB", LARGEST_FILE >> 20)]
    TooLarge,
    /// It is neither a file, a directory nor a symbolic link.
    #[error("it is neither a file, a directory nor a symbolic link")]
    Kind,
    /// There are too many files.
    #[error("there are more than {MOST_NODES} files and directories")]
    TooMany,
}

/// Files in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    root: BTreeMap<String, Entry>,
    nodes: usize,
}

#[derive(Debug, Clone)]
enum Entry {
    File(Vec<u8>),
    Directory(BTreeMap<String, Entry>),
    Link(PathBuf),
}

impl Memory {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts in a file, and the directories above it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn file(&mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Result<(), Refusal> {
        let content = content.into();
        if u64::try_from(content.len()).is_ok_and(|length| length > LARGEST_FILE) {
            return Err(Refusal::TooLarge);
        }
        self.put(path.as_ref(), Entry::File(content))
    }

    /// Puts in a link, and the directories above it. Where it points is not looked at.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) -> Result<(), Refusal> {
        let target = target.into();
        match target.to_str() {
            Some(text) if text.contains('\0') => return Err(Refusal::NotText),
            Some(text) if text.len() > LONGEST_PATH => return Err(Refusal::TooLong),
            Some(_) => {}
            None => return Err(Refusal::NotText),
        }
        self.put(path.as_ref(), Entry::Link(target))
    }

    /// Puts in a directory, unless it is there, and those above it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn directory(&mut self, path: impl AsRef<Path>) -> Result<(), Refusal> {
        self.put(path.as_ref(), Entry::Directory(BTreeMap::new()))
    }

    /// Takes the content of a file out, for another to be put in its place.
    pub fn take(&mut self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let names = names(path.as_ref()).ok()?;
        let (last, above) = names.split_last()?;
        let mut here = &mut self.root;
        for name in above {
            match here.get_mut(*name)? {
                Entry::Directory(next) => here = next,
                Entry::File(_) | Entry::Link(_) => return None,
            }
        }
        if !matches!(here.get(*last)?, Entry::File(_)) {
            return None;
        }
        self.nodes = self.nodes.saturating_sub(1);
        match here.remove(*last)? {
            Entry::File(content) => Some(content),
            Entry::Directory(_) | Entry::Link(_) => None,
        }
    }

    /// Everything in it, directories before what is in them, in the order of the names.
    pub fn each(&self, mut visit: impl FnMut(&Path, Visit<'_>) -> io::Result<()>) -> io::Result<()> {
        walk(&self.root, &mut PathBuf::new(), &mut visit)
    }

    fn put(&mut self, path: &Path, entry: Entry) -> Result<(), Refusal> {
        let names = names(path)?;
        let Some((last, above)) = names.split_last() else {
            // The root itself.
            return match entry {
                Entry::Directory(_) => Ok(()),
                Entry::File(_) | Entry::Link(_) => Err(Refusal::Duplicate),
            };
        };
        let mut here = &mut self.root;
        for name in above {
            if !here.contains_key(*name) {
                grow(&mut self.nodes)?;
            }
            let next = here
                .entry((*name).to_owned())
                .or_insert_with(|| Entry::Directory(BTreeMap::new()));
            match next {
                Entry::Directory(next) => here = next,
                Entry::File(_) | Entry::Link(_) => return Err(Refusal::NotADirectory),
            }
        }
        match (here.get(*last), &entry) {
            (Some(Entry::Directory(_)), Entry::Directory(_)) => Ok(()),
            (Some(_), _) => Err(Refusal::Duplicate),
            (None, _) => {
                grow(&mut self.nodes)?;
                here.insert((*last).to_owned(), entry);
                Ok(())
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<Found<'_>> {
        let names = names(path).map_err(|refusal| io::Error::new(io::ErrorKind::InvalidInput, refusal))?;
        let mut found = Found::Directory(&self.root);
        for name in names {
            let Found::Directory(here) = found else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            found = match here.get(name).ok_or(io::ErrorKind::NotFound)? {
                Entry::File(content) => Found::File(content),
                Entry::Directory(next) => Found::Directory(next),
                Entry::Link(target) => Found::Link(target),
            };
        }
        Ok(found)
    }
}

/// What [`Memory::each`] comes by.
#[derive(Debug, Clone, Copy)]
pub enum Visit<'a> {
    /// A file and its content.
    File(&'a [u8]),
    /// A directory.
    Directory,
    /// A link and where it points.
    Link(&'a Path),
}

enum Found<'a> {
    File(&'a [u8]),
    Directory(&'a BTreeMap<String, Entry>),
    Link(&'a Path),
}

impl Files for Memory {
    fn node(&self, path: &Path) -> io::Result<Node> {
        Ok(match self.find(path)? {
            Found::File(_) => Node::File,
            Found::Directory(_) => Node::Directory,
            Found::Link(target) => Node::Link(target.to_owned()),
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.find(path)? {
            Found::File(content) => Ok(content.to_vec()),
            Found::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
            Found::Link(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match self.find(path)? {
            Found::Directory(here) => Ok(here.keys().take(LONGEST_LIST).cloned().collect()),
            Found::File(_) | Found::Link(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

/// The names in a path, first first. A leading `./` is what `tar -C DIR .` writes.
fn names(path: &Path) -> Result<Vec<&str>, Refusal> {
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(Refusal::TooLong);
    }
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(Refusal::NotText)?),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Refusal::Outside),
        }
    }
    if names.iter().any(|name| name.contains('\0')) {
        return Err(Refusal::NotText);
    }
    if names.len() > DEEPEST || names.iter().any(|name| name.len() > LONGEST_NAME) {
        return Err(Refusal::TooLong);
    }
    Ok(names)
}

fn grow(nodes: &mut usize) -> Result<(), Refusal> {
    if *nodes >= MOST_NODES {
        return Err(Refusal::TooMany);
    }
    *nodes += 1;
    Ok(())
}

fn walk(
    directory: &BTreeMap<String, Entry>,
    path: &mut PathBuf,
    visit: &mut impl FnMut(&Path, Visit<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for (name, entry) in directory {
        path.push(name);
        match entry {
            Entry::File(content) => visit(path, Visit::File(content))?,
            Entry::Link(target) => visit(path, Visit::Link(target))?,
            Entry::Directory(next) => {
                visit(path, Visit::Directory)?;
                walk(next, path, visit)?;
            }
        }
        path.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostTree;
    use std::sync::Arc;

    #[test]
    fn what_is_put_in_is_found() {
        let mut memory = Memory::new();
        memory.file("./sys/devices/pci0000:00/class", "0x030000\n").unwrap();
        memory.link("sys/bus/here", "../devices/pci0000:00").unwrap();
        memory.directory("sys/bus").unwrap();
        memory.directory("sys/empty").unwrap();
        assert_eq!(memory.take("sys/bus/here"), None);

        let tree = HostTree::of(Arc::new(memory));
        assert_eq!(tree.text("/sys/bus/here/class").unwrap(), "0x030000");
        assert_eq!(tree.list("/sys").unwrap(), ["bus", "devices", "empty"]);
        assert!(tree.is_dir("/sys/empty") && !tree.is_live() && tree.root().is_none());
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        let mut memory = Memory::new();
        memory.file("a/file", "").unwrap();
        memory.link("a/link", "file").unwrap();
        let deep = ["d"; DEEPEST + 1].join("/");
        let long = "n".repeat(LONGEST_NAME + 1);
        for (path, refusal) in [
            ("/etc/passwd", Refusal::Outside),
            ("../etc/passwd", Refusal::Outside),
            ("a/../../etc", Refusal::Outside),
            ("a/file", Refusal::Duplicate),
            ("a", Refusal::Duplicate),
            ("a/link", Refusal::Duplicate),
            ("", Refusal::Duplicate),
            ("a/file/b", Refusal::NotADirectory),
            ("a/link/b", Refusal::NotADirectory),
            ("a/\0", Refusal::NotText),
            (&deep, Refusal::TooLong),
            (&long, Refusal::TooLong),
        ] {
            assert_eq!(memory.file(path, "x"), Err(refusal), "{path}");
        }
        assert_eq!(memory.link("b", "\0"), Err(Refusal::NotText));
        assert_eq!(memory.link("b", "x".repeat(LONGEST_PATH + 1)), Err(Refusal::TooLong));
        assert_eq!(
            memory.file("b", vec![0; usize::try_from(LARGEST_FILE).unwrap() + 1]),
            Err(Refusal::TooLarge)
        );
    }

    #[test]
    fn there_is_an_end_to_how_much_goes_in() {
        let mut memory = Memory::new();
        for number in 0..MOST_NODES {
            memory.directory(number.to_string()).unwrap();
        }
        assert_eq!(memory.file("one-more", ""), Err(Refusal::TooMany));
        memory.directory("7").unwrap();
    }
}
