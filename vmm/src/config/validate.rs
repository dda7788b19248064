//! From what the user wrote to what is built: defaults filled in, contradictions refused.
//!
//! The only questions asked of the host are whether the files named are there; devices, memory and KVM are the
//! machine's to check.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{BindMode, Config, ConfigError, Device, Disk, FirmwareChoice, Identity, MemorySize, RtcBase, SerialTarget};
use crate::kvm::feature::WithoutFeature;

/// Memory when nothing is said.
pub(crate) const MEMORY_DEFAULT: u64 = 2 << 30;
/// OVMF's PEI phase alone wants most of this; see `firmware`'s memory map.
const MEMORY_MIN: u64 = 128 << 20;
/// Guest memory is backed, and mapped for devices, in pages of this size.
const MEMORY_STEP: u64 = 2 << 20;
/// APIC ids 0 to 254; 255 is the broadcast address of the xAPIC (Intel SDM vol. 3A §12.6.2.1).
const CPUS_MAX: u32 = 255;
/// Below 36 bits OVMF refuses to place its window, 52 is the architecture's limit (Intel SDM vol. 3A §4.1.4).
const PHYS_BITS: std::ops::RangeInclusive<u8> = 36..=52;
/// The name of a machine that has none.
const NAME_DEFAULT: &str = "default";

/// A checked configuration: what there is to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunConfig {
    /// What the machine is called.
    pub name: String,
    /// Guest memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Number of vCPUs, 1 to 255.
    pub cpus: u8,
    /// What starts the guest.
    pub boot: Boot,
    /// Where the first serial port leads.
    pub serial: SerialTarget,
    /// Whether the guest is kept from seeing KVM; when not said, exactly with a display adapter assigned.
    pub hide_kvm: Option<bool>,
    /// Whether CPUID says that there is a hypervisor.
    pub hypervisor_bit: bool,
    /// Disks, in the order of their PCI slots.
    pub disks: Vec<Disk>,
    /// Host functions for the guest, no two the same.
    pub devices: Vec<Device>,
    /// Whether they are taken from the host's drivers for the run.
    pub bind: BindMode,
    /// What the machine calls itself.
    pub identity: Identity,
    /// Width of guest physical addresses, if the user limits it.
    pub phys_bits: Option<u8>,
    /// Features that the guest is not to have.
    #[serde(serialize_with = "as_text")]
    pub cpu_features: Vec<WithoutFeature>,
    /// What the real-time clock shows.
    pub rtc: RtcBase,
    /// Where the firmware's debug messages are written.
    pub debug_log: Option<PathBuf>,
}

/// What starts the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// OVMF.
    Firmware {
        /// The code image.
        image: FirmwareChoice,
        /// The file of its variables; made from the template when it is not there yet, its directory too.
        vars: PathBuf,
    },
    /// A Linux kernel, without firmware.
    Kernel {
        /// A bzImage or a vmlinux with a PVH entry.
        kernel: PathBuf,
        /// Its initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line, empty if none was given.
        cmdline: String,
    },
}

fn as_text<S: serde::Serializer>(features: &[WithoutFeature], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(features.iter().map(ToString::to_string))
}

impl Config {
    /// Checks the settings and fills in what was left out.
    ///
    /// # Errors
    /// The first thing found wrong, in the order of the settings.
    pub fn validate(self) -> Result<RunConfig, ConfigError> {
        self.validate_with(state_home())
    }

    fn validate_with(mut self, state_home: Option<PathBuf>) -> Result<RunConfig, ConfigError> {
        let name = self
            .name
            .take()
            .or_else(|| self.fallback_name.take())
            .unwrap_or_else(|| NAME_DEFAULT.to_owned());
        check_name(&name)?;
        let memory = check_memory(self.memory)?;
        let cpus = in_range("cpus", self.cpus.unwrap_or(1).into(), 1, CPUS_MAX.into())?;
        if let Some(bits) = self.cpu.phys_bits {
            in_range(
                "phys-bits",
                bits.into(),
                (*PHYS_BITS.start()).into(),
                (*PHYS_BITS.end()).into(),
            )?;
        }
        check_identity(&self.identity)?;
        check_disks(&self)?;
        check_devices(&self.devices)?;
        let boot = check_boot(&mut self, &name, state_home)?;
        check_distinct(&self, &boot)?;
        Ok(RunConfig {
            name,
            memory,
            cpus,
            boot,
            serial: self.serial.unwrap_or(SerialTarget::Stdio),
            hide_kvm: self.hide_kvm,
            hypervisor_bit: self.hypervisor_bit.unwrap_or(true),
            disks: self.disks,
            devices: self.devices,
            bind: self.bind.unwrap_or_default(),
            identity: self.identity,
            phys_bits: self.cpu.phys_bits,
            cpu_features: self.cpu.features,
            rtc: self.rtc.unwrap_or_default(),
            debug_log: self.debug_log,
        })
    }
}

/// Where programs keep what they must not lose (XDG base directory specification 0.8: relative paths are ignored).
fn state_home() -> Option<PathBuf> {
    let absolute = |key: &str| env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain);
    if good {
        return Ok(());
    }
    // It becomes a directory name, so it must not lead out of the state directory.
    let remedy = "use up to 64 letters, digits, `-`, `_` and `.`, not starting with `.`";
    Err(ConfigError::Text {
        key: "name",
        value: name.to_owned(),
        remedy,
    })
}

fn check_memory(memory: Option<MemorySize>) -> Result<u64, ConfigError> {
    let given = memory.unwrap_or(MemorySize::from_bytes(MEMORY_DEFAULT));
    if given.bytes() < MEMORY_MIN {
        return Err(ConfigError::MemoryTooSmall {
            given,
            least: MemorySize::from_bytes(MEMORY_MIN),
        });
    }
    if !given.bytes().is_multiple_of(MEMORY_STEP) {
        return Err(ConfigError::MemoryUnaligned { given });
    }
    Ok(given.bytes())
}

fn in_range(key: &'static str, given: u64, least: u64, most: u64) -> Result<u8, ConfigError> {
    u8::try_from(given)
        .ok()
        .filter(|_| (least..=most).contains(&given))
        .ok_or(ConfigError::OutOfRange {
            key,
            given,
            least,
            most,
        })
}

fn check_identity(identity: &Identity) -> Result<(), ConfigError> {
    // An empty string would end SMBIOS's list of strings (SMBIOS 3.7 §6.1.3), and older readers stop at 64. The others
    // are fields of every ACPI table's header (ACPI 6.5 §5.2.6).
    let (long, six, eight) = (
        (64, "use 1 to 64 printable ASCII characters"),
        (6, "use 1 to 6 printable ASCII characters"),
        (8, "use 1 to 8 printable ASCII characters"),
    );
    let texts = [
        ("manufacturer", &identity.manufacturer, long),
        ("product", &identity.product, long),
        ("version", &identity.version, long),
        ("serial", &identity.serial, long),
        ("sku", &identity.sku, long),
        ("family", &identity.family, long),
        ("oem-id", &identity.oem_id, six),
        ("oem-table-id", &identity.oem_table_id, eight),
    ];
    for (key, value, (most, remedy)) in texts {
        let Some(text) = value else { continue };
        if !(1..=most).contains(&text.len()) || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(ConfigError::Text {
                key,
                value: text.clone(),
                remedy,
            });
        }
    }
    Ok(())
}

fn check_disks(config: &Config) -> Result<(), ConfigError> {
    let mut order: BTreeMap<u32, &Path> = BTreeMap::new();
    for disk in &config.disks {
        check_file("disk", &disk.path)?;
        let Some(index) = disk.bootindex else { continue };
        if config.kernel.is_some() {
            return Err(ConfigError::BootIndexWithKernel {
                path: disk.path.clone(),
            });
        }
        if let Some(first) = order.insert(index, &disk.path) {
            return Err(ConfigError::BootIndexClash {
                index,
                first: first.into(),
                second: disk.path.clone(),
            });
        }
    }
    Ok(())
}

fn check_devices(devices: &[Device]) -> Result<(), ConfigError> {
    for (at, device) in devices.iter().enumerate() {
        if devices[..at].iter().any(|earlier| earlier.address == device.address) {
            return Err(ConfigError::DuplicateDevice {
                address: device.address,
            });
        }
        device
            .romfile
            .as_deref()
            .map_or(Ok(()), |path| check_file("romfile", path))?;
    }
    Ok(())
}

fn check_boot(config: &mut Config, name: &str, state_home: Option<PathBuf>) -> Result<Boot, ConfigError> {
    let Some(kernel) = config.kernel.take() else {
        for (key, given) in [
            ("initrd", config.initrd.is_some()),
            ("cmdline", config.cmdline.is_some()),
        ] {
            if given {
                return Err(ConfigError::NeedsKernel { key });
            }
        }
        let image = config.firmware.take().unwrap_or(FirmwareChoice::Auto);
        if let FirmwareChoice::Path(path) = &image {
            check_file("firmware", path)?;
        }
        let vars = match config.vars.take() {
            Some(path) => path,
            None => state_home
                .ok_or(ConfigError::NoStateHome)?
                .join("tenon")
                .join(name)
                .join("VARS.fd"),
        };
        return Ok(Boot::Firmware { image, vars });
    };
    for (key, given) in [("firmware", config.firmware.is_some()), ("vars", config.vars.is_some())] {
        if given {
            return Err(ConfigError::KernelWithFirmware { key });
        }
    }
    check_file("kernel", &kernel)?;
    config
        .initrd
        .as_deref()
        .map_or(Ok(()), |path| check_file("initrd", path))?;
    Ok(Boot::Kernel {
        kernel,
        initrd: config.initrd.take(),
        cmdline: config.cmdline.take().unwrap_or_default(),
    })
}

/// That no file is written by two devices: disks, variables, serial output and debug log.
fn check_distinct(config: &Config, boot: &Boot) -> Result<(), ConfigError> {
    let mut files: Vec<(&'static str, &Path)> = config.disks.iter().map(|disk| ("disk", disk.path.as_path())).collect();
    if let Boot::Firmware { image, vars } = boot {
        files.push(("vars", vars));
        if let FirmwareChoice::Path(path) = image {
            files.push(("firmware", path));
        }
    }
    if let Some(SerialTarget::File(path)) = &config.serial {
        files.push(("serial", path));
    }
    if let Some(path) = &config.debug_log {
        files.push(("debug-log", path));
    }
    let mut seen: Vec<(FileId, &'static str, &Path)> = Vec::new();
    for (key, path) in files {
        let Some(id) = FileId::of(path) else { continue };
        if let Some((_, other_key, other)) = seen.iter().find(|(earlier, ..)| *earlier == id) {
            let (path, other) = (path.to_owned(), (*other).to_owned());
            return Err(ConfigError::SameFile {
                key,
                path,
                other_key,
                other,
            });
        }
        seen.push((id, key, path));
    }
    Ok(())
}

/// What makes two paths one file.
#[derive(PartialEq, Eq)]
enum FileId {
    /// Device and inode of a file that is there.
    There(u64, u64),
    /// The absolute path of one that is not.
    NotYet(PathBuf),
}

impl FileId {
    /// None for files like `/dev/null`, which any number of writers may share.
    fn of(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_file() || meta.file_type().is_block_device() => {
                Some(Self::There(meta.dev(), meta.ino()))
            }
            Ok(_) => None,
            Err(_) => std::path::absolute(path).ok().map(Self::NotYet),
        }
    }
}

/// That something to read from is there.
fn check_file(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    let meta = fs::metadata(path).map_err(|source| ConfigError::File {
        key,
        path: path.to_owned(),
        source,
    })?;
    let kind = meta.file_type();
    if kind.is_file() || (key == "disk" && kind.is_block_device()) {
        return Ok(());
    }
    let kind = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_block_device() => "block device",
        () => "special file",
    };
    Err(ConfigError::NotAFile {
        key,
        path: path.to_owned(),
        kind,
    })
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
