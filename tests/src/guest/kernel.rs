use super::{Error, Result, Roots, unpack};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// A Debian kernel package, unpacked: its image and its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    release: String,
    image: PathBuf,
    modules: HashMap<String, PathBuf>,
}

/// A module ready to be loaded.
#[derive(Debug)]
pub struct Module {
    /// Its name as `/sys/module` has it (underscores).
    pub name: String,
    /// The uncompressed object.
    pub object: Vec<u8>,
}

impl Kernel {
    /// The newest kernel in `roots`.
    ///
    /// # Errors
    /// No `boot/vmlinuz-*`, or its modules are not there.
    pub fn find(roots: &Roots) -> Result<Self> {
        let image = roots
            .list("boot", "vmlinuz-")
            .into_iter()
            .max_by_key(|path| numbers(path))
            .ok_or_else(|| roots.missing("boot/vmlinuz-*".into()))?;
        let name = image
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let release = name.trim_start_matches("vmlinuz-").to_owned();
        let folder = roots.find(&[&format!("usr/lib/modules/{release}"), &format!("lib/modules/{release}")])?;
        let mut modules = HashMap::new();
        collect(&folder.join("kernel"), &mut modules)?;
        Ok(Self {
            release,
            image,
            modules,
        })
    }

    /// Its release, such as `6.12.94+deb13-amd64`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Its bzImage, which is also an EFI program.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// `wanted` and all they depend on, in the order to load them. A name the kernel has built in is left out.
    ///
    /// The package has no `modules.dep` (its installation script would make it), so each module is asked.
    pub(super) fn closure(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in wanted {
            self.add(&plain(name), &mut loaded)?;
        }
        Ok(loaded)
    }

    fn add(&self, name: &str, loaded: &mut Vec<Module>) -> Result<()> {
        let Some(path) = self.modules.get(name) else {
            return Ok(());
        };
        if loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let object = unpack::read(path)?;
        for dependency in dependencies(&object) {
            self.add(&dependency, loaded)?;
        }
        loaded.push(Module {
            name: name.to_owned(),
            object,
        });
        Ok(())
    }
}

/// The numbers in a kernel's file name: what versions are compared by.
fn numbers(image: &Path) -> Vec<u64> {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Module files by plain name, below `folder`.
fn collect(folder: &Path, found: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if let Some((name, _)) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|it| it.split_once(".ko"))
        {
            found.insert(plain(name), path);
        }
    }
    Ok(())
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The `depends=` line of a module's `.modinfo` section.
fn dependencies(object: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = object.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = object[at + key.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(plain)
        .collect()
}

/// Takes the ELF kernel (which carries the PVH note) out of a bzImage.
///
/// # Errors
/// The image is not a bzImage of boot protocol 2.08 or later, or its payload is compressed by something else than
/// xz or zstd.
pub fn extract_vmlinux(image: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(image).map_err(Error::io(image))?;
    let payload =
        payload(&bytes).ok_or_else(|| Error::format(image, &"not a bzImage of boot protocol 2.08 or later"))?;
    let elf = unpack::unpack(image, payload.to_vec())?;
    if elf.starts_with(b"\x7fELF") {
        Ok(elf)
    } else {
        Err(Error::format(image, &"its payload is no xz or zstd of an ELF file"))
    }
}

/// The compressed kernel (Linux, Documentation/arch/x86/boot.rst: `setup_sects`, `version`, `payload_offset`).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let version = u16::from_le_bytes(image.get(0x206..0x208)?.try_into().ok()?);
    if image.get(0x202..0x206)? != b"HdrS" || version < 0x208 {
        return None;
    }
    let setup = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup + 1) * 512 + word(0x248)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

#[cfg(test)]
mod tests {
    use super::{dependencies, payload};

    #[test]
    fn dependencies_are_plain_names() {
        assert_eq!(
            dependencies(b"\0license=GPL\0depends=snd-hda-codec,snd\0name=x\0"),
            ["snd_hda_codec", "snd"]
        );
        assert!(dependencies(b"\0license=GPL\0depends=\0").is_empty());
        assert!(dependencies(b"no section").is_empty());
    }

    #[test]
    fn payload_lies_behind_the_setup_sectors() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248] = 16;
        image[0x24c] = 5;
        image[1040..1045].copy_from_slice(b"bytes");
        assert_eq!(payload(&image), Some(&b"bytes"[..]));
        image[0x24d] = 0xff;
        assert_eq!(payload(&image), None, "longer than the file");
        image[0x206] = 7;
        assert_eq!(payload(&image), None, "older than the field");
    }
}
