//! Kernels started without firmware: bzImage and PVH, to a shell on the serial port.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::console::Console;
use crate::guest::{Initramfs, Kernel, Marks, Roots, extract_vmlinux, field};
use crate::lab::{LabHost, Set, Store};
use crate::scenario::{Failure, Scenario};

const QUICK: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(300);

/// What the kernel's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    BzImage,
    Vmlinux,
}

/// One kernel booted to a shell, in which a command is answered.
#[derive(Debug)]
pub struct Shell {
    name: &'static str,
    form: Form,
    cpus: u32,
    /// In GiB.
    memory: u64,
    disks: bool,
}

/// Each form with one and with four vCPUs (two are tried under OVMF); disks and a large memory along with some of these.
pub const BZIMAGE_1: Shell = Shell {
    name: "direct-bzimage-1",
    form: Form::BzImage,
    cpus: 1,
    memory: 1,
    disks: true,
};
/// See [`BZIMAGE_1`].
pub const BZIMAGE_4: Shell = Shell {
    name: "direct-bzimage-4",
    cpus: 4,
    disks: false,
    ..BZIMAGE_1
};
/// See [`BZIMAGE_1`].
pub const PVH_1: Shell = Shell {
    name: "direct-pvh-1",
    form: Form::Vmlinux,
    cpus: 1,
    memory: 10,
    disks: false,
};
/// See [`BZIMAGE_1`].
pub const PVH_4: Shell = Shell {
    name: "direct-pvh-4",
    form: Form::Vmlinux,
    cpus: 4,
    memory: 1,
    disks: true,
};

impl Scenario for Shell {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shows(&self) -> &'static str {
        "a kernel without firmware boots to a shell on the serial port, with its vCPUs, memory and disks, and powers off"
    }

    fn cost(&self) -> Duration {
        Duration::from_secs(if self.cpus > 1 { 70 } else { 45 })
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        let kernel = files(host.out(), self.form)?;
        let Self { cpus, memory, .. } = *self;
        let mut words = String::from("cpus,mem");
        let mut disks = "";
        if self.disks {
            host.check(MAKE_DISKS, QUICK)?;
            words += ",disks,blk=vda,blk=vdb";
            disks = "--disk path=/tmp/direct/rw.img --disk path=/tmp/direct/ro.img,readonly";
        }
        let mut console = Console::start(
            host,
            &format!(
                "--memory {memory}G --cpus {cpus} --kernel {kernel} --initrd /out/direct/initrd.img {disks} \
                 --cmdline 'console=ttyS0 panic=-1 mitigations=off tenon.do={words},shell'"
            ),
        )?;
        let result = talk(host, &mut console, cpus);
        console.keep(logs);
        let marks = result?;
        self.check_machine(&console.text(), &marks)?;
        if self.disks {
            check_disks(host, &marks)?;
        }
        Ok(())
    }
}

/// A shell that answers, and the power-off it is told.
fn talk(host: &mut LabHost, console: &mut Console, cpus: u32) -> Result<Marks, Failure> {
    console.until(host, "@@ shell", BOOT)?;
    // What the terminal echoes is the question, so the answer cannot be taken from there.
    console.say(host, "echo answer-$((6 * 7))-$(grep -c ^processor /proc/cpuinfo)")?;
    console.until(host, &format!("answer-42-{cpus}"), QUICK)?;
    console.say(host, "poweroff -f")?;
    console.end_well(host, QUICK)
}

impl Shell {
    fn check_machine(&self, text: &str, marks: &Marks) -> Result<(), Failure> {
        let online = if self.cpus == 1 {
            "0".to_owned()
        } else {
            format!("0-{}", self.cpus - 1)
        };
        let wanted = format!("{} online={online} present={online}", self.cpus);
        let found = marks.get("cpus").unwrap_or_default();
        Failure::unless(found == wanted, || {
            format!("the guest has processors {found}, not {wanted}")
        })?;
        let kib: u64 = marks
            .get("mem")
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .unwrap_or_default();
        let all = self.memory << 20;
        // The kernel keeps a few percent for itself before it counts.
        Failure::unless(all * 9 / 10 < kib && kib < all, || {
            format!("the guest has {kib} KiB of memory, not most of {all}")
        })?;
        // 2 GiB below the hole, the rest from 4 GiB.
        let high = format!(
            "[mem 0x0000000100000000-{:#018x}] usable",
            ((self.memory + 2) << 30) - 1
        );
        Failure::unless((self.memory > 2) == text.contains(&high), || {
            format!("of memory above 4 GiB the map has not `{high}`")
        })
    }
}

const MAKE_DISKS: &str = "mkdir -p /tmp/direct && cd /tmp/direct && rm -f *.img && truncate -s 8M rw.img \
                          && dd if=/dev/urandom of=ro.img bs=64k count=32 2>/dev/null && sha256sum ro.img >ro.sum";

/// The guest wrote, flushed and read one disk and could not write the other, and the files say so too.
fn check_disks(host: &mut LabHost, marks: &Marks) -> Result<(), Failure> {
    let said = |key: &str| marks.get(key).unwrap_or("nothing");
    for (key, wanted) in [
        ("disk vda", "sectors=16384 ro=0 cache=write"),
        ("disk vdb", "sectors=4096 ro=1"),
    ] {
        Failure::unless(said(key).starts_with(wanted), || {
            format!("{key}: {}, not {wanted}", said(key))
        })?;
    }
    let read_only = said("blk vdb");
    Failure::unless(read_only == "ro=1 write=refused", || format!("blk vdb: {read_only}"))?;
    let written = said("blk vda");
    Failure::unless(field(written, "verify") == Some("ok"), || format!("blk vda: {written}"))?;
    let sum = host.check(
        "dd if=/tmp/direct/rw.img bs=65536 skip=1 count=16 2>/dev/null | sha256sum",
        QUICK,
    )?;
    let sum = sum.split_whitespace().next();
    Failure::unless(field(written, "sha256") == sum, || {
        format!("the image has {sum:?}, the guest wrote {written}")
    })?;
    host.check(
        "cd /tmp/direct && sha256sum -c ro.sum && cd / && rm -r /tmp/direct",
        QUICK,
    )?;
    Ok(())
}

/// Puts the initramfs and a kernel where L1 sees them; the kernel's path there.
fn files(out: &Path, form: Form) -> Result<&'static str, Failure> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let wrong = |error: &dyn std::fmt::Display| Failure::Wrong(format!("the guest cannot be built: {error}"));
    // Two hosts at once would only build the same twice as slowly.
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = out.join("direct");
    fs::create_dir_all(&folder).map_err(|error| wrong(&error))?;
    let root = Store::open()
        .and_then(|store| store.set(Set::New))
        .map_err(|error| wrong(&error))?;
    let roots = Roots::from(&root);
    let kernel = Kernel::find(&roots).map_err(|error| wrong(&error))?;
    let place = |name: &str, make: &dyn Fn() -> Result<Vec<u8>, crate::guest::Error>| {
        let path = folder.join(name);
        if path.exists() {
            return Ok(());
        }
        let bytes = make().map_err(|error| wrong(&error))?;
        fs::write(&path, bytes).map_err(|error| wrong(&error))
    };
    place("initrd.img", &|| Initramfs::new(&roots, &kernel).build())?;
    match form {
        Form::BzImage => {
            fs::copy(kernel.image(), folder.join("bzImage")).map_err(|error| wrong(&error))?;
            Ok("/out/direct/bzImage")
        }
        Form::Vmlinux => {
            place("vmlinux", &|| extract_vmlinux(kernel.image()))?;
            Ok("/out/direct/vmlinux")
        }
    }
}
