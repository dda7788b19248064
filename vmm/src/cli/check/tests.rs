//! The answers on the captured hosts, as people see them; and what is said of guests and logs.

use std::fs;
use std::path::{Path, PathBuf};

use vfio::host::check::{Facts, Status, check};
use vfio::host::{Capture, HostTree};

use super::*;
use crate::check::Guest;
use crate::cli::page::Page;
use crate::config::Config;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn answer(tree: &HostTree, guest: &Guest) -> Report {
    let facts = Facts::of(tree.clone(), guest.wanted()).unwrap();
    let mut lines = check(&facts);
    lines.extend(guest.lines(tree, false));
    Report::new(lines)
}

/// With `BLESS` in the environment the files are written anew, to be read before they are committed.
#[test]
fn captured_hosts_get_the_answer_that_was_found_right() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/check/golden");
    let mut seen = 0;
    for entry in fs::read_dir(repository().join("resources/hosts")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_suffix(".tar.zst") else {
            continue;
        };
        let tree = Capture::open(&path).unwrap().into_tree();
        let mut page = Page::plain();
        answer(&tree, &Guest::default()).write(&mut page);
        let text = page.text();
        let file = golden.join(format!("{name}.txt"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, text).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            text,
            expected,
            "{}: `BLESS=1 cargo test -p tenon check` writes it anew",
            file.display()
        );
        for line in text.lines().filter(|line| line.chars().count() > 80) {
            assert!(
                line.trim_start().split(' ').count() <= 2,
                "a line too long for a terminal: {line}"
            );
        }
        seen += 1;
    }
    assert!(seen >= 2);
}

/// What the author of the procedure met: the wrong IDs on the kernel command line.
#[test]
fn the_mistake_of_the_z77_is_explained() {
    let tree = Capture::open(&repository().join("resources/hosts/z77-by-mistake.tar.zst"))
        .unwrap()
        .into_tree();
    let report = answer(&tree, &Guest::default());
    assert!(!report.works());
    let json = serde_json::to_value(&report).unwrap();
    let lines = json["lines"].as_array().unwrap();
    let isolation: Vec<_> = lines.iter().filter(|line| line["requirement"] == "isolation").collect();
    let (mistake, instead) = (isolation[0], isolation[1]);
    assert_eq!(
        (mistake["status"].as_str(), mistake["symptom"].as_str()),
        (Some("fail"), Some("half-bound-slot"))
    );
    let seen = mistake["seen"].as_str().unwrap();
    assert!(seen.contains("01:00.1 is left to snd_hda_intel"), "{seen}");
    assert!(seen.contains("will crash the host at guest shutdown"), "{seen}");
    let remedy = mistake["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("vfio-pci.ids=10de:1401,10de:0fba,8086:1e20 in place of"),
        "{remedy}"
    );
    let seen = instead["seen"].as_str().unwrap();
    assert!(seen.contains("00:01.0 and 00:02.0 are on pci-stub"), "{seen}");
}

#[test]
fn all_that_a_guest_lacks_is_listed() {
    let toml =
        "firmware = \"/nowhere/OVMF.fd\"\n[[disk]]\npath = \"/nowhere/a.img\"\n[[disk]]\npath = \"/nowhere/b.img\"\n";
    let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let file = directory.as_path().join("vm.toml");
    fs::write(&file, toml).unwrap();
    let guest = Guest {
        config: Some(Config::from_file(&file).unwrap()),
        ..Guest::default()
    };
    let lines = guest.lines(&HostTree::live(), false);
    let seen: Vec<&str> = lines.iter().map(|line| line.finding.seen.as_str()).collect();
    for path in ["/nowhere/OVMF.fd", "/nowhere/a.img", "/nowhere/b.img"] {
        assert!(
            seen.iter().any(|seen| seen.contains(path)),
            "{path} is not among {seen:#?}"
        );
    }
    assert!(
        lines.iter().all(|line| line.finding.status == Status::Fail) && lines.len() == 3,
        "{lines:#?}"
    );

    let elsewhere = guest.lines(&HostTree::at(directory.as_path()), false);
    assert_eq!(elsewhere[0].finding.status, Status::Unknown);
}

#[test]
fn flags_add_to_what_a_configuration_wants() {
    let toml = "memory = \"4G\"\nkernel = \"k\"\n[[device]]\naddress = \"01:00.0\"\n";
    let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let file = directory.as_path().join("vm.toml");
    fs::write(&file, toml).unwrap();
    let mut guest = Guest {
        config: Some(Config::from_file(&file).unwrap()),
        devices: vec!["01:00.0".parse().unwrap(), "01:00.1".parse().unwrap()],
        memory: None,
    };
    assert_eq!(
        (guest.wanted().devices.len(), guest.wanted().memory),
        (2, Some(4 << 30))
    );
    guest.memory = Some(8 << 30);
    assert_eq!(guest.wanted().memory, Some(8 << 30));
}

#[test]
fn a_log_is_answered_without_what_a_terminal_obeys() {
    let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let file = directory.as_path().join("qemu.log");
    fs::write(
        &file,
        "boot\nvfio 0000:01:00.0: group 1 is not viable \x1b[2J\u{202e}\n",
    )
    .unwrap();
    let report = LogReport::of(&file).unwrap();
    assert!(!report.is_clean());
    let mut page = Page::plain();
    report.write(&mut page);
    let text = page.text().to_owned();
    assert!(
        text.contains("1 known failure in 2 lines") && text.contains("line 2:"),
        "{text}"
    );
    assert!(
        text.contains("`tenon devices --group 1`") && text.contains("`tenon bind 0000:01:00.0`"),
        "{text}"
    );
    let json = serde_json::to_string(&report).unwrap();
    for shown in [&text, &json] {
        assert!(
            !shown.contains('\u{1b}') && !shown.contains("u001b") && !shown.contains('\u{202e}'),
            "{shown}"
        );
    }
    let error = LogReport::of(Path::new("/nowhere.log")).unwrap_err().to_string();
    assert!(error.contains("/nowhere.log"), "{error}");
}
