//! Makes the tree of a host with many functions and says how long a survey of it takes:
//!
//! ```text
//! cargo run --release -p vfio --example survey_many -- 500 /dev/shm/many
//! ```
//!
//! The tree stays, for `tenon devices --host /dev/shm/many`; with `/dev/shm/many/sys` and the rest as the root of a
//! chroot it is surveyed as the running host.

#![allow(clippy::unwrap_used, missing_docs, reason = "a tool for the bench")]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pci_ids::{Device, Vendor, Vendors};
use vfio::host::{HostTree, Survey};

fn main() {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().and_then(|count| count.parse().ok()).unwrap_or(500);
    let root = PathBuf::from(args.next().unwrap_or_else(|| "/dev/shm/tenon-many".to_owned()));
    if !root.exists() {
        make(&root, count);
    }
    let tree = HostTree::at(&root);
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let survey = Survey::of(&tree).unwrap();
            assert!(survey.functions.len() >= count && survey.functions.iter().any(|f| !f.modules.is_empty()));
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "{count} functions: best {:?}, median {:?}, worst {:?}",
        times[0], times[10], times[19]
    );
}

/// Root ports with a device of up to four functions each, of all makes; a file system on the first disk.
fn make(root: &Path, count: usize) {
    let all: Vec<(&Vendor, &Device)> = Vendors::iter().flat_map(|v| v.devices().map(move |d| (v, d))).collect();
    tables(root, &all);
    let mut made = 0;
    let mut slot = 0;
    while made < count {
        let (segment, port) = (slot / 200, slot % 200);
        let bus = format!("sys/devices/pci{segment:04x}:00");
        let port_bdf = format!("{segment:04x}:00:{:02x}.{:x}", port / 8, port % 8);
        let port_path = format!("{bus}/{port_bdf}");
        function(root, &port_path, 0x060400, (0x8086, 0x1901), "pcieport", 1000 + slot);
        made += 1;
        for number in 0..(slot % 4 + 1).min(count - made) {
            let class = [0x030000, 0x040300, 0x0c0330, 0x010802][(slot + number) % 4];
            let (vendor, device) = all[made * 7919 % all.len()];
            let path = format!("{port_path}/{segment:04x}:{:02x}:00.{number}", port + 1);
            function(root, &path, class, (vendor.id(), device.id()), "nvme", slot);
            made += 1;
        }
        slot += 1;
    }
    let disk = "sys/devices/pci0000:00/0000:00:00.3/0000:04:00.0/nvme/nvme0/nvme0n1";
    put(root, &format!("{disk}/dev"), "259:0\n");
    link(root, "sys/dev/block/259:0", disk);
    link(root, "sys/class/block/nvme0n1", disk);
    put(
        root,
        "proc/self/mountinfo",
        "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n",
    );
}

/// A pci.ids and a modules.alias as large as a distribution's.
fn tables(root: &Path, all: &[(&Vendor, &Device)]) {
    let (mut ids, mut aliases, mut last) = (String::new(), String::new(), None);
    for (vendor, device) in all {
        if last != Some(vendor.id()) {
            writeln!(ids, "{:04x}  {}", vendor.id(), vendor.name()).unwrap();
        }
        last = Some(vendor.id());
        writeln!(ids, "\t{:04x}  {}", device.id(), device.name()).unwrap();
        for sub in device.subsystems() {
            writeln!(
                ids,
                "\t\t{:04x} {:04x}  {}",
                sub.subvendor(),
                sub.subdevice(),
                sub.name()
            )
            .unwrap();
        }
        writeln!(
            aliases,
            "alias pci:v{:08X}d{:08X}sv*sd*bc*sc*i* some_driver",
            vendor.id(),
            device.id()
        )
        .unwrap();
    }
    put(root, "usr/share/hwdata/pci.ids", &ids);
    put(root, "proc/sys/kernel/osrelease", "6.12.0\n");
    put(root, "lib/modules/6.12.0/modules.alias", &aliases);
    println!("pci.ids {} bytes, modules.alias {} bytes", ids.len(), aliases.len());
}

fn function(root: &Path, path: &str, class: u32, (vendor, device): (u16, u16), driver: &str, group: usize) {
    let bdf = path.rsplit('/').next().unwrap();
    let event = format!(
        "DRIVER={driver}\nPCI_CLASS={class:X}\nPCI_ID={vendor:04X}:{device:04X}\nPCI_SUBSYS_ID={vendor:04X}:0001\n"
    );
    for (name, text) in [
        ("uevent", event),
        ("vendor", format!("0x{vendor:04x}\n")),
        ("device", format!("0x{device:04x}\n")),
        ("subsystem_vendor", format!("0x{vendor:04x}\n")),
        ("subsystem_device", "0x0001\n".to_owned()),
        ("class", format!("0x{class:06x}\n")),
        ("revision", "0x01\n".to_owned()),
        ("power_state", "D0\n".to_owned()),
        ("d3cold_allowed", "1\n".to_owned()),
        ("numa_node", "0\n".to_owned()),
        ("driver_override", "(null)\n".to_owned()),
        ("reset_method", "flr bus\n".to_owned()),
        ("max_link_speed", "16.0 GT/s PCIe\n".to_owned()),
        ("max_link_width", "16\n".to_owned()),
        ("current_link_speed", "8.0 GT/s PCIe\n".to_owned()),
        ("current_link_width", "16\n".to_owned()),
        (
            "resource",
            "0x00000000f6000000 0x00000000f6ffffff 0x0000000000040200\n".repeat(13),
        ),
    ] {
        put(root, &format!("{path}/{name}"), &text);
    }
    put(root, &format!("sys/bus/pci/drivers/{driver}/module"), "");
    put(
        root,
        &format!("sys/kernel/iommu_groups/{group}/reserved_regions"),
        "0xfee00000 0xfeefffff msi\n",
    );
    link(
        root,
        &format!("{path}/driver"),
        &format!("sys/bus/pci/drivers/{driver}"),
    );
    link(
        root,
        &format!("{path}/iommu_group"),
        &format!("sys/kernel/iommu_groups/{group}"),
    );
    link(root, &format!("sys/kernel/iommu_groups/{group}/devices/{bdf}"), path);
    link(root, &format!("sys/bus/pci/devices/{bdf}"), path);
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A relative link, as those of `/sys` are.
fn link(root: &Path, path: &str, target: &str) {
    let up = "../".repeat(path.matches('/').count());
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(format!("{up}{target}"), path).unwrap();
}
