//! The lab host's hardware, as QEMU arguments.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use super::store::{Root, StoreError};

/// The functions assigned in the usual layout, by their addresses in L1.
pub mod bdf {
    /// The display adapter, behind a root port; in one group with its sound.
    pub const GPU: &str = "0000:01:00.0";
    /// The display adapter's HDA controller.
    pub const HDMI: &str = "0000:01:00.1";
    /// The chipset's HDA controller, in a group of its own.
    pub const HDA: &str = "0000:00:1b.0";
}

/// What L1 is built of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Memory in MiB.
    pub memory: u32,
    /// QEMU's `-machine`.
    pub machine: String,
    /// QEMU's `-cpu`.
    pub cpu: String,
    /// The IOMMU and, as arguments, whatever must come before other PCI devices.
    pub iommu: Vec<String>,
    /// Whether the usual three functions are there.
    pub devices: bool,
    /// Further QEMU arguments, after all others. Devices here take slots 2 and up unless told otherwise.
    pub extra: Vec<String>,
    /// Further kernel arguments.
    pub kernel_args: Vec<String>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            memory: 6144,
            machine: "q35,kernel-irqchip=split".to_owned(),
            cpu: "EPYC-Rome,+svm".to_owned(),
            iommu: vec![
                "-device".to_owned(),
                "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on".to_owned(),
            ],
            devices: true,
            extra: Vec::new(),
            kernel_args: Vec::new(),
        }
    }
}

/// Where QEMU finds and leaves things.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The initramfs.
    pub initrd: &'a Path,
    /// Where sockets are made; a short path.
    pub sockets: &'a Path,
    /// Where the console log and the sound files go.
    pub logs: &'a Path,
    /// Shared with L1 as `/out`.
    pub out: &'a Path,
    /// Shared with L1 as `/store`, read-only.
    pub store: &'a Path,
}

/// The kernel's arguments that make an IOMMU and speed things up; serial console.
const KERNEL_ARGS: &str = "console=ttyS0 intel_iommu=on iommu=pt mitigations=off nokaslr panic=-1";

/// The command that runs the lab host: QEMU of `root`, kernel of `kernel`.
///
/// # Errors
/// When a set lacks QEMU or the kernel.
pub fn qemu(root: &Root, kernel: &Root, hardware: &Hardware, places: Places<'_>) -> Result<Command, StoreError> {
    let inner = root.command("usr/bin/qemu-system-x86_64")?;
    // QEMU must not outlive the lab, however the lab ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.env("QEMU_MODULE_DIR", root.file("usr/lib/x86_64-linux-gnu/qemu")?);
    for dir in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        command.arg("-L").arg(root.path().join(dir));
    }
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-vga",
        "none",
        "-net",
        "none",
    ]);
    // Without icount QEMU dies of an assertion when a guest's guest restores CR8 (tcg_handle_interrupt, bql_locked).
    command.args([
        "-accel",
        "tcg,thread=single",
        "-icount",
        "shift=1,sleep=off,align=off",
        "-smp",
        "1",
    ]);
    command.args([
        "-machine",
        &hardware.machine,
        "-cpu",
        &hardware.cpu,
        "-m",
        &hardware.memory.to_string(),
    ]);
    let append = [&[KERNEL_ARGS.to_owned()], hardware.kernel_args.as_slice()]
        .concat()
        .join(" ");
    command
        .arg("-kernel")
        .arg(kernel.kernel()?)
        .arg("-initrd")
        .arg(places.initrd)
        .arg("-append")
        .arg(append);
    command.args(&hardware.iommu);
    command.args(plumbing(places));
    if hardware.devices {
        command.args(assigned(places.logs));
    }
    command.args(&hardware.extra);
    Ok(command)
}

/// How the lab reaches L1: console, command port, QMP and two shared folders, all in slots out of the way.
fn plumbing(places: Places<'_>) -> Vec<OsString> {
    let text = |text: &str| OsString::from(text);
    vec![
        text("-serial"),
        with_path("file:", &places.logs.join("console.log"), ""),
        text("-chardev"),
        with_path(
            "socket,id=lab,server=on,wait=off,path=",
            &places.sockets.join("lab"),
            "",
        ),
        text("-device"),
        text("virtio-serial-pci,id=ports,bus=pcie.0,addr=1c.0"),
        text("-device"),
        text("virtserialport,bus=ports.0,chardev=lab,name=tenon.lab"),
        text("-chardev"),
        with_path(
            "socket,id=tty,server=on,wait=off,path=",
            &places.sockets.join("tty"),
            "",
        ),
        text("-device"),
        text("virtconsole,bus=ports.0,chardev=tty"),
        text("-qmp"),
        with_path("unix:", &places.sockets.join("qmp"), ",server=on,wait=off"),
        text("-qmp"),
        with_path("unix:", &places.sockets.join("watch"), ",server=on,wait=off"),
        text("-fsdev"),
        with_path("local,id=out,security_model=none,path=", places.out, ""),
        text("-device"),
        text("virtio-9p-pci,fsdev=out,mount_tag=out,bus=pcie.0,addr=1d.0"),
        text("-fsdev"),
        with_path("local,id=store,security_model=none,readonly=on,path=", places.store, ""),
        text("-device"),
        text("virtio-9p-pci,fsdev=store,mount_tag=store,bus=pcie.0,addr=1e.0"),
    ]
}

/// The display adapter with its sound behind a root port, and the chipset's sound.
fn assigned(logs: &Path) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for device in [
        "pcie-root-port,id=rp1,chassis=1,slot=1,bus=pcie.0,addr=01.0",
        "bochs-display,id=gpu,bus=rp1,addr=00.0,multifunction=on",
        "intel-hda,id=hdmi,bus=rp1,addr=00.1",
        "hda-output,bus=hdmi.0,audiodev=wav0",
        "ich9-intel-hda,id=hda,bus=pcie.0,addr=1b.0",
        "hda-duplex,bus=hda.0,audiodev=wav1",
    ] {
        arguments.extend([OsString::from("-device"), OsString::from(device)]);
    }
    for (id, file) in [("wav0", "hdmi.wav"), ("wav1", "hda.wav")] {
        arguments.extend([
            OsString::from("-audiodev"),
            with_path(&format!("wav,id={id},path="), &logs.join(file), ""),
        ]);
    }
    arguments
}

/// An argument with a path in it; QEMU wants commas doubled.
fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    format!("{before}{}{after}", path.display().to_string().replace(',', ",,")).into()
}
