//! The lab host's first and only root: busybox, kernel modules, the monitor, the firmware.

pub mod modules;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{self, CommandError};
use super::cpio::Archive;
use super::product::Product;
use super::store::{Root, Set, Store, StoreError};
use modules::{Closure, Modules, ModulesError};

/// Loaded at boot, in this order.
const LOADED: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "kvm_amd",
    "vfio_iommu_type1",
    "vfio_pci",
    "pci_stub",
];

/// Carried along for scenarios that load them themselves.
const CARRIED: &[&str] = &[
    "nvme",
    "e1000e",
    "igb",
    "xhci_pci",
    "usbhid",
    "hid_generic",
    "usb_storage",
    "virtio_blk",
    "sd_mod",
];

/// What makes up a base archive: raise it when this file's idea of the contents changes.
const RECIPE: u32 = 2;

/// What can go wrong when the archive is made.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The store has not what is needed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// busybox does not run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Kernel modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// A file could not be used.
    #[error("{action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> InitramfsError + 'a {
    move |source| InitramfsError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// The base archive for a set: everything that does not change from run to run. Made once and kept in the store.
///
/// # Errors
/// When something it is made of is missing or cannot be written.
pub fn base(store: &Store, root: &Root) -> Result<PathBuf, InitramfsError> {
    let dir = store.dir().join("initramfs");
    let scripts = [include_str!("init.sh"), include_str!("lab.sh")];
    // The scripts are part of the name: a change of theirs is a new archive without anybody's raising a number.
    let sum = scripts
        .iter()
        .flat_map(|text| text.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let folder = root.path().file_name().unwrap_or_default().to_string_lossy();
    let path = dir.join(format!("base-{folder}-{RECIPE}-{sum:016x}.cpio"));
    if path.exists() {
        return Ok(path);
    }
    let _lock = store.lock("initramfs")?;
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&dir).map_err(failed("cannot make", &dir))?;
    let bytes = build_base(root)?;
    let work = path.with_extension("part");
    fs::write(&work, bytes).map_err(failed("cannot write", &work))?;
    fs::rename(&work, &path).map_err(failed("cannot move into place", &path))?;
    Ok(path)
}

fn build_base(root: &Root) -> Result<Vec<u8>, InitramfsError> {
    let write = failed("cannot write the archive in memory for", root.path());
    let release = root.kernel_release()?;
    let Closure { files, index } =
        Modules::read(&root.file(format!("usr/lib/modules/{release}"))?)?.closure(&[LOADED, CARRIED].concat())?;
    let busybox = root.file("usr/bin/busybox")?;
    // Static, and for this very architecture: it can be asked here.
    let applets = command::run(Command::new(&busybox).arg("--list"))?;
    let busybox = fs::read(&busybox).map_err(failed("cannot read", &busybox))?;
    let descriptors = root.file("usr/share/qemu/firmware")?;
    let mut archive = Archive::new(Vec::new());
    let mut fill = || -> io::Result<()> {
        for dir in [
            "proc", "sys", "dev", "tmp", "run", "root", "out", "store", "sets", "etc", "var", "usr/sbin",
        ] {
            archive.dir(dir)?;
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            archive.link(dir, &format!("usr/{dir}"))?;
        }
        // Before devtmpfs is mounted, PID 1 has nothing else to speak on.
        archive.character_device("dev/console", 0o600, (5, 1))?;
        archive.file("usr/bin/busybox", 0o755, &busybox)?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            archive.link(&format!("usr/bin/{applet}"), "busybox")?;
        }
        archive.file("init", 0o755, include_bytes!("init.sh"))?;
        archive.file("etc/lab.sh", 0o644, include_bytes!("lab.sh"))?;
        archive.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        )?;
        archive.file("etc/group", 0o644, b"root:x:0:\nkvm:x:104:\nnogroup:x:65534:\n")?;
        archive.file("etc/modules", 0o644, LOADED.join("\n").as_bytes())?;
        for (name, data) in &files {
            archive.file(&format!("usr/lib/modules/{release}/{name}"), 0o644, data)?;
        }
        archive.file(
            &format!("usr/lib/modules/{release}/modules.dep"),
            0o644,
            index.as_bytes(),
        )?;
        archive.copy(&descriptors, "usr/share/qemu/firmware")
    };
    fill().map_err(write)?;
    archive
        .finish()
        .map_err(failed("cannot end the archive of", root.path()))
}

/// What one run adds to the base.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Files and folders of this machine, each with its absolute path in the lab host.
    pub files: Vec<(PathBuf, String)>,
    /// A folder whose `*.fd` files take the place of the set's OVMF.
    pub firmware: Option<PathBuf>,
}

/// The second archive: the monitor and agent as just built, the firmware, and the caller's files.
///
/// # Errors
/// When a file cannot be read.
pub fn extra(root: &Root, product: &Product, extra: &Extra) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = Archive::new(Vec::new());
    for set in Set::ALL {
        // Scripts find the sets by a name that does not change with their recipe.
        let folder = Store::folder(set);
        let name = format!("sets/{}", set.name());
        archive
            .link(&name, &format!("/store/sets/{folder}"))
            .map_err(failed("cannot pack", Path::new("sets")))?;
    }
    let mut copy = |from: &Path, to: &str| {
        archive
            .copy(from, to.trim_start_matches('/'))
            .map_err(failed("cannot pack", from))
    };
    copy(&product.tenon, "usr/bin/tenon")?;
    copy(&product.agent, "usr/bin/lab-agent")?;
    let firmware = match &extra.firmware {
        Some(dir) => dir.clone(),
        None => root.file("usr/share/OVMF")?,
    };
    copy(&firmware, "usr/share/OVMF")?;
    for (from, to) in &extra.files {
        copy(from, to)?;
    }
    archive
        .finish()
        .map_err(failed("cannot end the archive of", root.path()))
}
