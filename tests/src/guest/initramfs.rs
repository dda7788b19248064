use super::{Error, Kernel, Result, Roots, elf, tone};
use crate::lab::cpio::Archive;
use std::{collections::HashSet, fs, io};

type Cpio = Archive<Vec<u8>>;

/// The modules of each thing the guest can be asked for; `init.sh` loads a group when a word needs it.
/// The generic codec comes before the controller: the latter gives up when it finds none.
const GROUPS: [(&str, &[&str]); 6] = [
    ("disk", &["virtio_pci", "virtio_blk"]),
    ("display", &["bochs"]),
    ("sound", &["snd_hda_codec_generic", "snd_hda_intel"]),
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
    "uname",
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
        let mut cpio = Archive::new(Vec::new());
        for folder in ["dev", "proc", "sys", "tmp", "root"] {
            cpio.dir(folder).map_err(whole)?;
        }
        cpio.file("init", 0o755, INIT.as_bytes()).map_err(whole)?;
        cpio.file(
            "bin/busybox",
            0o755,
            &self.roots.read(&["usr/bin/busybox", "bin/busybox"])?,
        )
        .map_err(whole)?;
        for applet in APPLETS {
            cpio.link(&format!("bin/{applet}"), "busybox").map_err(whole)?;
        }
        self.sound(&mut cpio)?;
        self.modules(&mut cpio)?;
        cpio.finish().map_err(whole)
    }

    fn sound(&self, cpio: &mut Cpio) -> Result<()> {
        let programs = ["aplay", "amixer"].map(|name| self.roots.find(&[&format!("usr/bin/{name}")]));
        let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
        for (name, path) in ["aplay", "amixer"].iter().zip(&programs) {
            let bytes = fs::read(path).map_err(Error::io(path))?;
            cpio.file(&format!("bin/{name}"), 0o755, &bytes).map_err(whole)?;
        }
        for (name, path) in elf::libraries(self.roots, &programs)? {
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            cpio.file(&format!("lib64/{name}"), 0o755, &bytes).map_err(whole)?;
        }
        cpio.link("lib", "lib64").map_err(whole)?;
        cpio.file("etc/alsa.conf", 0o644, SOUND_CONFIG.as_bytes())
            .map_err(whole)?;
        cpio.file("tone.raw", 0o644, &tone::second()).map_err(whole)
    }

    fn modules(&self, cpio: &mut Cpio) -> Result<()> {
        let mut added = HashSet::new();
        for (group, wanted) in GROUPS {
            let mut order = String::new();
            for module in self.kernel.closure(wanted)? {
                order += &format!("{}\n", module.name);
                if added.insert(module.name.clone()) {
                    cpio.file(&format!("modules/{}.ko", module.name), 0o644, &module.object)
                        .map_err(whole)?;
                }
            }
            cpio.file(&format!("modules/{group}"), 0o644, order.as_bytes())
                .map_err(whole)?;
        }
        Ok(())
    }
}

/// The archive is made in memory; only one too large for its format fails.
fn whole(source: io::Error) -> Error {
    Error::Io {
        path: "initramfs".into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::{APPLETS, INIT};
    use std::process::Command;

    #[test]
    fn init_is_a_shell_script() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guest/init.sh");
        assert!(Command::new("sh").args(["-n", path]).status().unwrap().success());
    }

    #[test]
    fn the_programs_init_calls_are_there() {
        let called = [
            "cat", "cmp", "cttyhack", "dd", "dmesg", "grep", "hexdump", "insmod", "mount", "poweroff", "reboot",
        ];
        let called = called.into_iter().chain([
            "rm",
            "setsid",
            "sha256sum",
            "sleep",
            "tail",
            "uname",
            "usleep",
            "wc",
            "xxd",
        ]);
        for program in called {
            assert!(INIT.contains(program) && APPLETS.contains(&program), "{program}");
        }
    }

    #[test]
    fn each_word_is_explained() {
        let (head, body) = INIT.split_once("\n\n").unwrap();
        let words = body
            .lines()
            .filter_map(|line| line.trim().split_once(')'))
            .filter(|(_, rest)| rest.ends_with(";;"));
        let words: Vec<_> = words
            .map(|(word, _)| word)
            .filter(|it| it.starts_with(char::is_lowercase))
            .collect();
        assert!(words.len() > 20, "{words:?}");
        for word in words.iter().flat_map(|word| word.split(" | ")) {
            assert!(head.contains(word), "{word}");
        }
    }
}
