//! What holds for the tree as a whole.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this holds two ideas.
const LINES_MAX: usize = 620;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Two copies of one of these would be two sets of types that do not fit each other.
#[test]
fn each_rust_vmm_crate_is_there_once() {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for name in lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
    {
        *versions.entry(name).or_default() += 1;
    }
    let crates = [
        "acpi_tables",
        "event-manager",
        "kvm-bindings",
        "kvm-ioctls",
        "linux-loader",
        "vfio-bindings",
        "vfio-ioctls",
        "virtio-bindings",
        "virtio-queue",
        "vm-memory",
        "vm-superio",
        "vmm-sys-util",
    ];
    for name in crates {
        assert_eq!(versions.get(name), Some(&1), "{name} in Cargo.lock");
    }
}

#[test]
fn no_file_holds_two_ideas() {
    let mut folders = vec![workspace()];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(entry);
            } else if name.ends_with(".rs") {
                read += 1;
                let lines = fs::read_to_string(&entry).expect("source is text").lines().count();
                assert!(lines <= LINES_MAX, "{}: {lines} lines", entry.display());
            }
        }
    }
    assert!(read > 100, "only {read} files were found");
}
