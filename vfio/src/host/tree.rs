//! The files of a host: the running one's, those of a directory that looks like a host, or those of a capture. All that
//! is learnt of a host is read through a [`HostTree`], so that each command works on a capture as it does on the machine.
//!
//! A tree is read only. Paths are the host's own (`/sys/bus/pci/devices`), with or without the leading slash. In a
//! directory or a capture links are followed inside the tree alone, so that a hostile one cannot lead out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// More links than any path of a real host goes through; Linux gives up here too (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// The largest file that is read; the longest of a real host are `modules.alias` and `pci.ids`, a few MiB.
pub const LARGEST_FILE: u64 = 16 << 20;

/// The most names that are read of one directory.
pub const LONGEST_LIST: usize = 65_536;

/// What stands at a path, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Something to read.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Link(PathBuf),
}

/// Files by path, links not followed: what a [`HostTree`] stands on. Paths are relative and hold neither `.` nor `..`.
pub trait Files: std::fmt::Debug + Send + Sync {
    /// What stands at the path itself.
    ///
    /// # Errors
    /// Nothing stands there, or the system refuses.
    fn node(&self, path: &Path) -> io::Result<Node>;

    /// At most [`LARGEST_FILE`] bytes of a file.
    ///
    /// # Errors
    /// It is no file, too large, or unreadable.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// An attribute of `/sys`: as [`Self::read`], but `None` of a link, which is cheaper than to ask first.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn attribute(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match self.node(path)? {
            Node::Link(_) => Ok(None),
            Node::File | Node::Directory => self.read(path).map(Some),
        }
    }

    /// Where a link points.
    ///
    /// # Errors
    /// It is no link.
    fn target(&self, path: &Path) -> io::Result<PathBuf> {
        match self.node(path)? {
            Node::Link(target) => Ok(target),
            Node::File | Node::Directory => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// The names in a directory, at most [`LONGEST_LIST`], in any order.
    ///
    /// # Errors
    /// It is no directory, or unreadable.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// See the module's own words.
#[derive(Debug, Clone)]
pub struct HostTree {
    files: Arc<dyn Files>,
    root: Option<PathBuf>,
    live: bool,
}

impl HostTree {
    /// The running host.
    pub fn live() -> Self {
        Self {
            live: true,
            ..Self::at("/")
        }
    }

    /// A directory that holds `sys`, `proc` and the rest.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            files: Arc::new(Directory { root: root.clone() }),
            root: Some(root),
            live: false,
        }
    }

    /// Files that are kept elsewhere than in a directory.
    pub fn of(files: Arc<dyn Files>) -> Self {
        Self {
            files,
            root: None,
            live: false,
        }
    }

    /// Whether it is the running host, where more can be asked than files tell (ioctls, processes, modprobe).
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The directory it stands in; `None` for a capture.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The content of a file, of at most [`LARGEST_FILE`] bytes.
    ///
    /// # Errors
    /// There is no such file, or it is too large or unreadable.
    pub fn bytes(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        self.files.read(&self.place(path.as_ref())?)
    }

    /// The content of a file as text without white space at its ends; what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Where a link points, as it is written.
    ///
    /// # Errors
    /// There is no link at the path.
    pub fn link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = path.as_ref();
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.place(path.parent().unwrap_or(Path::new("")))?;
        self.files.target(&parent.join(name))
    }

    /// The last name of where a link points: `sys/…/driver` gives the driver.
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.link(path).ok()?.file_name()?.to_str()?.to_owned())
    }

    /// The names in a directory, sorted; what is not UTF-8 is left out.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let mut names = self.files.list(&self.place(path.as_ref())?)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Whether something stands at the path, links followed.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        match self.live {
            true => self.at_root(path.as_ref()).exists(),
            false => self.real(path.as_ref()).is_ok(),
        }
    }

    /// Whether a directory stands at the path, links followed.
    pub fn is_dir(&self, path: impl AsRef<Path>) -> bool {
        match self.live {
            true => self.at_root(path.as_ref()).is_dir(),
            false => self
                .real(path.as_ref())
                .and_then(|path| self.files.node(&path))
                .is_ok_and(|node| node == Node::Directory),
        }
    }

    /// A directory, its links followed once for all that is read in it.
    ///
    /// # Errors
    /// Nothing stands there.
    pub fn folder(&self, path: impl AsRef<Path>) -> io::Result<Folder<'_>> {
        Ok(Folder {
            tree: self,
            path: self.real(path.as_ref())?,
        })
    }

    /// The path without links, relative to the tree: `sys/class/net/eth0` gives `sys/devices/pci0000:00/…/net/eth0`.
    ///
    /// # Errors
    /// Nothing stands there, or the links go in a circle.
    pub fn real(&self, path: &Path) -> io::Result<PathBuf> {
        if self.live {
            let real = self.at_root(path).canonicalize()?;
            return Ok(real.strip_prefix("/").map(Path::to_owned).unwrap_or(real));
        }
        self.followed(PathBuf::new(), parts(path))
    }

    /// The path without links that leads from a real one over the parts ahead, last first.
    fn followed(&self, mut real: PathBuf, mut ahead: Vec<PathBuf>) -> io::Result<PathBuf> {
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            if part == Path::new("/") {
                real = PathBuf::new();
                continue;
            }
            if part == Path::new("..") {
                real.pop();
                continue;
            }
            let here = real.join(&part);
            match self.files.node(&here)? {
                Node::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    ahead.extend(parts(&target));
                }
                Node::File if !ahead.is_empty() => return Err(io::ErrorKind::NotADirectory.into()),
                Node::File | Node::Directory => real = here,
            }
        }
        Ok(real)
    }

    /// Where to reach a path in [`Files`]: the kernel follows the links of the running host itself, at a tenth of the
    /// cost; those of any other tree must not lead out of it.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        match self.live {
            true => Ok(path.strip_prefix("/").unwrap_or(path).to_owned()),
            false => self.real(path),
        }
    }

    fn at_root(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path)
    }
}

/// A directory of a [`HostTree`] whose own links have been followed: what is read in it need not go through them again.
#[derive(Debug, Clone)]
pub struct Folder<'t> {
    tree: &'t HostTree,
    path: PathBuf,
}

impl Folder<'_> {
    /// Where it stands, without links and relative to the tree.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Ok(Self {
            tree: self.tree,
            path: self.tree.followed(self.path.clone(), parts(Path::new(name)))?,
        })
    }

    /// The content of an attribute of `/sys` in it, as [`HostTree::text`]; `name` is a name, not a path.
    ///
    /// # Errors
    /// As [`HostTree::bytes`].
    pub fn attribute(&self, name: &str) -> io::Result<String> {
        let path = self.path.join(name);
        match self.tree.files.attribute(&path)? {
            Some(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            None => self.tree.text(path),
        }
    }

    /// The last name of where a link in it points, as [`HostTree::link_name`].
    pub fn link_name(&self, name: &str) -> Option<String> {
        let target = self.tree.files.target(&self.path.join(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }
}

/// The parts of a path, last first; a root stays as `/`, dots are dropped.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter(|part| !matches!(part, Component::CurDir | Component::Prefix(_)))
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

/// A directory of the running system.
#[derive(Debug)]
struct Directory {
    root: PathBuf,
}

impl Files for Directory {
    fn node(&self, path: &Path) -> io::Result<Node> {
        let path = self.root.join(path);
        let kind = path.symlink_metadata()?.file_type();
        Ok(if kind.is_symlink() {
            Node::Link(path.read_link()?)
        } else if kind.is_dir() {
            Node::Directory
        } else {
            Node::File
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        open(&self.root.join(path), 0).and_then(read_whole)
    }

    fn attribute(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match open(&self.root.join(path), libc::O_NOFOLLOW) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(None),
            other => other.and_then(read_attribute).map(Some),
        }
    }

    fn target(&self, path: &Path) -> io::Result<PathBuf> {
        self.root.join(path).read_link()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.root.join(path))?;
        Ok(entries
            .flatten()
            .take(LONGEST_LIST)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect())
    }
}

/// A pipe or a terminal in the tree must not make the reader wait.
fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | flags)
        .open(path)
}

fn read_whole(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // To the end and not to the first short answer: lists in `/proc` come in pieces.
    read_on(file, Vec::new())
}

fn read_on(file: File, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= LARGEST_FILE => Ok(bytes),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// An attribute of `/sys` comes in one piece of at most a page: three system calls instead of six, ten thousand times.
fn read_attribute(mut file: File) -> io::Result<Vec<u8>> {
    let mut page = [0; 4096];
    let got = file.read(&mut page)?;
    let bytes = page.get(..got).unwrap_or_default().to_vec();
    match got < page.len() {
        true => Ok(bytes),
        false => read_on(file, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use vmm_sys_util::tempdir::TempDir;

    fn tree() -> (TempDir, HostTree) {
        let dir = TempDir::new().unwrap();
        let root = dir.as_path();
        std::fs::create_dir_all(root.join("sys/devices/pci0000:00/0000:00:02.0")).unwrap();
        std::fs::create_dir_all(root.join("sys/bus/pci/devices")).unwrap();
        std::fs::write(root.join("sys/devices/pci0000:00/0000:00:02.0/class"), "0x030000\n").unwrap();
        symlink(
            "../../../devices/pci0000:00/0000:00:02.0",
            root.join("sys/bus/pci/devices/0000:00:02.0"),
        )
        .unwrap();
        let tree = HostTree::at(root);
        (dir, tree)
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let (dir, tree) = tree();
        assert_eq!(
            tree.text("/sys/bus/pci/devices/0000:00:02.0/class").unwrap(),
            "0x030000"
        );
        assert_eq!(
            tree.real(Path::new("sys/bus/pci/devices/0000:00:02.0")).unwrap(),
            Path::new("sys/devices/pci0000:00/0000:00:02.0")
        );
        assert_eq!(tree.list("sys/bus/pci/devices").unwrap(), ["0000:00:02.0"]);
        assert_eq!(
            tree.link_name("sys/bus/pci/devices/0000:00:02.0").as_deref(),
            Some("0000:00:02.0")
        );

        std::fs::write(dir.as_path().join("shadow"), "ours").unwrap();
        for (link, target) in [("a", "/shadow"), ("b", "../../../../shadow"), ("c", "sys/../shadow")] {
            symlink(target, dir.as_path().join(link)).unwrap();
            assert_eq!(tree.text(link).unwrap(), "ours", "{target} leads out of the tree");
        }
    }

    #[test]
    fn circles_pipes_and_size_have_an_end() {
        let (dir, tree) = tree();
        symlink("loop", dir.as_path().join("loop")).unwrap();
        assert_eq!(tree.text("loop").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert!(!tree.exists("loop/deeper") && !tree.exists("nothing"));

        let large = std::fs::File::create(dir.as_path().join("large")).unwrap();
        large.set_len(LARGEST_FILE + 1).unwrap();
        assert_eq!(tree.bytes("large").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        large.set_len(3).unwrap();
        assert_eq!(tree.bytes("large").unwrap(), [0; 3]);

        assert!(tree.bytes("sys").is_err() && tree.list("large").is_err() && tree.link("sys").is_err());
        assert!(tree.bytes("large/x").is_err());
    }

    #[test]
    fn what_is_there_is_told_apart() {
        let (_dir, tree) = tree();
        assert!(tree.is_dir("/sys/bus/pci/devices/0000:00:02.0"));
        assert!(tree.exists("/") && tree.is_dir("/"));
        assert!(!tree.is_dir("/sys/bus/pci/devices/0000:00:02.0/class"));
        assert!(!tree.is_live() && HostTree::live().is_live());
    }

    #[test]
    fn a_folder_follows_links_inside_the_tree_alone() {
        let (dir, tree) = tree();
        let root = dir.as_path();
        std::fs::write(root.join("secret"), "ours").unwrap();
        let own = root.join("sys/devices/pci0000:00/0000:00:02.0");
        symlink("/secret", own.join("leak")).unwrap();
        symlink("../../../../../../../secret", own.join("climb")).unwrap();
        symlink("../../../bus/pci/drivers/i915", own.join("driver")).unwrap();
        let devices = tree.folder("/sys/bus/pci/devices").unwrap();
        let folder = devices.folder("0000:00:02.0").unwrap();
        assert_eq!(folder.path(), Path::new("sys/devices/pci0000:00/0000:00:02.0"));
        assert_eq!(folder.attribute("class").unwrap(), "0x030000");
        assert_eq!(
            (folder.attribute("leak").unwrap(), folder.attribute("climb").unwrap()),
            ("ours".to_owned(), "ours".to_owned())
        );
        assert_eq!(folder.link_name("driver").as_deref(), Some("i915"));
        assert!(
            folder.link_name("class").is_none() && folder.attribute("none").is_err() && devices.folder("x").is_err()
        );
    }

    #[test]
    fn the_running_host_is_read_through_its_own_links() {
        let live = HostTree::live();
        assert!(live.exists("/proc/self/exe") && live.is_dir("proc/self") && !live.exists("/proc/self/nothing"));
        let own = std::process::id().to_string();
        assert_eq!(
            live.real(Path::new("/proc/self")).unwrap(),
            Path::new("proc").join(&own)
        );
        assert_eq!(live.link_name("/proc/self"), Some(own));
        assert!(live.folder("/proc/self").unwrap().attribute("comm").is_ok());
        // Comes in pieces of a page, and must not be cut after the first.
        if let Ok(whole) = std::fs::read_to_string("/proc/self/smaps") {
            let read = live.text("/proc/self/smaps").unwrap();
            assert!(
                read.len() > 4096 && read.len() * 2 > whole.len(),
                "{} of {}",
                read.len(),
                whole.len()
            );
        }
        assert!(live.list("/proc/self/task").is_ok_and(|tasks| !tasks.is_empty()));
    }
}
