//! Root trees of the distributions, with the devices of two hosts.

mod distributions;
mod hostile;
mod random;
mod wrong;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use vmm_sys_util::tempdir::TempDir;

use super::*;
use crate::host::{Bdf, HostTree};

/// Address, class, IDs, driver, group.
type Line = (&'static str, u32, (u16, u16), Option<&'static str>, u32);

/// The machine of the procedure that tenon replaces: an Ivy Bridge with a GTX 960.
pub(super) const Z77: &[Line] = &[
    ("0000:00:00.0", 0x060000, (0x8086, 0x0150), None, 0),
    ("0000:00:01.0", 0x060400, (0x8086, 0x0151), Some("pcieport"), 1),
    ("0000:00:02.0", 0x030000, (0x8086, 0x0152), Some("i915"), 2),
    ("0000:00:1b.0", 0x040300, (0x8086, 0x1e20), Some("snd_hda_intel"), 6),
    ("0000:01:00.0", 0x030000, (0x10de, 0x1401), Some("nouveau"), 1),
    ("0000:01:00.1", 0x040300, (0x10de, 0x0fba), Some("snd_hda_intel"), 1),
];

/// Two cards of one make, of which one stays with the host, and a USB controller.
pub(super) const TWINS: &[Line] = &[
    ("0000:02:00.0", 0x030000, (0x1002, 0x73bf), Some("amdgpu"), 14),
    ("0000:02:00.1", 0x040300, (0x1002, 0xab28), Some("snd_hda_intel"), 15),
    ("0000:03:00.0", 0x0c0330, (0x1912, 0x0014), Some("xhci_pci"), 16),
    ("0000:0a:00.0", 0x030000, (0x1002, 0x73bf), Some("amdgpu"), 21),
    ("0000:0a:00.1", 0x040300, (0x1002, 0xab28), Some("snd_hda_intel"), 22),
];

/// A directory in memory where there is one: what is written is synced, which takes its time on a disk.
pub(super) fn in_memory() -> TempDir {
    TempDir::new_in(Path::new("/dev/shm"))
        .or_else(|_| TempDir::new())
        .unwrap()
}

/// A host with these functions.
pub(super) fn host(functions: &[Line], vendor: &str, cmdline: &str) -> (TempDir, HostTree) {
    let dir = in_memory();
    let root = dir.as_path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/cpuinfo", &format!("processor\t: 0\nvendor_id\t: {vendor}\n"));
    write("proc/cmdline", cmdline);
    for (bdf, class, (vendor, device), driver, group) in functions {
        let path = format!("sys/bus/pci/devices/{bdf}");
        write(&format!("{path}/vendor"), &format!("0x{vendor:04x}\n"));
        write(&format!("{path}/device"), &format!("0x{device:04x}\n"));
        write(&format!("{path}/class"), &format!("0x{class:06x}\n"));
        write(&format!("{path}/resource"), "0x0 0x0 0x0\n");
        let members = root.join(format!("sys/kernel/iommu_groups/{group}/devices"));
        std::fs::create_dir_all(&members).unwrap();
        symlink(format!("../../../bus/pci/devices/{bdf}"), members.join(bdf)).unwrap();
        let link = format!("../../../../kernel/iommu_groups/{group}");
        symlink(link, root.join(&path).join("iommu_group")).unwrap();
        if let Some(driver) = driver {
            let target = format!("../../../../bus/pci/drivers/{driver}");
            symlink(target, root.join(&path).join("driver")).unwrap();
        }
    }
    let tree = HostTree::at(root);
    (dir, tree)
}

pub(super) fn z77() -> (TempDir, HostTree) {
    host(Z77, "GenuineIntel", "root=/dev/sda1 ro quiet\n")
}

pub(super) fn bdfs(texts: &[&str]) -> Vec<Bdf> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(super) fn resources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/distributions")
}

/// Copies a tree with its links and modes.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(path.read_link().unwrap(), target).unwrap();
        } else if kind.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What stands at a path: content and mode, or where a link points, or nothing more of a directory.
pub(super) type Snapshot = BTreeMap<PathBuf, (Vec<u8>, u32)>;

pub(super) fn snapshot(root: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                let target = path.read_link().unwrap();
                all.insert(name, (target.into_os_string().into_encoded_bytes(), 0));
            } else if kind.is_dir() {
                all.insert(name, (b"folder".to_vec(), 0));
                folders.push(path);
            } else {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                all.insert(name, (std::fs::read(&path).unwrap(), mode));
            }
        }
    }
    all
}

/// A distribution's tree, in a directory of its own.
pub(super) struct Installed {
    pub dir: TempDir,
}

impl Installed {
    pub(super) fn of(distribution: &str) -> Self {
        let dir = in_memory();
        copy(&resources().join(distribution).join("root"), dir.as_path());
        Self { dir }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.as_path()
    }

    pub(super) fn tree(&self) -> HostTree {
        HostTree::at(self.path())
    }

    pub(super) fn plan(&self, host: &HostTree, named: &[&str]) -> BootPlan {
        BootPlan::for_system(host, &self.tree(), &bdfs(named), false).unwrap()
    }

    pub(super) fn carry_out(&self, edits: &Edits) {
        Root::open(self.path()).unwrap().carry_out(edits).unwrap();
    }

    pub(super) fn apply(&self, plan: &BootPlan) -> Edits {
        let edits = Edits::applying(plan, &self.tree()).unwrap();
        self.carry_out(&edits);
        edits
    }

    pub(super) fn remove(&self) -> Edits {
        let edits = Edits::undoing(&self.tree()).unwrap();
        self.carry_out(&edits);
        edits
    }

    pub(super) fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).unwrap()
    }

    pub(super) fn replace(&self, path: &str, old: &str, new: &str) {
        let text = self.text(path);
        assert!(text.contains(old), "{path} holds no {old}: {text}");
        std::fs::write(self.path().join(path), text.replace(old, new)).unwrap();
    }
}
