//! Who has a function open: the processes whose descriptors lead to a device file of the function, or of anything that
//! its driver made of it (disks, sound cards, displays, input devices).

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::{Bdf, HostTree, Sysfs};

/// How deep below a function its driver's devices are looked for; a disk behind USB storage is nine levels down.
const DEPTH: usize = 12;
/// An end to the search, whatever a tree looks like.
const MOST_DIRECTORIES: usize = 4096;

/// What becomes of a process that has a device file open when the driver is unbound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grip {
    /// It is told that the device is gone, and nothing waits for it: USB, input, NVMe's control files.
    Yields,
    /// It is told that the device is gone, and the driver waits until it closes the file: sound.
    Waits,
    /// The driver waits without telling it, or data or the picture is lost: disks, displays, VFIO, and what is not known.
    Holds,
}

/// A process that has a device file of a function open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// What it calls itself.
    pub name: String,
    /// The device file.
    pub file: PathBuf,
    /// What unbinding means to it.
    pub grip: Grip,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}: {})", self.name, self.pid, self.file.display())
    }
}

/// The holders on one line.
pub(super) fn list(holders: &[Holder]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A device file, by its path in `/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeviceFile {
    path: PathBuf,
    grip: Grip,
}

/// The processes that hold a function, in order of their IDs. What this process may not look at is left out, so it takes
/// root to see all.
pub fn holders(tree: &HostTree, bdf: Bdf) -> Vec<Holder> {
    DeviceFiles::of(tree, bdf).holders(tree)
}

/// The device files of a function, to be found while its driver still has it: the first thing that a driver does when it
/// is unbound is to remove them, and only then it waits for those who have them open.
#[derive(Debug)]
pub(super) struct DeviceFiles(Vec<DeviceFile>);

impl DeviceFiles {
    /// Those of a function now.
    pub(super) fn of(tree: &HostTree, bdf: Bdf) -> Self {
        Self(device_files(tree, bdf))
    }

    /// The processes that have one of them open now, in order of their IDs.
    pub(super) fn holders(&self, tree: &HostTree) -> Vec<Holder> {
        match self.0.as_slice() {
            [] => Vec::new(),
            files => open_in(tree, files),
        }
    }
}

fn open_in(tree: &HostTree, files: &[DeviceFile]) -> Vec<Holder> {
    let mut pids: Vec<u32> = tree
        .list("/proc")
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().flat_map(|pid| held_by(tree, pid, files)).collect()
}

/// The files of these that one process has open, each once.
fn held_by(tree: &HostTree, pid: u32, files: &[DeviceFile]) -> Vec<Holder> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let fds = process.join("fd");
    let mut held: Vec<Holder> = Vec::new();
    for fd in tree.list(&fds).unwrap_or_default() {
        let Ok(target) = tree.link(fds.join(fd)) else { continue };
        let Some(file) = files.iter().find(|file| file.is_at(&target)) else {
            continue;
        };
        if held.iter().all(|holder| holder.file != file.path) {
            let name = tree.text(process.join("comm")).unwrap_or_else(|_| "?".to_owned());
            held.push(Holder {
                pid,
                name,
                file: file.path.clone(),
                grip: file.grip,
            });
        }
    }
    held
}

/// The device files of a function.
fn device_files(tree: &HostTree, bdf: Bdf) -> Vec<DeviceFile> {
    let function = Sysfs::function_path(bdf);
    let mut files = below(tree, &function);
    // The group's file stands for all functions in it; the descriptors of devices got through it have no name.
    if let Some(group) = tree.link_name(function.join("iommu_group")) {
        files.push(DeviceFile {
            path: Path::new("/dev/vfio").join(group),
            grip: Grip::Holds,
        });
    }
    if tree.link_name(function.join("driver")).as_deref() == Some("nvidia") {
        files.extend(nvidia(tree, bdf));
    }
    files
}

impl DeviceFile {
    /// Whether a descriptor leads to it. The kernel marks files that were removed since.
    fn is_at(&self, target: &Path) -> bool {
        let name = target.as_os_str().as_encoded_bytes();
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        self.path.as_os_str().as_encoded_bytes() == name
    }
}

/// What the function's driver and those above it made: each directory below the function's that has a `dev`.
fn below(tree: &HostTree, function: &Path) -> Vec<DeviceFile> {
    let Ok(top) = tree.real(function) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    let mut ahead = vec![(top, 0)];
    let mut seen = 0;
    while let Some((directory, depth)) = ahead.pop() {
        seen += 1;
        if seen > MOST_DIRECTORIES {
            break;
        }
        for name in tree.list(&directory).unwrap_or_default() {
            let path = directory.join(&name);
            // Links lead to other devices; real directories are this one's own.
            let inside = depth < DEPTH && tree.link(&path).is_err() && tree.is_dir(&path);
            if inside && name != "power" {
                ahead.push((path, depth + 1));
            } else if name == "dev" {
                files.extend(device_file(tree, &directory));
            }
        }
    }
    files
}

fn device_file(tree: &HostTree, directory: &Path) -> Option<DeviceFile> {
    let uevent = tree.text(directory.join("uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let subsystem = tree.link_name(directory.join("subsystem")).unwrap_or_default();
    Some(DeviceFile {
        path: Path::new("/dev").join(name),
        grip: grip(&subsystem),
    })
}

/// By the class of the device file. `snd_card_free` waits for each open file; a block device that goes takes what was not
/// written with it; a display's driver waits or takes its compositor down.
fn grip(subsystem: &str) -> Grip {
    match subsystem {
        "sound" => Grip::Waits,
        "usb" | "usbmisc" | "input" | "hidraw" | "nvme" | "nvme-generic" | "net" | "rtc" | "ptp" => Grip::Yields,
        _ => Grip::Holds,
    }
}

/// The proprietary driver's files stand nowhere in `/sys`. One is the card's own; the others serve all cards, so they say
/// something of this one only where it is the only one.
fn nvidia(tree: &HostTree, bdf: Bdf) -> Vec<DeviceFile> {
    let cards = Path::new("/proc/driver/nvidia/gpus");
    let information = tree
        .text(cards.join(bdf.to_string()).join("information"))
        .unwrap_or_default();
    let minor = information
        .lines()
        .find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse::<u32>().ok());
    let mut names: Vec<String> = minor.map(|minor| format!("nvidia{minor}")).into_iter().collect();
    if tree.list(cards).is_ok_and(|cards| cards.len() == 1) {
        names.extend(["nvidiactl", "nvidia-modeset", "nvidia-uvm"].map(str::to_owned));
    }
    let file = |name: String| DeviceFile {
        path: Path::new("/dev").join(name),
        grip: Grip::Holds,
    };
    names.into_iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sysfs::tests::Host;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A device file's directory below a function, and a process that has the file open.
    fn with_device(host: &Host, bdf: &str, place: &str, subsystem: &str, name: &str) {
        let directory = host.dir.as_path().join("sys/bus/pci/devices").join(bdf).join(place);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("dev"), "1:2\n").unwrap();
        fs::write(directory.join("uevent"), format!("MAJOR=1\nDEVNAME={name}\n")).unwrap();
        symlink(format!("/sys/class/{subsystem}"), directory.join("subsystem")).unwrap();
    }

    fn with_process(host: &Host, pid: u32, name: &str, open: &[&str]) {
        let process = host.dir.as_path().join(format!("proc/{pid}"));
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), format!("{name}\n")).unwrap();
        for (number, file) in open.iter().enumerate() {
            symlink(file, process.join("fd").join(number.to_string())).unwrap();
        }
    }

    fn of(host: &Host, bdf: &str) -> Vec<(u32, String, Grip)> {
        let found = holders(host.sysfs().tree(), bdf.parse().unwrap());
        found
            .into_iter()
            .map(|holder| {
                (
                    holder.pid,
                    format!("{} {}", holder.name, holder.file.display()),
                    holder.grip,
                )
            })
            .collect()
    }

    #[test]
    fn openers_of_what_a_driver_made_are_found() {
        let host = Host::new()
            .with("0000:01:00.0", 0x030000, Some("amdgpu"), Some(1))
            .with("0000:01:00.1", 0x040300, Some("snd_hda_intel"), Some(1))
            .with("0000:02:00.0", 0x0c0330, Some("xhci_hcd"), Some(2));
        with_device(&host, "0000:01:00.0", "drm/card1", "drm", "dri/card1");
        with_device(&host, "0000:01:00.1", "sound/card1/pcmC1D3p", "sound", "snd/pcmC1D3p");
        let disk = "usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb/sdb1";
        with_device(&host, "0000:02:00.0", disk, "block", "sdb1");
        with_device(&host, "0000:02:00.0", "usb2", "usb", "bus/usb/002/001");
        with_process(
            &host,
            41,
            "wireplumber",
            &["/dev/snd/pcmC1D3p", "/dev/snd/pcmC1D3p", "/dev/null"],
        );
        with_process(&host, 7, "Xorg", &["/dev/tty7", "/dev/dri/card1"]);
        with_process(&host, 90, "dd", &["/dev/sdb1 (deleted)", "socket:[12]"]);

        assert_eq!(of(&host, "01:00.0"), [(7, "Xorg /dev/dri/card1".into(), Grip::Holds)]);
        assert_eq!(
            of(&host, "01:00.1"),
            [(41, "wireplumber /dev/snd/pcmC1D3p".into(), Grip::Waits)]
        );
        assert_eq!(of(&host, "02:00.0"), [(90, "dd /dev/sdb1".into(), Grip::Holds)]);
        assert!(of(&host, "05:00.0").is_empty());
    }

    #[test]
    fn a_group_is_held_by_its_virtual_machine() {
        let host = Host::new().with("0000:01:00.1", 0x040300, Some("vfio-pci"), Some(14));
        with_process(
            &host,
            900,
            "tenon",
            &["/dev/vfio/vfio", "/dev/vfio/14", "anon_inode:[vfio-device]"],
        );
        with_process(&host, 901, "tenon", &["/dev/vfio/vfio", "/dev/vfio/1"]);
        assert_eq!(of(&host, "01:00.1"), [(900, "tenon /dev/vfio/14".into(), Grip::Holds)]);
    }

    #[test]
    fn nvidia_has_files_of_its_own() {
        let host = Host::new().with("0000:01:00.0", 0x030000, Some("nvidia"), None);
        let gpus = host.dir.as_path().join("proc/driver/nvidia/gpus");
        fs::create_dir_all(gpus.join("0000:01:00.0")).unwrap();
        fs::write(
            gpus.join("0000:01:00.0/information"),
            "Model: \t\t GeForce\nDevice Minor: \t 1\n",
        )
        .unwrap();
        with_process(&host, 5, "nvidia-persiste", &["/dev/nvidia1"]);
        with_process(&host, 6, "python3", &["/dev/nvidiactl", "/dev/nvidia0"]);
        assert_eq!(of(&host, "01:00.0").len(), 2);
        // With a second card, the file of all cards proves nothing.
        fs::create_dir_all(gpus.join("0000:02:00.0")).unwrap();
        assert_eq!(
            of(&host, "01:00.0"),
            [(5, "nvidia-persiste /dev/nvidia1".into(), Grip::Holds)]
        );
    }

    #[test]
    fn circles_end() {
        let host = Host::new().with("0000:01:00.0", 0x030000, None, None);
        let function = host.dir.as_path().join("sys/bus/pci/devices/0000:01:00.0");
        symlink("..", function.join("up")).unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 60).collect();
        fs::create_dir_all(function.join(deep)).unwrap();
        assert!(of(&host, "01:00.0").is_empty());
    }
}
