//! `tenon check` as a program: what it prints, and the status it ends with.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vmm_sys_util::tempdir::TempDir;

fn tenon(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenon"))
        .arg("check")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may have ended by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn capture(name: &str) -> String {
    let hosts: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/hosts");
    hosts.join(format!("{name}.tar.zst")).to_str().unwrap().to_owned()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn the_status_tells_whether_a_run_would_work() {
    for (name, status) in [
        ("x570-acs", 0),
        ("two-t400", 0),
        ("z77-by-mistake", 3),
        ("proliant-rmrr", 3),
    ] {
        let output = tenon(&["--host", &capture(name)], "");
        assert_eq!(output.status.code(), Some(status), "{name}: {}", stdout(&output));
        assert!(!stdout(&output).contains('\u{1b}'), "colour without a terminal");
    }
    let host = capture("x570-acs");
    let output = tenon(&["--host", &host, "--device", "2d:00.0", "--json"], "");
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (report["schema"].as_u64(), report["works"].as_bool()),
        (Some(1), Some(false))
    );
    let lines = report["lines"].as_array().unwrap();
    let failed: Vec<_> = lines.iter().filter(|line| line["status"] == "fail").collect();
    assert!(
        failed
            .iter()
            .all(|line| line["requirement"] == "devices" && line["remedy"].is_string()),
        "{failed:#?}"
    );
    let output = tenon(&["--host", &host, "--memory", "512G"], "");
    assert!(
        output.status.code() == Some(3) && stdout(&output).contains("512 GiB wanted"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn logs_are_looked_through() {
    let log = "boot\n[ 44.7] vfio-pci 0000:05:00.0: BAR 0: can't reserve [mem 0xd0000000-0xdfffffff 64bit pref]\n";
    let output = tenon(&["--scan", "-"], log);
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).contains("0000:05:00.0: the boot framebuffer sits in the device's BAR (bar-taken)"));

    let directory = TempDir::new().unwrap();
    let (clean, broken) = (
        directory.as_path().join("clean.log"),
        directory.as_path().join("broken.log"),
    );
    std::fs::write(&clean, "nothing\n").unwrap();
    std::fs::write(&broken, log).unwrap();
    let (clean, broken) = (clean.to_str().unwrap(), broken.to_str().unwrap());
    assert_eq!(tenon(&["--scan", clean], "").status.code(), Some(0));
    let output = tenon(&["--scan", clean, "--scan", broken, "--json"], "");
    assert_eq!(output.status.code(), Some(3));
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let seen = &reports[1]["sightings"][0];
    assert_eq!(
        (seen["symptom"].as_str(), seen["line"].as_u64()),
        (Some("bar-taken"), Some(2))
    );
    assert!(reports[0]["sightings"].as_array().unwrap().is_empty());
}

#[test]
fn failures_are_explained_and_listed() {
    let output = tenon(&["--explain", "amd-reset-bug"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("vendor-reset"), "{}", stdout(&output));
    assert!(
        stdout(&output).lines().all(|line| line.chars().count() <= 80),
        "{}",
        stdout(&output)
    );
    let output = tenon(&["--list-symptoms"], "");
    assert!(stdout(&output).lines().count() >= 40 && stdout(&output).contains("\ngroup-not-viable "));
}

#[test]
fn what_makes_no_sense_is_a_matter_of_configuration() {
    for arguments in [
        &["--explain", "nothing"][..],
        &["--explain", "memlock", "--json"],
        &["--scan", "-", "--device", "01:00.0"],
        &["--scan", "/nowhere.log"],
        &["--config", "/nowhere.toml"],
        &["--host", "/nowhere.tar.zst"],
        &["--device", "gpu"],
        &["--memory", "8"],
    ] {
        let output = tenon(arguments, "");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}
