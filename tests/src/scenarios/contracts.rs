//! What tenon counts on KVM to do, shown on the lab host's real KVM by the same tests that run wherever there is a `/dev/kvm`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::product::{target_dir, workspace};
use crate::lab::{LabHost, command};
use crate::scenario::{Failure, Scenario};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// `vmm/tests/kvm_contract.rs`, in the lab host.
#[derive(Debug)]
pub struct KvmContracts;

impl Scenario for KvmContracts {
    fn name(&self) -> &'static str {
        "kvm-contracts"
    }

    fn shows(&self) -> &'static str {
        "the KVM contract tests pass on a KVM that is not the build machine's"
    }

    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure> {
        let program = build()?;
        let place = host.out().join("kvm-contract");
        fs::copy(&program, &place).map_err(|error| Failure::Wrong(format!("{}: {error}", program.display())))?;
        // From memory: over the shared folder every page of it would be a trip to the build machine.
        let script = "cp /out/kvm-contract /tmp/ && rm /out/kvm-contract && chmod +x /tmp/kvm-contract && /tmp/kvm-contract \
                      --test-threads 1 --nocapture 2>&1; status=$?; rm -f /tmp/kvm-contract; exit $status";
        let output = host.exec(script, Duration::from_secs(120))?;
        // Only for reading by people.
        let _ = fs::write(logs.join("kvm-contracts.log"), &output.stdout);
        let said = || command::tail(&output.stdout, 30);
        Failure::unless(output.success(), || format!("status {}\n{}", output.status, said()))?;
        // A test that finds no KVM says so and passes; none did.
        Failure::unless(!output.stdout.contains("SKIPPED"), || {
            format!("not all were run\n{}", said())
        })?;
        let passed = output.stdout.lines().find_map(|line| {
            let counts = line.strip_prefix("test result: ok. ")?;
            counts.split_whitespace().next()?.parse::<u32>().ok()
        });
        let wanted = declared()?;
        Failure::unless(passed == Some(wanted), || {
            format!("{passed:?} of {wanted} tests passed\n{}", said())
        })
    }
}

/// How many tests the file declares, so that an empty run is none that passed.
fn declared() -> Result<u32, Failure> {
    let source = workspace().join("vmm/tests/kvm_contract.rs");
    let text = fs::read_to_string(&source).map_err(|error| Failure::Wrong(format!("{}: {error}", source.display())))?;
    let count = text.lines().filter(|line| line.trim() == "#[test]").count();
    u32::try_from(count).map_err(|error| Failure::Wrong(error.to_string()))
}

/// Builds the test program as the monitor is built for the lab: static, beside it.
fn build() -> Result<PathBuf, Failure> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args([
            "test",
            "--no-run",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
        ])
        .args([
            "--package",
            "tenon",
            "--test",
            "kvm_contract",
            "--message-format",
            "json",
        ])
        .env("CARGO_TARGET_DIR", target_dir().join("lab-static"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let messages = command::run(&mut cargo).map_err(|error| Failure::Wrong(format!("the contract tests: {error}")))?;
    let program = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kvm_contract")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    program.ok_or_else(|| Failure::Wrong("cargo built no program of the contract tests".to_owned()))
}
