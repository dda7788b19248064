use super::*;
use crate::host::capture::{Capture, write};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use vmm_sys_util::tempdir::TempDir;

/// Values that must not be in a capture, wherever they stood.
const SECRETS: &[&str] = &[
    "towerling",
    "johndoe",
    "Johnathan Doe",
    "00:1b:21:aa:bb:cc",
    "001b21aabbcc",
    "001B21AABBCC",
    "8310a096-b9cf-4246-9fd8-91555a279f04",
    "192.168.77.20",
    "144DA8C0",
    "0a00a8c0",
    "S64ANS0T",
    "60A44C3FB1",
    "fe80000000000000021b21fffeaabbcc",
    "holidays",
    "sekrit",
    "nas.example.net",
    "0123456789abcdef0123456789abcdef",
    "ffffffffc0a01000",
    "KASLR",
    "deadbeefcafe",
];

fn file(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

/// A host with a secret in each place where one may stand.
fn host() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.as_path();
    file(root, "proc/sys/kernel/hostname", "towerling\n");
    file(root, "etc/hostname", "towerling\n");
    file(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    file(
        root,
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\njohndoe:x:1000:1000:Johnathan Doe,,,:/home/johndoe:/bin/sh\n",
    );
    file(root, "etc/group", "wheel:x:10:johndoe\nkvm:x:36:johndoe\n");
    file(root, "proc/sys/kernel/osrelease", "6.12.1-towerling\n");
    file(root, "proc/version", "Linux version 6.12.1 (johndoe@towerling) gcc\n");
    file(
        root,
        "proc/cmdline",
        "BOOT_IMAGE=/0123456789abcdef0123456789abcdef/vmlinuz root=UUID=8310a096-b9cf-4246-9fd8-91555a279f04 \
         rd.lvm.lv=vg_towerling/root ip=192.168.77.20::::towerling:eth0:off intel_iommu=on cifs.password=sekrit\n",
    );
    file(root, "proc/modules", "kvm 1 0 - Live 0xffffffffc0a01000\n");
    file(
        root,
        "proc/iomem",
        "00001000-0009ffff : System RAM\n  02000000-03001fff : Kernel code KASLR\n",
    );
    file(root, "proc/self/status", "Name:\tjohndoe\nVmLck:\t0 kB\nCapEff:\t0\n");
    mounts_and_routes(root);
    log(root);
    devices(root);
    functions(root);
    dir
}

fn mounts_and_routes(root: &Path) {
    file(
        root,
        "proc/self/mountinfo",
        "25 1 253:0 / / rw shared:1 - xfs /dev/mapper/luks-8310a096-b9cf-4246-9fd8-91555a279f04 rw\n\
         40 25 0:50 / /home/johndoe/nas rw - cifs //nas.example.net/johndoe rw,password=sekrit,addr=192.168.77.20\n",
    );
    file(
        root,
        "proc/self/net/route",
        "Iface\tDestination\tGateway\nenx001b21aabbcc\t00000000\t144DA8C0\n",
    );
    file(
        root,
        "proc/self/net/ipv6_route",
        "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe80000000000000021b21fffeaabbcc 0 1 0 3 enx001b21aabbcc\n",
    );
    link(root, "proc/net", "self/net");
    file(root, "proc/interrupts", " 30: 1 IR-PCI-MSI enx001b21aabbcc\n");
    file(
        root,
        "etc/default/grub",
        "# towerling, by johndoe\nGRUB_CMDLINE_LINUX=\"resume=LABEL=holidays\"\n",
    );
    file(
        root,
        "run/udev/data/b8:0",
        "E:ID_SERIAL=S64ANS0T\nE:ID_FS_LABEL=holidays\nE:ID_FS_TYPE=ext4\n",
    );
}

fn log(root: &Path) {
    file(
        root,
        "tenon/kernel.log",
        "[    0.0] Linux version 6.12.1 (johndoe@towerling)\n[    1.0] DMAR: IOMMU enabled\n\
         [    2.0] usb 1-4: SerialNumber: 60A44C3FB1\n[    3.0] r8169 eth0: 00:1b:21:aa:bb:cc\n\
         [    4.0] input: Johnathan Doe's AirPods as /devices/virtual\n[    5.0] systemd[1]: Hostname set to <towerling>.\n\
         [    6.0] IN=eth0 SRC=192.168.77.20\n[    7.0] BTRFS: device label holidays devid 1\n",
    );
}

fn devices(root: &Path) {
    // Never taken, whatever is in them.
    for path in [
        "sys/class/dmi/id/product_serial",
        "sys/class/dmi/id/product_uuid",
        "sys/class/net/lo/address",
        "sys/class/nvme/nvme0/serial",
        "sys/class/block/sda/device/wwid",
        "sys/bus/usb/devices/1-4/serial",
        "etc/shadow",
        "home/johndoe/.ssh/id_ed25519",
        "proc/1/environ",
    ] {
        file(root, path, "sekrit deadbeefcafe\n");
    }
    file(root, "sys/class/dmi/id/product_name", "Board of towerling\n");
    file(
        root,
        "sys/class/block/dm-0/dm/name",
        "luks-8310a096-b9cf-4246-9fd8-91555a279f04\n",
    );
    file(
        root,
        "sys/class/block/dm-0/dm/uuid",
        "CRYPT-LUKS2-8310a096b9cf42469fd891555a279f04-x\n",
    );
    file(
        root,
        "sys/class/block/loop0/loop/backing_file",
        "/home/johndoe/disk.img\n",
    );
    file(root, "proc/4242/comm", "qemu-system-x86\n");
    link(root, "proc/4242/fd/17", "/dev/vfio/1");
    link(root, "proc/4242/fd/18", "/home/johndoe/sekrit");
}

fn functions(root: &Path) {
    let at = "sys/devices/pci0000:00/0000:00:1c.0/0000:03:00.0";
    for (name, content) in [("vendor", "0x8086\n"), ("device", "0x10d3\n"), ("class", "0x020000\n")] {
        file(root, &format!("{at}/{name}"), content);
        file(root, &format!("sys/devices/pci0000:00/0000:00:1c.0/{name}"), content);
    }
    // A device serial number capability, as the bytes of a MAC.
    let mut config = vec![0; 64];
    config.extend_from_slice(b"deadbeefcafe");
    file(root, &format!("{at}/config"), config);
    file(
        root,
        &format!("{at}/net/enx001b21aabbcc/address"),
        "00:1b:21:aa:bb:cc\n",
    );
    file(root, &format!("{at}/net/enx001b21aabbcc/operstate"), "up\n");
    link(
        root,
        &format!("{at}/net/enx001b21aabbcc/device"),
        "../../../0000:03:00.0",
    );
    link(
        root,
        "sys/class/net/enx001b21aabbcc",
        &format!("../../../{at}/net/enx001b21aabbcc"),
    );
    link(root, "sys/bus/pci/devices/0000:03:00.0", &format!("../../../../{at}"));
    link(
        root,
        "sys/bus/pci/devices/0000:00:1c.0",
        "../../../devices/pci0000:00/0000:00:1c.0",
    );
    link(root, &format!("{at}/driver"), "../../../../bus/pci/drivers/e1000e");
    file(root, "sys/bus/pci/drivers/e1000e/uevent", "");
    link(root, &format!("{at}/iommu_group"), "../../../../kernel/iommu_groups/7");
    link(
        root,
        "sys/kernel/iommu_groups/7/devices/0000:03:00.0",
        &format!("../../../../../{at}"),
    );
    file(root, "sys/kernel/iommu_groups/7/type", "DMA\n");
}

#[test]
fn nothing_personal_is_in_it() {
    let dir = host();
    let taken = take(&HostTree::at(dir.as_path()), About::new(), &["sekrit".into()]).unwrap();
    let mut archive = Vec::new();
    write(&taken.files, &mut archive).unwrap();
    let capture = Capture::read(archive.as_slice()).unwrap();
    assert_eq!(capture.skipped().count, 0);
    let mut files = 0;
    capture
        .files()
        .each(|path, visit| {
            use crate::host::capture::Visit;
            files += 1;
            let content = match visit {
                Visit::File(content) => String::from_utf8_lossy(content).into_owned(),
                Visit::Link(target) => target.display().to_string(),
                Visit::Directory => String::new(),
            };
            let all = format!("{}\n{content}", path.display());
            for secret in SECRETS {
                assert!(!all.contains(secret), "{secret} in {all}");
            }
            Ok(())
        })
        .unwrap();
    assert!(
        files > 60 && taken.masked > 10,
        "{files} files, {} masked",
        taken.masked
    );
}

#[test]
fn what_the_survey_reads_is_in_it_and_fits_together() {
    let dir = host();
    let live = HostTree::at(dir.as_path());
    let taken = take(&live, About::new(), &[]).unwrap();
    let tree = HostTree::of(Arc::new(taken.files));
    let bdf = "03:00.0".parse().unwrap();
    let function = Sysfs::of(tree.clone()).function(bdf).unwrap();
    assert_eq!(function, Sysfs::of(live).function(bdf).unwrap());
    assert_eq!((function.driver.as_deref(), function.group), (Some("e1000e"), Some(7)));
    assert_eq!(
        tree.link_name("/sys/class/net/enx020000000001/device").as_deref(),
        Some("0000:03:00.0")
    );
    assert!(
        tree.text("/proc/net/route")
            .unwrap()
            .contains("enx020000000001\t00000000\t010200C0")
    );
    assert_eq!(tree.text("/proc/sys/kernel/osrelease").unwrap(), "6.12.1-host1");
    assert_eq!(tree.link("/proc/4242/fd/17").unwrap(), Path::new("/dev/vfio/1"));
    assert_eq!(tree.text("/proc/4242/comm").unwrap(), "qemu-system-x86");
    assert!(tree.text(KERNEL_LOG).unwrap().contains("DMAR: IOMMU enabled"));
    assert!(tree.text(ABOUT).unwrap().starts_with("format = 1"));
}

#[test]
fn what_cannot_be_read_is_said() {
    let dir = host();
    std::fs::remove_file(dir.as_path().join("tenon/kernel.log")).unwrap();
    let taken = take(&HostTree::at(dir.as_path()), About::new(), &[]).unwrap();
    assert_eq!(taken.left_out.len(), 1, "{:?}", taken.left_out);
    assert!(taken.left_out[0].contains("the kernel's log"), "{:?}", taken.left_out);
}

#[test]
fn a_capture_of_a_capture_is_the_same() {
    let dir = host();
    let about = About::new();
    let first = take(&HostTree::at(dir.as_path()), about.clone(), &[]).unwrap();
    let bytes = |files: &Memory| {
        let mut archive = Vec::new();
        write(files, &mut archive).unwrap();
        archive
    };
    let packed = bytes(&first.files);
    let again = take(&HostTree::of(Arc::new(first.files)), about, &[]).unwrap();
    assert!(packed == bytes(&again.files));
}

#[test]
fn loops_of_links_come_to_an_end() {
    let dir = host();
    let root = dir.as_path();
    link(root, "sys/class/net/round", "about");
    link(root, "sys/class/net/about", "round");
    link(root, "sys/class/net/deep", "deep/deep/deep");
    // Each leads twice through the next.
    for number in 0..39 {
        let next = number + 1;
        link(
            root,
            &format!("sys/class/net/d{number}"),
            &format!("d{next}/../d{next}"),
        );
    }
    std::fs::create_dir_all(root.join("sys/class/net/d39")).unwrap();
    take(&HostTree::at(root), About::new(), &[]).unwrap();
}
