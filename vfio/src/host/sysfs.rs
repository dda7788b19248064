//! PCI functions as the host's `/sys` shows them, read from a [`HostTree`], so that a capture serves as well as the
//! machine itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::function::HostFunction;
use super::tree::HostTree;

/// The address of a PCI function: domain, bus, device and function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// PCI domain (segment); above 0xffff behind a VMD controller.
    pub domain: u32,
    /// Bus, 0–255.
    pub bus: u8,
    /// Device (slot), 0–31.
    pub device: u8,
    /// Function, 0–7.
    pub function: u8,
}

/// Text that is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a PCI address; write it as lspci does: 0000:01:00.0 or 01:00.0")]
pub struct BdfParseError(String);

impl Bdf {
    /// Whether both are functions of one slot (device).
    pub fn same_slot(&self, other: &Self) -> bool {
        (self.domain, self.bus, self.device) == (other.domain, other.bus, other.device)
    }

    /// Device and function as one byte, `device << 3 | function`.
    pub fn devfn(&self) -> u8 {
        self.device << 3 | self.function
    }

    /// The address with this domain, bus and `devfn` byte.
    pub fn from_devfn(domain: u32, bus: u8, devfn: u8) -> Self {
        Self {
            domain,
            bus,
            device: devfn >> 3,
            function: devfn & 7,
        }
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Bdf {
    type Err = BdfParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_bdf(text.trim()).ok_or_else(|| BdfParseError(text.to_owned()))
    }
}

fn parse_bdf(text: &str) -> Option<Bdf> {
    let hex = |digits: &str, longest: usize| -> Option<u32> {
        let plain = !digits.is_empty() && digits.len() <= longest && digits.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (front, function) = text.rsplit_once('.')?;
    let (front, device) = front.rsplit_once(':')?;
    let (domain, bus) = front.rsplit_once(':').unwrap_or(("0", front));
    let (device, function) = (hex(device, 2)?, hex(function, 1)?);
    (device < 32 && function < 8).then_some(Bdf {
        domain: hex(domain, 8)?,
        bus: u8::try_from(hex(bus, 2)?).ok()?,
        device: u8::try_from(device).ok()?,
        function: u8::try_from(function).ok()?,
    })
}

/// Why `/sys` did not answer.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// No such function on this host.
    #[error("there is no PCI function {bdf} on this host ({path} does not exist); `lspci -D` lists those there are")]
    NoSuchFunction {
        /// The address asked for.
        bdf: Bdf,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file that each function has could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file held something else than was expected.
    #[error("{path} holds `{text}`, which is not a number")]
    Number {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
}

/// The host's `/sys`, or a tree that looks like it.
#[derive(Debug, Clone)]
pub struct Sysfs {
    tree: HostTree,
}

impl Sysfs {
    /// The running host.
    pub fn host() -> Self {
        Self::of(HostTree::live())
    }

    /// The `/sys` of a tree, which holds `sys/bus/pci/devices` and `sys/kernel/iommu_groups`.
    pub fn of(tree: HostTree) -> Self {
        Self { tree }
    }

    /// A directory that holds `sys`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self::of(HostTree::at(root))
    }

    /// The tree it reads.
    pub fn tree(&self) -> &HostTree {
        &self.tree
    }

    /// The directory of one function on the host.
    pub fn function_path(bdf: Bdf) -> PathBuf {
        Path::new("/sys/bus/pci/devices").join(bdf.to_string())
    }

    /// The addresses of all functions in order; empty where there is no PCI.
    pub fn bdfs(&self) -> Vec<Bdf> {
        let names = self.tree.list("/sys/bus/pci/devices").unwrap_or_default();
        let mut all: Vec<Bdf> = names.iter().filter_map(|name| name.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    /// The facts of one function.
    ///
    /// # Errors
    /// The function does not exist, or one of the files each function has cannot be read.
    pub fn function(&self, bdf: Bdf) -> Result<HostFunction, SysfsError> {
        let path = Self::function_path(bdf);
        // One walk through the links for all the files of the function.
        match self.tree.folder(&path) {
            Ok(folder) => HostFunction::read(bdf, &folder),
            Err(_) => Err(SysfsError::NoSuchFunction { bdf, path }),
        }
    }

    /// The facts of several functions, each by itself as [`Self::function`].
    pub(super) fn functions(&self, bdfs: &[Bdf]) -> Vec<(Bdf, Result<HostFunction, SysfsError>)> {
        let devices = self.tree.folder("/sys/bus/pci/devices");
        let read = |bdf: &Bdf| match devices.as_ref().ok().and_then(|all| all.folder(&bdf.to_string()).ok()) {
            Some(folder) => (*bdf, HostFunction::read(*bdf, &folder)),
            None => (*bdf, self.function(*bdf)),
        };
        bdfs.iter().map(read).collect()
    }

    /// The functions of an IOMMU group in order of address.
    ///
    /// # Errors
    /// The group has no directory, or a member cannot be read.
    pub fn group_members(&self, group: u32) -> Result<Vec<HostFunction>, SysfsError> {
        let path = Path::new("/sys/kernel/iommu_groups")
            .join(group.to_string())
            .join("devices");
        let names = self
            .tree
            .list(&path)
            .map_err(|source| SysfsError::Read { path, source })?;
        let mut members: Vec<Bdf> = names.iter().filter_map(|name| name.parse().ok()).collect();
        members.sort_unstable();
        members.into_iter().map(|bdf| self.function(bdf)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use vmm_sys_util::tempdir::TempDir;

    /// A made-up host: the functions given as (address, class, ids, driver, group).
    pub(crate) struct Host {
        pub dir: TempDir,
    }

    impl Host {
        pub(crate) fn new() -> Self {
            Self {
                dir: TempDir::new().unwrap(),
            }
        }

        pub(crate) fn sysfs(&self) -> Sysfs {
            Sysfs::at(self.dir.as_path())
        }

        pub(crate) fn with(self, bdf: &str, class: u32, driver: Option<&str>, group: Option<u32>) -> Self {
            let root = self.dir.as_path().to_owned();
            let path = root.join("sys/bus/pci/devices").join(bdf);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("vendor"), "0x10de\n").unwrap();
            std::fs::write(path.join("device"), "0x1401\n").unwrap();
            std::fs::write(path.join("class"), format!("0x{class:06x}\n")).unwrap();
            std::fs::write(
                path.join("resource"),
                "0x00000000f6000000 0x00000000f6ffffff 0x0000000000040200\n0x0 0x0 0x0\n",
            )
            .unwrap();
            if let Some(driver) = driver {
                symlink(format!("../../../../bus/pci/drivers/{driver}"), path.join("driver")).unwrap();
            }
            if let Some(group) = group {
                let group_dir = root.join("sys/kernel/iommu_groups").join(group.to_string());
                std::fs::create_dir_all(group_dir.join("devices")).unwrap();
                symlink(&group_dir, path.join("iommu_group")).unwrap();
                symlink(&path, group_dir.join("devices").join(bdf)).unwrap();
            }
            self
        }
    }

    #[test]
    fn addresses_are_read_as_lspci_writes_them() {
        let gpu: Bdf = "01:00.1".parse().unwrap();
        assert_eq!(
            gpu,
            Bdf {
                domain: 0,
                bus: 1,
                device: 0,
                function: 1
            }
        );
        assert_eq!(gpu.to_string(), "0000:01:00.1");
        assert_eq!("10000:e1:1f.7".parse::<Bdf>().unwrap().to_string(), "10000:e1:1f.7");
        assert_eq!(Bdf::from_devfn(0, 0, 0xfb).to_string(), "0000:00:1f.3");
        assert_eq!("00:1f.3".parse::<Bdf>().unwrap().devfn(), 0xfb);
        for bad in [
            "",
            "01:00",
            "01:20.0",
            "01:00.8",
            "001:00.0",
            "x:01:00.0",
            "01:00.0.0",
            "0000:+1:00.0",
        ] {
            assert!(bad.parse::<Bdf>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_sort_by_place() {
        let mut all: Vec<Bdf> = ["0001:00:00.0", "02:00.0", "01:00.1", "01:00.0"]
            .map(|t| t.parse().unwrap())
            .into();
        all.sort_unstable();
        assert_eq!(
            all.iter().map(Bdf::to_string).collect::<Vec<_>>()[..2],
            ["0000:01:00.0", "0000:01:00.1"]
        );
        assert!(all[0].same_slot(&all[1]) && !all[1].same_slot(&all[2]));
    }

    #[test]
    fn facts_come_from_the_tree() {
        let host = Host::new().with("0000:01:00.0", 0x030000, Some("nouveau"), Some(7));
        std::fs::write(
            host.dir.as_path().join("sys/bus/pci/devices/0000:01:00.0/boot_vga"),
            "1\n",
        )
        .unwrap();
        let gpu = host.sysfs().function("01:00.0".parse().unwrap()).unwrap();
        assert_eq!(
            (gpu.vendor, gpu.device, gpu.class, gpu.group),
            (0x10de, 0x1401, 0x030000, Some(7))
        );
        assert_eq!((gpu.driver.as_deref(), gpu.boot_vga), (Some("nouveau"), Some(true)));
        assert_eq!(gpu.resources[0].size, 0x100_0000);
        assert_eq!(gpu.resources[1].size, 0);
        assert!(gpu.is_display() && !gpu.is_bridge() && !gpu.on_vfio());
    }

    #[test]
    fn a_missing_function_is_named() {
        let error = Host::new()
            .sysfs()
            .function("05:00.0".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("0000:05:00.0") && error.contains("lspci"), "{error}");
    }
}
