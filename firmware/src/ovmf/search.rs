//! The search through descriptor directories.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{FirmwareImage, OvmfError, descriptor::Descriptor};

/// Where distributions put descriptors, and where an administrator overrides them.
const DIRECTORIES: [&str; 2] = ["usr/share/qemu/firmware", "etc/qemu/firmware"];

/// What became of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Fits this machine.
    Usable(FirmwareImage),
    /// Does not; the reason.
    Refused(String),
}

/// A descriptor that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The descriptor file.
    pub descriptor: PathBuf,
    /// What it says it is.
    pub description: String,
    /// What became of it.
    pub verdict: Verdict,
    /// For choosing: Secure Boot last, large (4 MiB) before small.
    rank: (bool, Reverse<u64>),
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Usable(image) => write!(f, "{}: {}", self.descriptor.display(), image.code.display()),
            Verdict::Refused(why) => write!(f, "{}: {why}", self.descriptor.display()),
        }
    }
}

/// One line on every candidate.
pub(super) fn verdicts(candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return "there is none".to_owned();
    }
    candidates
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct FirmwareSearch {
    /// Put before every path, those inside descriptors included.
    root: PathBuf,
    /// Relative to `root`; a later one overrides files of the same name in an earlier one.
    directories: Vec<PathBuf>,
}

impl Default for FirmwareSearch {
    /// This system: `/usr/share/qemu/firmware`, overridden by `/etc/qemu/firmware`.
    fn default() -> Self {
        Self::under(Path::new("/"))
    }
}

impl FirmwareSearch {
    /// The system whose root directory is `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            directories: DIRECTORIES.map(PathBuf::from).to_vec(),
        }
    }

    /// The directories searched.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        self.directories
            .iter()
            .map(|directory| self.root.join(directory))
            .collect()
    }

    /// Every descriptor in the order of file names, with what became of it.
    ///
    /// # Errors
    /// A directory exists but cannot be listed. A descriptor that cannot be read is a candidate refused.
    pub fn candidates(&self) -> Result<Vec<Candidate>, OvmfError> {
        Ok(self
            .descriptors()?
            .into_values()
            .filter_map(|path| self.candidate(path))
            .collect())
    }

    /// The image to use where the user named none: without Secure Boot before with, 4 MiB before 2 MiB, then by the
    /// order of file names.
    ///
    /// # Errors
    /// [`OvmfError::NoneUsable`] with all that was looked at.
    pub fn find(&self) -> Result<FirmwareImage, OvmfError> {
        let candidates = self.candidates()?;
        let best = candidates
            .iter()
            .filter_map(|candidate| match &candidate.verdict {
                Verdict::Usable(image) => Some((candidate.rank, image)),
                Verdict::Refused(_) => None,
            })
            .min_by_key(|(rank, _)| *rank);
        match best {
            Some((_, image)) => Ok(image.clone()),
            None => Err(OvmfError::NoneUsable {
                directories: self.directories(),
                candidates,
            }),
        }
    }

    /// The image the user named, see [`FirmwareImage::named`]. What descriptors say about that file counts as well: an
    /// image that needs system management mode is refused, as it would hang without a word.
    ///
    /// # Errors
    /// Those of [`FirmwareImage::named`], and [`OvmfError::NeedsSmm`].
    pub fn named(&self, code: &Path, store: Option<&Path>) -> Result<FirmwareImage, OvmfError> {
        let image = FirmwareImage::named(code, store)?;
        let real = |path: &Path| fs::canonicalize(path).ok();
        let named = real(code);
        // Descriptors that cannot be read say nothing about a file the user chose.
        for descriptor in self.descriptors().unwrap_or_default().into_values() {
            let Some(text) = fs::read_to_string(&descriptor).ok() else {
                continue;
            };
            let Ok(parsed) = Descriptor::parse(&text) else { continue };
            let same = parsed
                .code()
                .is_some_and(|path| named.is_some() && real(&self.rooted(path)) == named);
            if same && parsed.has("requires-smm") {
                return Err(OvmfError::NeedsSmm {
                    path: code.to_owned(),
                    descriptor,
                });
            }
        }
        Ok(image)
    }

    /// The descriptor files in force, by file name.
    fn descriptors(&self) -> Result<BTreeMap<OsString, PathBuf>, OvmfError> {
        let mut found = BTreeMap::new();
        for directory in self.directories() {
            let failed = |source| OvmfError::Read {
                path: directory.clone(),
                source,
            };
            let entries = match fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if let (Some(name), Some("json")) = (path.file_name(), path.extension().and_then(|e| e.to_str())) {
                    found.insert(name.to_owned(), path);
                }
            }
        }
        Ok(found)
    }

    /// Judges a descriptor; `None` for an empty file, which masks one of the same name.
    fn candidate(&self, descriptor: PathBuf) -> Option<Candidate> {
        let refused = |descriptor, description, why| {
            let rank = (true, Reverse(0));
            Some(Candidate {
                descriptor,
                description,
                verdict: Verdict::Refused(why),
                rank,
            })
        };
        let text = match fs::read_to_string(&descriptor) {
            Ok(text) if text.is_empty() => return None,
            Ok(text) => text,
            Err(error) => return refused(descriptor, String::new(), format!("cannot be read: {error}")),
        };
        let parsed = match Descriptor::parse(&text) {
            Ok(parsed) => parsed,
            Err(error) => return refused(descriptor, String::new(), format!("not a firmware descriptor: {error}")),
        };
        let description = parsed.description.clone();
        match self.usable(&parsed) {
            Ok((image, size)) => {
                let rank = (parsed.has("secure-boot"), Reverse(size));
                Some(Candidate {
                    descriptor,
                    description,
                    verdict: Verdict::Usable(image),
                    rank,
                })
            }
            Err(why) => refused(descriptor, description, why),
        }
    }

    /// The image of a descriptor and the size of its code, or why not.
    fn usable(&self, descriptor: &Descriptor) -> Result<(FirmwareImage, u64), String> {
        let files = descriptor.files()?;
        let code = self.rooted(&files.code);
        let vars_template = files.vars_template.map(|path| self.rooted(&path));
        let size = |path: &Path| match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        let code_size = size(&code)?;
        if let Some(template) = &vars_template {
            size(template)?;
        }
        Ok((FirmwareImage { code, vars_template }, code_size))
    }

    /// A path of a descriptor, under our root.
    fn rooted(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
