//! Which functions the host's file systems and swap are on: from the mount down through device mapper (LVM, LUKS),
//! md, bcache, loop devices, NVMe multipath, btrfs and ZFS to the disk, and from the disk to its controller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::mounts::{self, Mount};
use super::{Found, Use};
use crate::host::{Bdf, HostTree};

/// More layers than anyone stacks.
const DEEPEST: u32 = 16;

/// More file systems than any host mounts, and more steps down than they need: a capture may hold a maze.
const MOST_PLACES: usize = 4096;
const MOST_STEPS: usize = 16_384;

pub(super) fn find(found: &mut Found<'_>) {
    let mounts = Mount::all(found.tree);
    let mut disks = Disks {
        mounts: &mounts,
        ..Disks::of(found.tree)
    };
    let mut uses: BTreeSet<(String, Use)> = BTreeSet::new();
    // Containers mount one file system at a hundred places: the shortest says it.
    let mut places: BTreeMap<(&str, &str), &Mount> = BTreeMap::new();
    for mount in &mounts {
        let shortest = places.entry((&mount.device, &mount.source)).or_insert(mount);
        if mount.at.len() < shortest.at.len() {
            *shortest = mount;
        }
    }
    for mount in places.into_values().take(MOST_PLACES) {
        for disk in disks.under_mount(mount, DEEPEST) {
            let at = mount.at.clone();
            uses.insert((disk.clone(), Use::Mount { at, disk }));
        }
    }
    for (on, is_file) in swaps(found.tree) {
        let names = match is_file {
            true => disks.under_file(&on, DEEPEST),
            false => disks
                .named(&on)
                .map(|name| disks.under(&name, DEEPEST))
                .unwrap_or_default(),
        };
        for disk in names {
            let on = on.clone();
            uses.insert((disk.clone(), Use::Swap { on, disk }));
        }
    }
    for (disk, what) in uses {
        for owner in controllers(found, &disk) {
            found.add(owner, what.clone());
        }
    }
}

/// `/proc/swaps`: what is swapped to, and whether that is a file.
fn swaps(tree: &HostTree) -> Vec<(String, bool)> {
    let text = tree.text("/proc/swaps").unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((mounts::unescaped(words.next()?), words.next()? == "file"))
        })
        .collect()
}

/// The functions that drive a disk; an NVMe name space with several controllers has several.
fn controllers(found: &Found<'_>, disk: &str) -> Vec<Bdf> {
    let path = format!("/sys/class/block/{disk}");
    let Ok(real) = found.tree.real(path.as_ref()) else {
        return Vec::new();
    };
    let mut subsystem = PathBuf::new();
    let mut in_subsystem = false;
    for part in &real {
        subsystem.push(part);
        if in_subsystem {
            let members = found.tree.list(&subsystem).unwrap_or_default();
            return members
                .iter()
                .filter(|name| name.starts_with("nvme"))
                .flat_map(|name| found.owners(subsystem.join(name)))
                .collect();
        }
        in_subsystem = part == "nvme-subsystem";
    }
    found.owners(path)
}

/// The block devices of a host.
struct Disks<'t> {
    tree: &'t HostTree,
    mounts: &'t [Mount],
    /// Device mapper names to kernel names, read when first wanted.
    mapped: Option<BTreeMap<String, String>>,
    /// btrfs file systems, each the block devices it is on.
    btrfs: Option<Vec<Vec<String>>>,
    /// ZFS pools, each the disks it is on.
    pools: BTreeMap<String, BTreeSet<String>>,
    /// Steps that may still be taken.
    steps: usize,
}

impl<'t> Disks<'t> {
    fn of(tree: &'t HostTree) -> Self {
        Self {
            tree,
            mounts: &[],
            mapped: None,
            btrfs: None,
            pools: BTreeMap::new(),
            steps: MOST_STEPS,
        }
    }

    /// The disks that a file system is on.
    fn under_mount(&mut self, mount: &Mount, depth: u32) -> BTreeSet<String> {
        if mount.kind == "zfs" {
            return self.under_pool(mount.source.split('/').next().unwrap_or_default(), depth);
        }
        let mut devices = Vec::new();
        if !mount.device.starts_with("0:")
            && let Ok(path) = self.tree.real(format!("/sys/dev/block/{}", mount.device).as_ref())
        {
            devices.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
        if devices.is_empty() {
            // bcachefs names all its devices.
            let sources = mount.source.split(':').filter(|source| source.starts_with("/dev/"));
            devices.extend(sources.filter_map(|source| self.named(source)));
        }
        if mount.kind == "btrfs" {
            let others = self.btrfs_with(&devices);
            devices.extend(others);
        }
        devices.iter().flat_map(|name| self.under(name, depth)).collect()
    }

    /// The disks that a file is on.
    fn under_file(&mut self, path: &str, depth: u32) -> BTreeSet<String> {
        match mounts::holding(self.mounts, path).cloned() {
            Some(mount) if depth > 0 => self.under_mount(&mount, depth - 1),
            _ => BTreeSet::new(),
        }
    }

    /// The disks below a block device, itself if there is nothing below.
    fn under(&mut self, name: &str, depth: u32) -> BTreeSet<String> {
        let path = format!("/sys/class/block/{name}");
        let (Some(depth), Some(steps)) = (depth.checked_sub(1), self.steps.checked_sub(1)) else {
            return BTreeSet::new();
        };
        self.steps = steps;
        if let Ok(backing) = self.tree.text(format!("{path}/loop/backing_file")) {
            return self.under_file(&backing, depth);
        }
        let below = self.tree.list(format!("{path}/slaves")).unwrap_or_default();
        if !below.is_empty() {
            return below.iter().flat_map(|name| self.under(name, depth)).collect();
        }
        if self.tree.exists(format!("{path}/partition"))
            && let Some(disk) = self.tree.real(path.as_ref()).ok().and_then(|path| {
                let parent = path.parent()?.file_name()?.to_str()?;
                Some(parent.to_owned())
            })
        {
            return BTreeSet::from([disk]);
        }
        match self.tree.exists(&path) {
            true => BTreeSet::from([name.to_owned()]),
            false => BTreeSet::new(),
        }
    }

    /// The kernel's name of what is at a path in `/dev`, which a capture need not have.
    fn named(&mut self, path: &str) -> Option<String> {
        let name = path.strip_prefix("/dev/")?;
        let known = |name: String| self.tree.exists(format!("/sys/class/block/{name}")).then_some(name);
        // `/dev/cciss/c0d0` is `cciss!c0d0` in `/sys`.
        if let Some(name) = known(name.replace('/', "!")) {
            return Some(name);
        }
        if let Some(name) = self
            .tree
            .real(path.as_ref())
            .ok()
            .and_then(|path| known(path.file_name()?.to_str()?.to_owned()))
        {
            return Some(name);
        }
        let mapped = match name.split_once('/')? {
            ("mapper", name) => name.to_owned(),
            // Device mapper doubles the dashes in the names of a volume group and a volume.
            (group, volume) => format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--")),
        };
        self.mapped().get(&mapped).cloned()
    }

    fn mapped(&mut self) -> &BTreeMap<String, String> {
        let tree = self.tree;
        self.mapped.get_or_insert_with(|| {
            let names = tree.list("/sys/class/block").unwrap_or_default();
            let mapper = names.into_iter().filter(|name| name.starts_with("dm-"));
            mapper
                .filter_map(|name| Some((tree.text(format!("/sys/class/block/{name}/dm/name")).ok()?, name)))
                .collect()
        })
    }

    /// The other devices of the btrfs file systems that are on one of these.
    fn btrfs_with(&mut self, devices: &[String]) -> Vec<String> {
        let tree = self.tree;
        let all = self.btrfs.get_or_insert_with(|| {
            let systems = tree.list("/sys/fs/btrfs").unwrap_or_default();
            let members = |id: &String| tree.list(format!("/sys/fs/btrfs/{id}/devices")).ok();
            systems.iter().filter_map(members).collect()
        });
        all.iter()
            .filter(|members| members.iter().any(|member| devices.contains(member)))
            .flatten()
            .filter(|member| !devices.contains(member))
            .cloned()
            .collect()
    }

    /// The disks of a ZFS pool. ZFS does not say in files; udev's notes on the disks do.
    fn under_pool(&mut self, pool: &str, depth: u32) -> BTreeSet<String> {
        if let Some(disks) = self.pools.get(pool) {
            return disks.clone();
        }
        let label = format!("E:ID_FS_LABEL={pool}");
        let names = self.tree.list("/sys/class/block").unwrap_or_default();
        let mut disks = BTreeSet::new();
        for name in names {
            self.steps = self.steps.saturating_sub(1);
            if self.steps == 0 {
                break;
            }
            let Ok(device) = self.tree.text(format!("/sys/class/block/{name}/dev")) else {
                continue;
            };
            let notes = self.tree.text(format!("/run/udev/data/b{device}")).unwrap_or_default();
            let mut lines = notes.lines();
            if notes.contains("E:ID_FS_TYPE=zfs_member") && lines.any(|line| line == label) {
                disks.extend(self.under(&name, depth));
            }
        }
        self.pools.insert(pool.to_owned(), disks.clone());
        disks
    }
}
