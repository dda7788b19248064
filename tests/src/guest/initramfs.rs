use super::{Error, Kernel, Result, Roots, cpio::Cpio, elf, tone};
use std::fs;

/// The modules of each thing the guest can be asked for; `init.sh` loads a group when a word needs it.
/// The generic codec comes before the controller: the latter gives up when it finds none.
const GROUPS: [(&str, &[&str]); 6] = [
    ("disk", &["virtio_blk"]),
    ("display", &["bochs"]),
    (
        "sound",
        &["snd_hda_codec_generic", "snd_hda_codec_hdmi", "snd_hda_intel"],
    ),
    ("variables", &["efivarfs"]),
    ("processor", &["cpuid", "msr"]),
    ("button", &["button", "evdev"]),
];

/// The busybox programs that `init.sh` or a person at the serial shell calls.
const APPLETS: &[&str] = &[
    "awk",
    "blockdev",
    "cat",
    "cmp",
    "cp",
    "cttyhack",
    "cut",
    "date",
    "dd",
    "dmesg",
    "echo",
    "find",
    "free",
    "grep",
    "halt",
    "head",
    "hexdump",
    "insmod",
    "kill",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mknod",
    "more",
    "mount",
    "mv",
    "poweroff",
    "printf",
    "ps",
    "readlink",
    "reboot",
    "rm",
    "rmmod",
    "sed",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stty",
    "sync",
    "tail",
    "tee",
    "timeout",
    "touch",
    "tr",
    "umount",
    "uniq",
    "uptime",
    "usleep",
    "vi",
    "wc",
    "xxd",
    "yes",
];

const INIT: &str = include_str!("init.sh");
const SOUND_CONFIG: &str = include_str!("alsa.conf");

/// Builds the guest's initramfs. It is the same for every way of booting.
#[derive(Debug)]
pub struct Initramfs<'a> {
    roots: &'a Roots,
    kernel: &'a Kernel,
}

impl<'a> Initramfs<'a> {
    /// From the packages busybox-static, alsa-utils, libasound2, libc6 in `roots`, and the modules of `kernel`.
    #[must_use]
    pub fn new(roots: &'a Roots, kernel: &'a Kernel) -> Self {
        Self { roots, kernel }
    }

    /// The archive, uncompressed: unpacking would cost the emulated machine more than reading does.
    ///
    /// # Errors
    /// A package is missing, or a file of one is not what it should be.
    pub fn build(&self) -> Result<Vec<u8>> {
        let mut cpio = Cpio::default();
        for folder in ["dev", "proc", "sys", "tmp", "root"] {
            cpio.folder(folder);
        }
        cpio.program("init", INIT.as_bytes());
        cpio.program("bin/busybox", &self.roots.read(&["usr/bin/busybox", "bin/busybox"])?);
        for applet in APPLETS {
            cpio.link(&format!("bin/{applet}"), "busybox");
        }
        self.sound(&mut cpio)?;
        self.modules(&mut cpio)?;
        Ok(cpio.finish())
    }

    fn sound(&self, cpio: &mut Cpio) -> Result<()> {
        let programs = ["aplay", "amixer"].map(|name| (name, self.roots.find(&[&format!("usr/bin/{name}")])));
        let mut paths = Vec::new();
        for (name, path) in programs {
            let path = path?;
            cpio.program(&format!("bin/{name}"), &fs::read(&path).map_err(Error::io(&path))?);
            paths.push(path);
        }
        for (name, path) in elf::libraries(self.roots, &paths)? {
            cpio.program(&format!("lib64/{name}"), &fs::read(&path).map_err(Error::io(&path))?);
        }
        cpio.link("lib", "lib64");
        cpio.file("etc/alsa.conf", SOUND_CONFIG.as_bytes());
        cpio.file("tone.raw", &tone::second());
        Ok(())
    }

    fn modules(&self, cpio: &mut Cpio) -> Result<()> {
        let mut added = std::collections::HashSet::new();
        for (group, wanted) in GROUPS {
            let mut order = String::new();
            for module in self.kernel.closure(wanted)? {
                order += &format!("{}\n", module.name);
                if added.insert(module.name.clone()) {
                    cpio.file(&format!("modules/{}.ko", module.name), &module.object);
                }
            }
            cpio.file(&format!("modules/{group}"), order.as_bytes());
        }
        Ok(())
    }
}
