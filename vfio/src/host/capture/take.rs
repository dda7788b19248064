//! Takes a capture of a host: reads what [`super::rules`] say, masks it, and keeps links as they are, so that what was
//! reached through them is reached in the capture.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::about::About;
use super::mask::Masks;
use super::memory::{Memory, Refusal};
use super::rules::{FUNCTION, HOST, Keep, MODULES, Rule, fits};
use super::{ABOUT, KERNEL_LOG, content};
use crate::host::tree::HostTree;
use crate::host::{KernelLog, Sysfs};

/// What is taken in all; more than this is no host's, and would not be read again.
const LARGEST: usize = 48 << 20;

/// More links than the way to any file of a real host has.
const MOST_LINKS: usize = 40;

/// A capture of a host, to be written.
#[derive(Debug)]
pub struct Taken {
    /// The files.
    pub files: Memory,
    /// How many different values were masked.
    pub masked: usize,
    /// What is not in it, and why: a line for each kind of file.
    pub left_out: Vec<String>,
}

/// Takes a capture. `users` are names beside those that the host's own files give, which are masked too.
///
/// # Errors
/// There is no room for what is read, or it cannot be described.
pub fn take(tree: &HostTree, mut about: About, users: &[String]) -> Result<Taken, Refusal> {
    let mut taker = Taker::new(tree, users);
    for bdf in Sysfs::of(tree.clone()).bdfs() {
        let path = Sysfs::function_path(bdf);
        taker.all(&path.to_string_lossy(), FUNCTION)?;
    }
    taker.all("", HOST)?;
    if let Ok(release) = tree.text("/proc/sys/kernel/osrelease") {
        for root in ["lib/modules", "usr/lib/modules"] {
            taker.all(&format!("{root}/{release}"), MODULES)?;
        }
    }
    taker.machines()?;

    let log = KernelLog::of(tree);
    match &log.missing {
        None => {
            let text = taker.masks.log(&log.text());
            taker.put(Path::new(KERNEL_LOG.trim_start_matches('/')), text.into_bytes())?;
        }
        Some(reason) => taker.leave_out("the kernel's log".into(), reason.clone()),
    }
    let left_out: Vec<String> = taker.left_out.iter().map(describe).collect();
    about.left_out.clone_from(&left_out);
    let text = about.to_toml().map_err(|_| Refusal::NotText)?;
    taker.put(Path::new(ABOUT.trim_start_matches('/')), text.into_bytes())?;
    Ok(Taken {
        masked: taker.masks.count(),
        files: taker.files,
        left_out,
    })
}

fn describe(((what, why), count): (&(String, String), &usize)) -> String {
    match count {
        1 => format!("{what}: {why}"),
        _ => format!("{what} ({count} of them): {why}"),
    }
}

struct Taker<'t> {
    tree: &'t HostTree,
    files: Memory,
    bytes: usize,
    masks: Masks,
    /// Directories by the path that was asked for, and where they really are.
    entered: HashMap<PathBuf, Option<PathBuf>>,
    ids: Vec<(u16, u16)>,
    left_out: BTreeMap<(String, String), usize>,
}

impl<'t> Taker<'t> {
    fn new(tree: &'t HostTree, users: &[String]) -> Self {
        let sysfs = Sysfs::of(tree.clone());
        let functions = sysfs.bdfs().into_iter().filter_map(|bdf| sysfs.function(bdf).ok());
        Self {
            tree,
            files: Memory::new(),
            bytes: 0,
            masks: Masks::new(&host_names(tree), &[user_names(tree), users.to_vec()].concat()),
            entered: HashMap::new(),
            ids: functions.map(|function| (function.vendor, function.device)).collect(),
            left_out: BTreeMap::new(),
        }
    }

    fn all(&mut self, above: &str, rules: &[Rule]) -> Result<(), Refusal> {
        let above = above.trim_start_matches('/');
        for (pattern, keep) in rules {
            self.rule(Path::new(above), pattern, pattern, *keep)?;
        }
        Ok(())
    }

    /// Follows the parts of the pattern that hold no star at once, and the others name by name.
    fn rule(&mut self, above: &Path, pattern: &str, whole: &str, keep: Keep) -> Result<(), Refusal> {
        let Some((first, rest)) = pattern.split_once('/') else {
            if !pattern.contains('*') {
                return self.file(&above.join(pattern), whole, keep);
            }
            for name in self.names(above, pattern, whole)? {
                self.file(&above.join(name), whole, keep)?;
            }
            return Ok(());
        };
        if !first.contains('*') {
            return self.rule(&above.join(first), rest, whole, keep);
        }
        for name in self.names(above, first, whole)? {
            self.rule(&above.join(name), rest, whole, keep)?;
        }
        Ok(())
    }

    fn names(&mut self, directory: &Path, pattern: &str, whole: &str) -> Result<Vec<String>, Refusal> {
        let Some(real) = self.enter(directory)? else {
            return Ok(Vec::new());
        };
        match self.tree.list(&real) {
            Ok(names) => Ok(names.into_iter().filter(|name| fits(pattern, name)).collect()),
            Err(error) => {
                self.refused(whole, &error);
                Ok(Vec::new())
            }
        }
    }

    fn file(&mut self, path: &Path, whole: &str, keep: Keep) -> Result<(), Refusal> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let Some(real) = self.enter(above)? else {
            return Ok(());
        };
        let here = real.join(name);
        if self.tree.link(&here).is_ok() {
            // The target is taken with it where it is a directory; a file is taken for its content.
            match self.walk(&here, &mut MOST_LINKS.clone())? {
                Some(target) if !self.tree.is_dir(&target) => self.content(&target, whole, keep),
                _ => Ok(()),
            }
        } else if self.tree.is_dir(&here) {
            self.directory(&here)
        } else if self.tree.exists(&here) {
            self.content(&here, whole, keep)
        } else {
            Ok(())
        }
    }

    fn content(&mut self, path: &Path, whole: &str, keep: Keep) -> Result<(), Refusal> {
        if keep == Keep::Name {
            return self.put(path, Vec::new());
        }
        match self.tree.bytes(path) {
            Ok(bytes) => match content::kept(keep, &bytes, &mut self.masks, &self.ids) {
                Some(kept) => self.put(path, kept),
                None => Ok(()),
            },
            Err(error) => {
                self.refused(whole, &error);
                Ok(())
            }
        }
    }

    /// Where a directory really is, with the links on the way to it taken.
    fn enter(&mut self, directory: &Path) -> Result<Option<PathBuf>, Refusal> {
        if let Some(real) = self.entered.get(directory) {
            return Ok(real.clone());
        }
        // What is above was most often entered before.
        let real = match (directory.parent(), directory.file_name()) {
            (Some(above), Some(name)) => match self.enter(above)? {
                Some(above) => self.walk(&above.join(name), &mut MOST_LINKS.clone())?,
                None => None,
            },
            _ => Some(PathBuf::new()),
        };
        let real = real.filter(|real| self.tree.is_dir(real));
        self.entered.insert(directory.to_owned(), real.clone());
        Ok(real)
    }

    /// Takes what stands at a path in a real directory, and all that the links from there lead through.
    fn walk(&mut self, path: &Path, links: &mut usize) -> Result<Option<PathBuf>, Refusal> {
        // A number in the running host's, and another one each time.
        let own = path == Path::new("proc/self");
        let Some(target) = self.tree.link(path).ok().filter(|_| !own) else {
            if self.tree.is_dir(path) {
                self.directory(path)?;
                return Ok(Some(path.to_owned()));
            }
            return Ok(self.tree.exists(path).then(|| path.to_owned()));
        };
        let masked: PathBuf = target.components().map(|part| self.masked(part)).collect();
        let at = self.masked_path(path);
        tolerant(self.files.link(at, masked))?;
        let Some(left) = links.checked_sub(1) else {
            return Ok(None);
        };
        *links = left;
        let mut here = path.parent().unwrap_or(Path::new("")).to_owned();
        for part in target.components() {
            match part {
                Component::RootDir => here = PathBuf::new(),
                Component::ParentDir => {
                    here.pop();
                }
                Component::Normal(name) => match self.walk(&here.join(name), links)? {
                    Some(next) => here = next,
                    None => return Ok(None),
                },
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(Some(here))
    }

    fn directory(&mut self, path: &Path) -> Result<(), Refusal> {
        let path = self.masked_path(path);
        tolerant(self.files.directory(path))
    }

    fn put(&mut self, path: &Path, content: Vec<u8>) -> Result<(), Refusal> {
        self.bytes += content.len();
        if self.bytes > LARGEST {
            self.leave_out(
                "some files".into(),
                format!("there are more than {} MiB", LARGEST >> 20),
            );
            return Ok(());
        }
        let path = self.masked_path(path);
        tolerant(self.files.file(path, content))
    }

    fn masked_path(&mut self, path: &Path) -> PathBuf {
        path.components().map(|part| self.masked(part)).collect()
    }

    fn masked(&mut self, part: Component<'_>) -> PathBuf {
        match part {
            Component::Normal(name) => PathBuf::from(self.masks.text(&name.to_string_lossy())),
            other => PathBuf::from(other.as_os_str()),
        }
    }

    fn refused(&mut self, what: &str, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::NotFound => return,
            io::ErrorKind::PermissionDenied => "not permitted; run as root to have it as well".to_owned(),
            _ => error.to_string(),
        };
        self.leave_out(what.to_owned(), why);
    }

    fn leave_out(&mut self, what: String, why: String) {
        *self.left_out.entry((what, why)).or_default() += 1;
    }

    /// Which processes have VFIO's files open: virtual machines. Nothing else of any process is looked at.
    fn machines(&mut self) -> Result<(), Refusal> {
        for process in self.tree.list("proc").unwrap_or_default() {
            if !process.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let folder = Path::new("proc").join(&process).join("fd");
            for name in self.tree.list(&folder).unwrap_or_default() {
                let open = folder.join(&name);
                let Some(target) = self
                    .tree
                    .link(&open)
                    .ok()
                    .filter(|target| target.starts_with("/dev/vfio"))
                else {
                    continue;
                };
                tolerant(self.files.link(&open, target))?;
                self.file(
                    &Path::new("proc").join(&process).join("comm"),
                    "proc/*/comm",
                    Keep::Masked,
                )?;
            }
        }
        Ok(())
    }
}

/// Two rules may lead to the same file, and a name may be one that no archive holds; only a lack of room is an error.
fn tolerant(put: Result<(), Refusal>) -> Result<(), Refusal> {
    match put {
        Err(Refusal::TooMany) => Err(Refusal::TooMany),
        Err(_) | Ok(()) => Ok(()),
    }
}

fn host_names(tree: &HostTree) -> Vec<String> {
    let mut names = Vec::new();
    for path in [
        "/proc/sys/kernel/hostname",
        "/etc/hostname",
        "/proc/sys/kernel/domainname",
    ] {
        let Ok(name) = tree.text(path) else { continue };
        if let Some((host, _)) = name.split_once('.') {
            names.push(host.to_owned());
        }
        names.push(name);
    }
    names.retain(|name| !name.is_empty() && name != "(none)");
    names
}

/// Login names and full names of people, by the IDs that distributions give them.
fn user_names(tree: &HostTree) -> Vec<String> {
    let table = tree.text("/etc/passwd").unwrap_or_default();
    let mut names = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, _, full, ..] = fields.as_slice() else {
            continue;
        };
        if id.parse().is_ok_and(|id: u32| (1000..65534).contains(&id)) {
            names.push((*name).to_owned());
            names.extend(full.split(',').next().filter(|full| full.len() > 2).map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
#[path = "take_tests.rs"]
mod tests;
