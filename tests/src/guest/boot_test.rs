//! The guest in plain QEMU on this machine: the same disk, devices and judges as in the lab, without the lab host.

use super::{Boot, GrubConfig, GuestDisk, Initramfs, Kernel, Marks, Roots, cmdline, extract_vmlinux, field};
use crate::{
    hear,
    lab::{Root, Set, Store, qmp::Qmp},
    see::{Image, Scene, scenes},
};
use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

const DEVICES: &str = "-accel tcg -machine q35 -cpu max -m 1024 -vga none -net none -display none \
    -device pcie-root-port,id=rp1,chassis=1,slot=1,bus=pcie.0,addr=01.0 \
    -device bochs-display,id=gpu,bus=rp1,addr=00.0,multifunction=on \
    -device intel-hda,id=hdmi,bus=rp1,addr=00.1 -device hda-output,bus=hdmi.0,audiodev=wav0 \
    -device ich9-intel-hda,id=hda,bus=pcie.0,addr=1b.0 -device hda-duplex,bus=hda.0,audiodev=wav1";

/// A QEMU and what it left. Its folder stays where it is for who wants to look: pictures, sounds, the serial log.
struct Machine {
    folder: PathBuf,
    process: Child,
    seen: Vec<Scene>,
}

impl Machine {
    /// Always the newer QEMU: the older one has TCG in a module, which the set's loader does not find.
    fn start(name: &str, arguments: &[String]) -> Self {
        let root = Store::open().unwrap().set(Set::New).unwrap();
        let folder = std::env::temp_dir().join(format!("tenon-guest-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let place = folder.display();
        let mut command = root.command("usr/bin/qemu-system-x86_64").unwrap();
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.path().join(data));
        }
        command.args(DEVICES.split_whitespace());
        for (id, file) in [("wav0", "hdmi"), ("wav1", "hda")] {
            command
                .arg("-audiodev")
                .arg(format!("wav,id={id},path={place}/{file}.wav"));
        }
        command.arg("-serial").arg(format!("file:{place}/guest.log"));
        command.arg("-qmp").arg(format!("unix:{place}/qmp,server=on,wait=off"));
        command
            .args(arguments)
            .stderr(File::create(folder.join("qemu.log")).unwrap());
        Self {
            folder,
            process: command.spawn().unwrap(),
            seen: Vec::new(),
        }
    }

    /// Looks at the display until the guest has powered off, and gives back its marks.
    fn watch(&mut self, limit: Duration) -> Marks {
        let start = Instant::now();
        let socket = self.folder.join("qmp");
        // The socket is there a little before QEMU listens on it.
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            assert_eq!(
                self.process.try_wait().unwrap(),
                None,
                "{} ended at once",
                self.folder.display()
            );
            sleep(Duration::from_millis(50));
        };
        let mut qmp = Qmp::new(stream, &self.folder).unwrap();
        while self.process.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < limit, "still running; see {}", self.folder.display());
            // Fails when the guest powers off just now.
            if let Ok(picture) = qmp.screendump("gpu") {
                self.look(&Image::parse(&picture).unwrap());
            }
            sleep(Duration::from_millis(200));
        }
        Marks::parse(&fs::read(self.folder.join("guest.log")).unwrap())
    }

    fn look(&mut self, image: &Image) {
        for scene in scenes(image) {
            if self.seen.last() != Some(&scene) {
                let file = format!("{:02}-{scene}.png", self.seen.len());
                image.write_png(&self.folder.join(file)).unwrap();
                self.seen.push(scene);
            }
        }
    }

    /// Whether the scenes were seen in this order, others between them allowed.
    fn saw(&self, scenes: &[Scene]) {
        let mut seen = self.seen.iter();
        assert!(scenes.iter().all(|scene| seen.any(|it| it == scene)), "{:?}", self.seen);
    }

    fn heard(&self) {
        for name in ["hda.wav", "hdmi.wav"] {
            let tone = hear::tone(&self.folder.join(name)).unwrap();
            assert!(tone.is(1000.0, 0.02) && tone.seconds > 1.5, "{name}: {tone:?}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Flash of the set's firmware with a fresh store, and a disk.
fn firmware(root: &Root, folder: &Path, disk: &Path) -> Vec<String> {
    let code = root.file("usr/share/OVMF/OVMF_CODE_4M.fd").unwrap();
    let vars = folder.join("vars.fd");
    fs::copy(root.file("usr/share/OVMF/OVMF_VARS_4M.fd").unwrap(), &vars).unwrap();
    [
        "-drive".into(),
        format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display()),
        "-drive".into(),
        format!("if=pflash,format=raw,unit=1,file={}", vars.display()),
        "-drive".into(),
        format!("if=none,id=disk,format=raw,file={}", disk.display()),
        "-device".into(),
        "virtio-blk-pci,drive=disk,bootindex=0".into(),
    ]
    .into()
}

fn work(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tenon-guest-{name}-files"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn from_disk(root: &Root, name: &str, boot: Boot) -> Machine {
    let files = work(name);
    let roots = Roots::from(root);
    let kernel = Kernel::find(&roots).unwrap();
    let initramfs = Initramfs::new(&roots, &kernel).build().unwrap();
    let disk = files.join("disk.img");
    GuestDisk::new(&roots, &kernel, &initramfs)
        .boot(boot)
        .write(&disk)
        .unwrap();
    Machine::start(name, &firmware(root, &files, &disk))
}

/// The kernel itself, as bzImage or as the ELF file in it, and what it is told.
fn direct(root: &Root, name: &str, elf: bool, more: &str, words: &str) -> Marks {
    let files = work(name);
    let roots = Roots::from(root);
    let kernel = Kernel::find(&roots).unwrap();
    let initramfs = files.join("initrd.img");
    fs::write(&initramfs, Initramfs::new(&roots, &kernel).build().unwrap()).unwrap();
    let mut image = kernel.image().to_path_buf();
    if elf {
        image = files.join("vmlinux");
        fs::write(&image, extract_vmlinux(kernel.image()).unwrap()).unwrap();
    }
    let mut arguments: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
    arguments.extend(["-kernel".into(), image.display().to_string()]);
    arguments.extend(["-initrd".into(), initramfs.display().to_string()]);
    arguments.extend(["-append".into(), cmdline(words)]);
    let mut machine = Machine::start(name, &arguments);
    let marks = machine.watch(Duration::from_secs(120));
    machine.heard();
    marks
}

#[test]
#[ignore = "boots two guests in QEMU, about a minute each, from packages that the lab fetches"]
fn guest_boots_from_its_disk_with_either_firmware() {
    for set in Set::ALL {
        let root = Store::open().unwrap().set(set).unwrap();
        let words = "drivers,tone,console,pause=2,frame,pause=2";
        let boot = Boot::Grub(GrubConfig::new(cmdline(words).replace("quiet ", "")));
        let mut machine = from_disk(&root, set.name(), boot);
        let marks = machine.watch(Duration::from_secs(240));
        machine.saw(&[
            Scene::Splash,
            Scene::Grub,
            Scene::KernelLog,
            Scene::Console,
            Scene::Frame,
        ]);
        machine.heard();
        let driver = |function: &str| marks.get(&format!("driver {function}")).unwrap().to_owned();
        assert_eq!(driver("0000:01:00.0"), "bochs-drm");
        for function in ["0000:01:00.1", "0000:00:1b.0"] {
            assert_eq!(driver(function), "snd_hda_intel");
            let tone = marks.get(&format!("tone {function}")).unwrap();
            assert_eq!((field(tone, "kind"), field(tone, "status")), (Some("msi"), Some("0")));
        }
        assert_eq!(marks.get("error"), None);
    }
}

#[test]
#[ignore = "boots a guest in QEMU, about half a minute, from packages that the lab fetches"]
fn guest_boots_from_the_shell() {
    let root = Store::open().unwrap().set(Set::New).unwrap();
    let mut machine = from_disk(&root, "startup", Boot::Shell(cmdline("efivar-write=A:b,efivar-read=A")));
    let marks = machine.watch(Duration::from_secs(120));
    machine.saw(&[Scene::Splash, Scene::Shell]);
    assert_eq!(marks.get("efivar A"), Some("b"));
}

#[test]
#[ignore = "boots two guests in QEMU, about ten seconds each, from packages that the lab fetches"]
fn guest_boots_directly() {
    for set in Set::ALL {
        let root = Store::open().unwrap().set(set).unwrap();
        let marks = direct(&root, "elf", true, "-smp 4", "cpus,tone");
        assert_eq!(marks.get("cpus"), Some("4 online=0-3 present=0-3"));
        let marks = direct(&root, "bzimage", false, "", "cpus,tone snd_hda_intel.enable_msi=0");
        assert_eq!(marks.get("cpus"), Some("1 online=0 present=0"));
        assert!(marks.about("tone").all(|(_, tone)| field(tone, "kind") == Some("intx")));
    }
}
