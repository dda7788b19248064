//! Kernel modules: which ones a list needs, in the order of loading, and their plain contents.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// The modules of one kernel, as depmod indexed them.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    by_name: BTreeMap<String, Module>,
    builtin: Vec<String>,
}

/// Modules that are complete among themselves.
#[derive(Debug)]
pub struct Closure {
    /// Path inside the module folder, without the suffix of a compression, and plain contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// The `modules.dep` that goes with them.
    pub index: String,
}

#[derive(Debug, Clone)]
struct Module {
    path: String,
    needs: Vec<String>,
}

/// What can go wrong with modules.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A compressed module is damaged or of an unknown kind.
    #[error("cannot decompress {path}: {reason}")]
    Decompress {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The kernel has no such module.
    #[error("the kernel in {dir} has no module {name}")]
    Unknown {
        /// The kernel's module folder.
        dir: PathBuf,
        /// The module asked for.
        name: String,
    },
}

impl Modules {
    /// Reads the index in `lib/modules/<release>`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn read(dir: &Path) -> Result<Self, ModulesError> {
        let text = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| ModulesError::Read { path, source })
        };
        let mut by_name = BTreeMap::new();
        for (path, needs) in text("modules.dep")?.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            by_name.insert(
                name_of(path),
                Module {
                    path: path.to_owned(),
                    needs,
                },
            );
        }
        let builtin = text("modules.builtin")?.lines().map(name_of).collect();
        Ok(Self {
            dir: dir.to_path_buf(),
            by_name,
            builtin,
        })
    }

    /// The modules of these names and all that they need. Modules built into the kernel need nothing.
    ///
    /// # Errors
    /// When a module is unknown or cannot be read.
    pub fn closure(&self, names: &[&str]) -> Result<Closure, ModulesError> {
        let mut chosen: BTreeMap<String, &Module> = BTreeMap::new();
        for name in names.iter().map(|name| name_of(name)) {
            let Some(module) = self.by_name.get(&name) else {
                if self.builtin.contains(&name) {
                    continue;
                }
                return Err(ModulesError::Unknown {
                    dir: self.dir.clone(),
                    name,
                });
            };
            // modules.dep already lists the dependencies of dependencies.
            chosen.insert(name, module);
            for need in module.needs.iter().map(|path| name_of(path)) {
                if let Some(module) = self.by_name.get(&need) {
                    chosen.insert(need, module);
                }
            }
        }
        let mut files = Vec::new();
        let mut index = String::new();
        for module in chosen.values() {
            files.push((plain(&module.path).to_owned(), self.contents(&module.path)?));
            let needs: Vec<&str> = module.needs.iter().map(|need| plain(need)).collect();
            index.push_str(&format!("{}: {}\n", plain(&module.path), needs.join(" ")));
        }
        Ok(Closure { files, index })
    }

    fn contents(&self, path: &str) -> Result<Vec<u8>, ModulesError> {
        let path = self.dir.join(path);
        if path.extension().is_none_or(|extension| extension != "xz") {
            return fs::read(&path).map_err(|source| ModulesError::Read { path, source });
        }
        let file = File::open(&path).map_err(|source| ModulesError::Read {
            path: path.clone(),
            source,
        })?;
        let mut data = Vec::new();
        match lzma_rs::xz_decompress(&mut BufReader::new(file), &mut data) {
            Ok(()) => Ok(data),
            Err(error) => Err(ModulesError::Decompress {
                path,
                reason: format!("{error:?}"),
            }),
        }
    }
}

/// `kernel/arch/x86/kvm/kvm-amd.ko.xz` and `kvm_amd` are one name.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn plain(path: &str) -> &str {
    path.strip_suffix(".xz").unwrap_or(path)
}
