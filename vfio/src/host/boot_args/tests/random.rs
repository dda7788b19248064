//! Random files: what is put in comes out again to the byte, whatever stands around it.

use super::super::place::Edited;
use super::*;

/// xorshift64*: the same files on each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(value).unwrap() % limit
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

const WORDS: &[&str] = &[
    "quiet",
    "ro",
    "iommu=pt",
    "intel_iommu=on",
    "intel_iommu=off",
    "vfio-pci.ids=1:2",
    "vfio_pci.ids=10de:1401",
    "pci-stub.ids=8086:0152",
    "rd.driver.pre=vfio-pci",
    "a=b,c",
    "root=UUID=0a34-de",
    "$tuned_params",
    "x='y'",
];
const SPACES: &[&str] = &[" ", " ", " ", "  ", "\t", " \t "];
const NOISE: &[&str] = &[
    "# GRUB_CMDLINE_LINUX=\"commented out\"\n",
    "GRUB_TIMEOUT=5\n",
    "\n",
    "GRUB_X='it is'\n",
    "  \n",
    "GRUB_D=`( . /etc/os-release; echo ${NAME:-Debian} ) 2>/dev/null || echo Debian`\n",
    "GRUB_E=\"$(sed 's, release .*$,,g' /etc/system-release)\"\n",
    "if [ -n \"$A\" ]; then B=1; fi # don't\n",
    "title caf\u{e9}\n",
    "GRUB_LONG=\"one\\\n two\"\n",
    "linux /vmlinuz\n",
];

fn line(random: &mut Random) -> String {
    let mut text = random.of(&["", "", " "]).to_owned();
    for _ in 0..random.below(6) {
        text += random.of(WORDS);
        text += random.of(SPACES);
    }
    match random.below(3) {
        0 => text,
        _ => text.trim_end().to_owned(),
    }
}

fn shell_line(random: &mut Random) -> String {
    let words = line(random).replace('\'', "");
    let value = match random.below(5) {
        0 => format!("'{words}'"),
        1 => random.of(&["", "quiet", "iommu=pt"]).to_owned(),
        2 => format!("\"{words}\"' end'"),
        _ => format!("\"{words}\""),
    };
    let name = random.of(&["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"]);
    let export = random.of(&["", "", "  ", "export "]);
    format!(
        "{export}{name}={value}{}\n",
        random.of(&["", "", " # why", "\r", "; X=1"])
    )
}

fn file(random: &mut Random, place: &Place) -> String {
    let mut text = String::new();
    for _ in 0..random.below(7) {
        text += &match random.below(3) {
            0 => match place {
                Place::Shell { .. } => shell_line(random),
                Place::Line => line(random) + "\n",
                Place::Options => format!(
                    "{}{}\n",
                    random.of(&["options ", "options\t", " options  "]),
                    line(random)
                ),
                Place::List => format!("{}\n", random.of(&["vfio", "raid1", " sd_mod "])),
            },
            _ => random.of(NOISE).to_owned(),
        };
    }
    if random.below(4) == 0 {
        text.pop();
    }
    text
}

fn places() -> [Place; 4] {
    let shell = Place::Shell {
        variable: "GRUB_CMDLINE_LINUX".into(),
        others: vec!["GRUB_CMDLINE_LINUX_DEFAULT".into()],
    };
    [shell, Place::Line, Place::Options, Place::List]
}

#[test]
fn arguments_come_and_go_without_a_trace() {
    let wanted: Vec<String> = [
        "intel_iommu=on",
        "iommu=pt",
        "rd.driver.pre=vfio-pci",
        "vfio-pci.ids=10de:1401,10de:0fba",
    ]
    .map(str::to_owned)
    .into();
    let mut random = Random(0x7e40);
    let mut edited_files = 0;
    for round in 0..6_000 {
        let place = &places()[round % 4];
        let text = file(&mut random, place);
        let Ok(edited) = place.edit(text.as_bytes(), &wanted, |_| false) else {
            continue;
        };
        let Edited { bytes, added, taken } = edited;
        assert!(taken.is_empty());
        edited_files += usize::from(!added.is_empty());
        let again = place.edit(&bytes, &wanted, |_| false).unwrap();
        assert_eq!((&again.bytes, again.added.len()), (&bytes, 0), "{place:?}\n{text}");
        // All that stood there still does, in its order.
        let mut left = bytes.iter();
        assert!(
            text.bytes().all(|byte| left.any(|other| *other == byte)),
            "{place:?}\n{text}"
        );

        // Words alone, as after an edit by hand: the same arguments as before are in force.
        let restored = place.restore(&bytes, &added, &[]).unwrap();
        let arguments = |bytes: &[u8]| place.arguments(bytes).unwrap_or_default();
        assert_eq!(arguments(&restored), arguments(text.as_bytes()), "{place:?}\n{text}");
    }
    assert!(edited_files > 3_000, "{edited_files}");
}

/// What a real shell makes of the file, as grub-mkconfig has it.
fn sourced(path: &Path) -> Option<Vec<String>> {
    let script = ". \"$1\" 2> /dev/null; printf %s \"$GRUB_CMDLINE_LINUX\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(path)
        .env_clear()
        .env("PATH", std::env::var_os("PATH")?)
        .env("tuned_params", "$tuned_params")
        .output()
        .ok()?;
    let value = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| super::super::words::split(&value))
}

#[test]
fn a_shell_finds_what_was_added() {
    let place = Place::Shell {
        variable: "GRUB_CMDLINE_LINUX".into(),
        others: Vec::new(),
    };
    let wanted = ["pcie_acs=1".to_owned(), "vfio-pci.ids=10de:1401,10de:0fba".to_owned()];
    let dir = in_memory();
    let path = dir.as_path().join("grub");
    let mut random = Random(0x6b);
    let mut compared = 0;
    for _ in 0..300 {
        let text = file(&mut random, &place);
        let Ok(edited) = place.edit(text.as_bytes(), &wanted, |_| false) else {
            continue;
        };
        std::fs::write(&path, &text).unwrap();
        let Some(before) = sourced(&path) else { continue };
        std::fs::write(&path, &edited.bytes).unwrap();
        let after = sourced(&path).unwrap();
        assert_eq!(after, [before, edited.added].concat(), "{text}");
        compared += 1;
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn whole_trees_come_back_to_the_byte() {
    let (_dir, host) = z77();
    let mut random = Random(0xb007);
    for round in 0..60 {
        let (distribution, path) = [
            ("fedora", "etc/default/grub"),
            ("arch-uki", "etc/kernel/cmdline"),
            ("arch-systemd-boot", "boot/loader/entries/arch.conf"),
            ("debian", "etc/initramfs-tools/modules"),
            ("opensuse-leap", "etc/default/grub"),
        ][round % 5];
        let place = match path {
            "etc/default/grub" => &places()[0],
            "etc/kernel/cmdline" => &places()[1],
            "boot/loader/entries/arch.conf" => &places()[2],
            _ => &places()[3],
        };
        let installed = Installed::of(distribution);
        let text = file(&mut random, place);
        std::fs::write(installed.path().join(path), &text).unwrap();
        let before = snapshot(installed.path());
        let replace = round % 2 == 0;
        let plan = BootPlan::for_system(&host, &installed.tree(), &bdfs(&["01:00.0"]), replace).unwrap();
        match Edits::applying(&plan, &installed.tree()) {
            Ok(edits) => installed.carry_out(&edits),
            Err(EditError::Place { .. } | EditError::Defeated { .. }) => continue,
            Err(error) => panic!("{error}"),
        }
        let again = Edits::applying(&plan, &installed.tree()).unwrap();
        assert!(again.is_empty(), "{text}\n{}", again.diff());
        installed.remove();
        assert_eq!(snapshot(installed.path()), before, "{text}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = Random(0xdead);
    for round in 0..6_000 {
        let place = &places()[round % 4];
        let length = random.below(60);
        let choices = b"GRUB_CMDLINE_LINUX=\"' \\\n\r\t#options$`()\0\xff\xc3;&|";
        let mut bytes: Vec<u8> = (0..length).map(|_| choices[random.below(choices.len())]).collect();
        if random.below(2) == 0 {
            bytes.splice(0..0, *b"GRUB_CMDLINE_LINUX=");
        }
        let wanted = ["iommu=pt".to_owned()];
        if let Ok(edited) = place.edit(&bytes, &wanted, |_| false) {
            assert!(
                place.arguments(&edited.bytes).unwrap().contains(&wanted[0]),
                "{bytes:?}"
            );
            place.restore(&edited.bytes, &edited.added, &edited.taken).unwrap();
        }
    }
}
