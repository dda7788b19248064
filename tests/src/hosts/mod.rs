//! Hosts that nobody here has: captures made from descriptions. `resources/hosts/NAME.toml` says what a host looks
//! like, where that is known from and what was filled in; `NAME.tar.zst` beside it is the capture made from it, which
//! every command reads with `--host`. The same description gives the same bytes.

mod function;
pub mod hostile;
mod network;
mod rest;
pub mod source;
mod storage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vfio::host::capture::{ABOUT, About, Memory, Refusal, write};

use source::Host;

/// Why a capture cannot be made from a description.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The description is not of the form of [`source`].
    #[error("the description cannot be read")]
    Source(#[from] toml::de::Error),
    /// Something in it does not fit the rest.
    #[error("{0}")]
    Wrong(String),
    /// Two things of it stand at one path.
    #[error("{path}: {refusal}")]
    Path {
        /// Where.
        path: String,
        /// Why not.
        refusal: Refusal,
    },
    /// The archive cannot be packed.
    #[error(transparent)]
    Write(#[from] vfio::host::capture::WriteError),
    /// What the capture says of itself cannot be written.
    #[error(transparent)]
    About(#[from] toml::ser::Error),
}

/// Where the descriptions are, and the captures made from them.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/hosts")
}

/// The names of all hosts, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn names() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".toml").map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// The capture as it stands in the folder.
pub fn archive(name: &str) -> PathBuf {
    folder().join(format!("{name}.tar.zst"))
}

/// The bytes of a host's capture, made from its description.
///
/// # Errors
/// See [`HostError`].
pub fn build(name: &str) -> Result<Vec<u8>, HostError> {
    let path = folder().join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).map_err(|source| HostError::File { path, source })?;
    let host = source::parse(&text)?;
    let mut tree = Tree::default();
    function::put(&host, &mut tree)?;
    storage::put(&host, &mut tree)?;
    network::put(&host, &mut tree)?;
    rest::put(&host, &mut tree)?;
    let about = About {
        origin: Some(origin(&host)),
        ..About::new()
    };
    tree.file(ABOUT.trim_start_matches('/'), about.to_toml()?)?;
    let mut packed = Vec::new();
    write(&tree.files, &mut packed)?;
    Ok(packed)
}

/// Makes a host's capture anew and puts it in the folder; `false` if that changed nothing.
///
/// # Errors
/// See [`HostError`].
pub fn renew(name: &str) -> Result<bool, HostError> {
    let made = build(name)?;
    let path = archive(name);
    if fs::read(&path).is_ok_and(|old| old == made) {
        return Ok(false);
    }
    match fs::write(&path, made) {
        Ok(()) => Ok(true),
        Err(source) => Err(HostError::File { path, source }),
    }
}

fn origin(host: &Host) -> String {
    format!("{}; described from {}", host.title, host.sources.join(", "))
}

/// Files to be, with the path in the errors.
#[derive(Debug, Default)]
struct Tree {
    files: Memory,
}

impl Tree {
    fn file(&mut self, path: impl AsRef<str>, content: impl Into<Vec<u8>>) -> Result<(), HostError> {
        let path = path.as_ref();
        self.files.file(path, content).map_err(|refusal| wrong(path, refusal))
    }

    fn link(&mut self, path: impl AsRef<str>, target: impl AsRef<str>) -> Result<(), HostError> {
        let path = path.as_ref();
        self.files
            .link(path, relative(path, target.as_ref()))
            .map_err(|refusal| wrong(path, refusal))
    }

    fn directory(&mut self, path: impl AsRef<str>) -> Result<(), HostError> {
        let path = path.as_ref();
        self.files.directory(path).map_err(|refusal| wrong(path, refusal))
    }
}

fn wrong(path: &str, refusal: Refusal) -> HostError {
    HostError::Path {
        path: path.to_owned(),
        refusal,
    }
}

/// The target of a link as sysfs writes it: relative to the directory that the link is in.
fn relative(link: &str, target: &str) -> String {
    let above: Vec<&str> = link.split('/').collect();
    let above = &above[..above.len() - 1];
    let target: Vec<&str> = target.split('/').collect();
    let common = above.iter().zip(&target).take_while(|(a, b)| a == b).count();
    let mut parts = vec![".."; above.len() - common];
    parts.extend(&target[common..]);
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_written_as_sysfs_writes_them() {
        for (link, target, expected) in [
            (
                "sys/bus/pci/devices/x",
                "sys/devices/pci0000:00/x",
                "../../../devices/pci0000:00/x",
            ),
            ("sys/a/b", "sys/a/c", "c"),
            ("sys/a/b", "proc/c", "../../proc/c"),
        ] {
            assert_eq!(relative(link, target), expected);
        }
    }

    #[test]
    fn each_capture_is_what_its_description_makes() {
        let names = names().unwrap();
        assert!(!names.is_empty());
        for name in names {
            let made = build(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
            let kept = fs::read(archive(&name)).unwrap_or_default();
            assert!(made == kept, "{name}: run `cargo lab hosts` to make its capture anew");
        }
    }
}
