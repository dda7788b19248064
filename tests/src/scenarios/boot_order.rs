//! OVMF with several vCPUs and two bootable disks, of which `bootindex` chooses.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::console::Console;
use crate::guest::{GrubConfig, GuestDisk, Initramfs, Kernel, Roots};
use crate::lab::{LabHost, Set, Store};
use crate::scenario::{Failure, Scenario};

const LIMIT: Duration = Duration::from_secs(480);

/// Two disks in this order on the bus, each with an index; the guests of both are told apart by a word of their command lines.
#[derive(Debug)]
pub struct BootOrder {
    name: &'static str,
    indices: [u32; 2],
    first: usize,
    cpus: u32,
    /// In GiB.
    memory: u64,
}

/// The second disk before the first; four vCPUs; memory above 4 GiB.
pub const SECOND: BootOrder = BootOrder {
    name: "ovmf-smp-4-bootindex",
    indices: [7, 3],
    first: 1,
    cpus: 4,
    memory: 10,
};
/// The first disk before the second; two vCPUs.
pub const FIRST: BootOrder = BootOrder {
    name: "ovmf-smp-2-bootindex",
    indices: [0, 1],
    first: 0,
    cpus: 2,
    memory: 1,
};

const NAMES: [&str; 2] = ["one", "two"];

impl Scenario for BootOrder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shows(&self) -> &'static str {
        "of two bootable disks OVMF takes the one with the lower bootindex, and Linux under it has all processors and memory"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(110)
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        disks(host.out())?;
        let Self { cpus, memory, .. } = *self;
        let disks: Vec<String> = (NAMES.iter().zip(self.indices))
            .map(|(name, index)| format!("--disk path=/tmp/boot-order/{name}.img,bootindex={index}"))
            .collect();
        // Out of memory: in the shared folder a lock would be the build machine's.
        host.check(
            "mkdir -p /tmp/boot-order && cp /out/boot-order/*.img /tmp/boot-order/",
            LIMIT,
        )?;
        let mut console = Console::start(
            host,
            &format!(
                "--memory {memory}G --cpus {cpus} --vars /tmp/boot-order/VARS.fd {}",
                disks.join(" ")
            ),
        )?;
        let result = console.end_well(host, LIMIT);
        console.keep(logs);
        let marks = result?;
        let text = console.text();
        for (number, name) in NAMES.iter().enumerate() {
            let booted = text.contains(&format!("tenon.disk={name}"));
            Failure::unless(booted == (number == self.first), || {
                format!(
                    "of the indices {:?}, disk {name} was {}booted",
                    self.indices,
                    if booted { "" } else { "not " }
                )
            })?;
        }
        let online = format!("{cpus} online=0-{last} present=0-{last}", last = cpus - 1);
        let found = marks.get("cpus").unwrap_or_default();
        Failure::unless(found == online, || {
            format!("the guest has processors {found}, not {online}")
        })?;
        let kib = marks
            .get("mem")
            .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        let all = memory << 20;
        Failure::unless(kib.is_some_and(|kib| all * 85 / 100 < kib && kib < all), || {
            format!("the guest has {kib:?} KiB of memory, not most of {all}")
        })?;
        host.check("rm -r /tmp/boot-order", LIMIT)?;
        Ok(())
    }
}

/// Makes the two disks where L1 sees them.
fn disks(out: &Path) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Wrong(format!("the disks cannot be built: {error}"));
    let folder = out.join("boot-order");
    let [one, two] = NAMES.map(|name| folder.join(format!("{name}.img")));
    if two.exists() {
        return Ok(());
    }
    fs::create_dir_all(&folder).map_err(|error| wrong(&error))?;
    let root = Store::open()
        .and_then(|store| store.set(Set::New))
        .map_err(|error| wrong(&error))?;
    let roots = Roots::from(&root);
    let kernel = Kernel::find(&roots).map_err(|error| wrong(&error))?;
    let initramfs = Initramfs::new(&roots, &kernel).build().map_err(|error| wrong(&error))?;
    GuestDisk::new(&roots, &kernel, &initramfs)
        .write(&one)
        .map_err(|error| wrong(&error))?;
    let work = folder.join("work");
    fs::copy(&one, &work).map_err(|error| wrong(&error))?;
    for (name, path) in NAMES.iter().zip([&one, &work]) {
        let cmdline = format!("console=ttyS0 panic=-1 mitigations=off tenon.disk={name} tenon.do=cpus,mem,poweroff");
        GuestDisk::reconfigure(path, &GrubConfig::new(cmdline).menu_seconds(0)).map_err(|error| wrong(&error))?;
    }
    fs::rename(&work, &two).map_err(|error| wrong(&error))
}
