//! Small hosts, each a directory, on which the uses are found.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use vmm_sys_util::tempdir::TempDir;

use crate::host::survey::{Survey, Use};
use crate::host::{Bdf, HostTree};

struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { dir }
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.dir.as_path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    fn file(self, path: &str, text: &str) -> Self {
        std::fs::write(self.place(path), text).unwrap();
        self
    }

    /// A link from the root of the host, which a tree takes as its own.
    fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.place(path)).unwrap();
        self
    }

    /// A function at the end of a chain of addresses below `sys/devices/pci0000:00`.
    fn function(self, chain: &str, class: u32, driver: Option<&str>) -> Self {
        let bdf = chain.rsplit('/').next().unwrap();
        let path = format!("/sys/devices/pci0000:00/{chain}");
        let host = self
            .file(&format!("{path}/vendor"), "0x8086")
            .file(&format!("{path}/device"), "0x1234")
            .file(&format!("{path}/class"), &format!("0x{class:06x}"))
            .link(
                &format!("{path}/iommu_group"),
                &format!("/sys/kernel/iommu_groups/{}", class % 97),
            )
            .link(&format!("/sys/bus/pci/devices/{bdf}"), &path);
        match driver {
            Some(driver) => host.link(&format!("{path}/driver"), &format!("/sys/bus/pci/drivers/{driver}")),
            None => host,
        }
    }

    /// A block device whose directory is at `path`.
    fn block(self, path: &str, number: &str) -> Self {
        let name = path.rsplit('/').next().unwrap().to_owned();
        self.file(&format!("{path}/dev"), number)
            .link(&format!("/sys/class/block/{name}"), path)
            .link(&format!("/sys/dev/block/{number}"), path)
    }

    fn uses(&self, bdf: &str) -> Vec<Use> {
        let survey = Survey::of(&HostTree::at(self.dir.as_path())).unwrap();
        let bdf: Bdf = bdf.parse().unwrap();
        survey.get(bdf).unwrap().uses.clone()
    }
}

fn mount(at: &str, disk: &str) -> Use {
    let (at, disk) = (at.to_owned(), disk.to_owned());
    Use::Mount { at, disk }
}

const SATA: &str = "0000:00:17.0";
const SATA_DISK: &str = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";

fn sata() -> Host {
    Host::new()
        .function(SATA, 0x010601, Some("ahci"))
        .block(SATA_DISK, "8:0")
        .block(&format!("{SATA_DISK}/sda1"), "8:1")
        .file(&format!("{SATA_DISK}/sda1/partition"), "1")
}

#[test]
fn a_partition_is_on_its_disk() {
    let host = sata().file("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/root rw");
    assert_eq!(host.uses(SATA), [mount("/", "sda")]);
}

#[test]
fn lvm_over_luks_over_md_is_on_every_disk_below() {
    let nvme = "/sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0/nvme0n1";
    let host = sata()
        .function("0000:00:1d.0", 0x060400, Some("pcieport"))
        .function("0000:00:1d.0/0000:02:00.0", 0x010802, Some("nvme"))
        .block(nvme, "259:0")
        .block("/sys/devices/virtual/block/md0", "9:0")
        .link(
            "/sys/devices/virtual/block/md0/slaves/sda1",
            &format!("{SATA_DISK}/sda1"),
        )
        .link("/sys/devices/virtual/block/md0/slaves/nvme0n1", nvme)
        .block("/sys/devices/virtual/block/dm-0", "253:0")
        .file("/sys/devices/virtual/block/dm-0/dm/name", "luks-1234")
        .link(
            "/sys/devices/virtual/block/dm-0/slaves/md0",
            "/sys/devices/virtual/block/md0",
        )
        .block("/sys/devices/virtual/block/dm-1", "253:1")
        .file("/sys/devices/virtual/block/dm-1/dm/name", "fedora--server-root")
        .link(
            "/sys/devices/virtual/block/dm-1/slaves/dm-0",
            "/sys/devices/virtual/block/dm-0",
        )
        .file(
            "/proc/self/mountinfo",
            "22 1 253:1 / / rw - xfs /dev/mapper/fedora--server-root rw",
        )
        .file(
            "/proc/swaps",
            "Filename Type Size Used Priority\n/dev/fedora-server/root partition 1 0 -2\n",
        );
    let swap = |disk: &str| Use::Swap {
        on: "/dev/fedora-server/root".to_owned(),
        disk: disk.to_owned(),
    };
    assert_eq!(host.uses(SATA), [mount("/", "sda"), swap("sda")]);
    assert_eq!(host.uses("02:00.0"), [mount("/", "nvme0n1"), swap("nvme0n1")]);
    assert_eq!(host.uses("00:1d.0"), []);
}

#[test]
fn btrfs_is_on_all_its_devices_and_zfs_where_udev_says() {
    let other = "/sys/devices/pci0000:00/0000:00:1f.2/ata9/block/sdb";
    let third = "/sys/devices/pci0000:00/0000:00:1f.5/ata9/block/sdc";
    let host = sata()
        .function("0000:00:1f.2", 0x010601, Some("ahci"))
        .function("0000:00:1f.5", 0x010601, Some("ahci"))
        .block(other, "8:16")
        .block(third, "8:32")
        .link("/sys/fs/btrfs/0-1/devices/sda1", &format!("{SATA_DISK}/sda1"))
        .link("/sys/fs/btrfs/0-1/devices/sdb", other)
        .file("/run/udev/data/b8:32", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank")
        .file(
            "/proc/self/mountinfo",
            "22 1 0:31 /root /home rw - btrfs /dev/sda1 rw\n23 1 0:31 /h / rw - btrfs /dev/sda1 rw\n\
             24 1 0:40 / /tank/x rw - zfs tank/x rw",
        );
    assert_eq!(host.uses(SATA), [mount("/", "sda")]);
    assert_eq!(host.uses("00:1f.2"), [mount("/", "sdb")]);
    assert_eq!(host.uses("00:1f.5"), [mount("/tank/x", "sdc")]);
}

#[test]
fn loops_and_swap_files_are_on_the_disk_of_their_file() {
    let host = sata()
        .block("/sys/devices/virtual/block/loop3", "7:3")
        .file("/sys/devices/virtual/block/loop3/loop/backing_file", "/data/image.img")
        .file(
            "/proc/self/mountinfo",
            "22 1 8:1 / /data rw - ext4 /dev/sda1 rw\n23 1 7:3 / /mnt rw - ext4 /dev/loop3 rw",
        )
        .file(
            "/proc/swaps",
            "Filename Type Size Used Priority\n/data/swap\\040file file 1 0 -2\n",
        );
    let swap = Use::Swap {
        on: "/data/swap file".to_owned(),
        disk: "sda".to_owned(),
    };
    assert_eq!(host.uses(SATA), [mount("/data", "sda"), mount("/mnt", "sda"), swap]);
}

#[test]
fn a_loop_on_itself_has_an_end() {
    let host = sata()
        .block("/sys/devices/virtual/block/loop3", "7:3")
        .file("/sys/devices/virtual/block/loop3/loop/backing_file", "/image.img")
        .file("/proc/self/mountinfo", "23 1 7:3 / / rw - ext4 /dev/loop3 rw");
    assert_eq!(host.uses(SATA), []);
}

#[test]
fn nvme_name_spaces_are_on_all_their_controllers_and_on_the_vmd_before_them() {
    let subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    let vmd = "0000:00:0e.0/pci10000:00/10000:00:01.0/10000:01:00.0";
    let host = Host::new()
        .function("0000:00:0e.0", 0x010400, Some("vmd"))
        .function(vmd, 0x010802, Some("nvme"))
        .function("0000:05:00.0", 0x010802, Some("nvme"))
        .file(&format!("/sys/devices/pci0000:00/{vmd}/nvme/nvme0/state"), "live")
        .file("/sys/devices/pci0000:00/0000:05:00.0/nvme/nvme1/state", "live")
        .block(&format!("{subsystem}/nvme0n1"), "259:0")
        .link(
            &format!("{subsystem}/nvme0"),
            &format!("/sys/devices/pci0000:00/{vmd}/nvme/nvme0"),
        )
        .link(
            &format!("{subsystem}/nvme1"),
            "/sys/devices/pci0000:00/0000:05:00.0/nvme/nvme1",
        )
        .file("/proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw");
    for bdf in ["00:0e.0", "10000:01:00.0", "05:00.0"] {
        assert_eq!(host.uses(bdf), [mount("/", "nvme0n1")], "{bdf}");
    }
}

#[test]
fn routes_lead_through_bridges_and_bonds() {
    let net = |host: Host, bdf: &str, name: &str| {
        let path = format!("/sys/devices/pci0000:00/{bdf}/net/{name}");
        host.function(bdf, 0x020000, Some("e1000e"))
            .link(&format!("{path}/device"), &format!("/sys/devices/pci0000:00/{bdf}"))
            .link(&format!("/sys/class/net/{name}"), &path)
    };
    let host = net(net(Host::new(), "0000:00:19.0", "eno1"), "0000:00:1a.0", "eno2");
    let host = net(host, "0000:00:1b.0", "eno3")
        .file("/sys/class/net/br0/brif/bond0.7", "")
        .file("/sys/class/net/bond0.7/lower_bond0", "")
        .file("/sys/class/net/bond0/lower_eno1", "")
        .file("/sys/class/net/bond0/lower_eno2", "")
        .file(
            "/proc/net/route",
            "Iface Destination\nbr0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n",
        );
    let through = |interface: &str| Use::DefaultRoute {
        through: "br0".to_owned(),
        interface: interface.to_owned(),
    };
    assert_eq!(host.uses("00:19.0"), [through("eno1")]);
    assert_eq!(host.uses("00:1a.0"), [through("eno2")]);
    assert_eq!(host.uses("00:1b.0"), []);
}

#[test]
fn the_only_display_is_the_last_that_the_host_has() {
    let card = |driver| {
        Host::new()
            .function("0000:00:02.0", 0x030000, Some("i915"))
            .function("0000:01:00.0", 0x030000, driver)
            .function("0000:02:00.0", 0x030200, Some("nvidia"))
            .file("/sys/devices/pci0000:00/0000:01:00.0/boot_vga", "1")
            .file(
                "/sys/devices/pci0000:00/0000:01:00.0/drm/card1/card1-HDMI-A-1/status",
                "connected\n",
            )
            .file(
                "/sys/devices/pci0000:00/0000:01:00.0/drm/card1/card1-DP-1/status",
                "disconnected\n",
            )
            .file("/sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n")
            .file("/sys/class/vtconsole/vtcon1/bind", "1\n")
            .link("/sys/class/graphics/fb0/device", "/sys/bus/pci/devices/0000:00:02.0")
    };
    let console = |by: &str| Use::Console { by: by.to_owned() };
    let both = card(Some("nvidia"));
    assert_eq!(
        both.uses("01:00.0"),
        [console("boot_vga"), Use::Screens(vec!["HDMI-A-1".to_owned()])]
    );
    assert_eq!(both.uses("00:02.0"), [console("fb0")]);
    assert_eq!(both.uses("02:00.0"), []);
    let one = card(Some("vfio-pci"));
    assert_eq!(one.uses("00:02.0"), [Use::OnlyDisplay]);
    assert_eq!(one.uses("01:00.0"), []);
}

#[test]
fn keyboards_and_virtual_functions_are_seen() {
    let port = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0";
    let host = Host::new()
        .function("0000:00:14.0", 0x0c0330, Some("xhci_hcd"))
        .function("0000:00:1c.0", 0x020000, Some("ixgbe"))
        .file("/sys/devices/pci0000:00/0000:00:1c.0/sriov_totalvfs", "63")
        .file("/sys/devices/pci0000:00/0000:00:1c.0/sriov_numvfs", "2")
        .file(&format!("{port}/bInterfaceClass"), "03\n")
        .file(&format!("{port}/bInterfaceProtocol"), "01\n")
        .link("/sys/bus/usb/devices/1-1:1.0", port);
    assert_eq!(host.uses("00:14.0"), [Use::Keyboard { only: true }]);
    assert_eq!(host.uses("00:1c.0"), [Use::VirtualFunctions(2)]);
    let host = host.file("/sys/bus/serio/drivers/atkbd/serio0", "");
    assert_eq!(host.uses("00:14.0"), [Use::Keyboard { only: false }]);
}

#[test]
fn a_function_of_another_machine_is_named_with_its_holder() {
    let host = Host::new()
        .function("0000:01:00.0", 0x030000, Some("vfio-pci"))
        .function("0000:02:00.0", 0x020000, Some("vfio-pci"))
        .function("0000:03:00.0", 0x040300, Some("vfio-pci"))
        .file("/sys/devices/pci0000:00/0000:03:00.0/vfio-dev/vfio2/dev", "511:2")
        .link("/proc/4242/fd/17", &format!("/dev/vfio/{}", 0x030000 % 97))
        .link("/proc/4242/fd/18", "/dev/vfio/devices/vfio2")
        .link("/proc/4242/fd/19", "/dev/vfio/vfio")
        .file("/proc/4242/comm", "qemu-system-x86\n");
    let vm = Use::Vm {
        pid: 4242,
        name: "qemu-system-x86".to_owned(),
    };
    let vm = [vm];
    assert_eq!(host.uses("01:00.0"), vm);
    assert_eq!(host.uses("03:00.0"), vm);
    assert_eq!(host.uses("02:00.0"), []);
    let idle = host.file("/sys/module/vfio_pci/refcnt", "0\n");
    assert_eq!(idle.uses("01:00.0"), []);
}

/// Sixteen storeys of device mapper, each on all eight of the next: 8 to the 16th ways down.
#[test]
fn a_maze_of_disks_has_an_end() {
    let mut host = sata().file("/proc/self/mountinfo", "22 1 253:0 / / rw - ext4 /dev/mapper/maze rw");
    let path = |storey: u32, room: u32| format!("/sys/devices/virtual/block/dm-{}", storey * 8 + room);
    for storey in 0..16 {
        for room in 0..8 {
            host = host.block(&path(storey, room), &format!("253:{}", storey * 8 + room));
            for below in 0..8 {
                let slave = format!("{}/slaves/dm-{}", path(storey, room), (storey + 1) * 8 + below);
                host = host.link(&slave, &path(storey + 1, below));
            }
        }
    }
    host.uses(SATA);
}
