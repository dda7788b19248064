//! Firmware descriptors: the JSON files by which distributions tell what their images are (QEMU `docs/interop/firmware.json`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The machine type an image must be made for.
const MACHINE: &str = "pc-q35-";

/// A descriptor, as far as it matters here. Unknown members are of no concern: the schema grows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    interface_types: Vec<String>,
    mapping: Mapping,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    /// Of device `flash`: `split` unless said otherwise, `combined`, `stateless`.
    mode: Option<String>,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
    /// Of the devices `memory` and `kernel`.
    filename: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    #[serde(default)]
    machines: Vec<String>,
}

/// The files of a descriptor that suits this machine.
#[derive(Debug)]
pub(super) struct Files {
    pub code: PathBuf,
    pub vars_template: Option<PathBuf>,
}

impl Descriptor {
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The executable, whatever else the descriptor says.
    pub fn code(&self) -> Option<&Path> {
        let mapped = self.mapping.executable.as_ref().map(|file| file.filename.as_path());
        mapped.or(self.mapping.filename.as_deref())
    }

    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|has| has == feature)
    }

    /// The files to use, or why this image is none for this machine.
    pub fn files(&self) -> Result<Files, String> {
        if !self.interface_types.iter().any(|kind| kind == "uefi") {
            return Err("not UEFI".to_owned());
        }
        if !self.targets.iter().any(Target::suits) {
            return Err("not for x86_64 machines of type q35".to_owned());
        }
        if self.has("requires-smm") {
            return Err("needs system management mode (requires-smm), which this machine does not have".to_owned());
        }
        let mapping = &self.mapping;
        if mapping.device != "flash" {
            return Err(format!("made to be loaded as `{}`, not as flash", mapping.device));
        }
        let executable = mapping.executable.as_ref().ok_or("names no executable")?;
        let template = match (mapping.mode.as_deref().unwrap_or("split"), &mapping.nvram_template) {
            ("split", Some(template)) => Some(template),
            ("split", None) => return Err("names no template for the variable store".to_owned()),
            ("combined", _) => None,
            ("stateless", _) => return Err("stateless: it keeps no variables".to_owned()),
            (mode, _) => return Err(format!("flash mode `{mode}` is not known")),
        };
        for file in [Some(executable), template].into_iter().flatten() {
            if file.format != "raw" {
                return Err(format!(
                    "{} is {}, not raw (convert it with `qemu-img convert -O raw`)",
                    file.filename.display(),
                    file.format
                ));
            }
        }
        Ok(Files {
            code: executable.filename.clone(),
            vars_template: template.map(|template| template.filename.clone()),
        })
    }
}

impl Target {
    fn suits(&self) -> bool {
        let machine = |pattern: &String| {
            let stem = pattern.trim_end_matches('*');
            stem.starts_with(MACHINE) || MACHINE.starts_with(stem) || stem == "q35"
        };
        self.architecture == "x86_64" && self.machines.iter().any(machine)
    }
}
