//! What needs no lab host: formatting, lints, unit tests.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::Failure;
use super::tally::Tally;
use crate::lab::command;
use crate::lab::product::workspace;

/// The names of the checks, for filtering.
pub const NAMES: [&str; 3] = ["format", "lints", "unit"];

/// Runs the checks of these names and prints their results.
#[must_use]
pub fn run(names: &[&str]) -> Tally {
    let mut tally = Tally::default();
    for name in names {
        let start = Instant::now();
        let result = match *name {
            "format" => cargo(&["fmt", "--all", "--check"])
                .map(drop)
                .map_err(|(_, failure)| failure),
            "lints" => cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ])
            .map(drop)
            .map_err(|(_, failure)| failure),
            _ => {
                let (counted, result) = unit_tests();
                tally.add(counted);
                result
            }
        };
        tally.record(name, start.elapsed(), &result);
    }
    tally
}

/// All unit tests of the workspace, each counted for itself.
fn unit_tests() -> (Tally, Result<(), Failure>) {
    let result = cargo(&[
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
        "--",
        "--show-output",
    ]);
    let (output, result) = match result {
        Ok(output) => (output, Ok(())),
        Err((said, failure)) => (said, Err(failure)),
    };
    (count(&output), result)
}

/// Runs cargo in the workspace; a failure comes with all that was said.
fn cargo(args: &[&str]) -> Result<String, (String, Failure)> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(args).stdin(Stdio::null());
    match cargo.output() {
        Ok(output) => {
            let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() {
                return Ok(stdout);
            }
            let said = format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
            let failure = Failure::Wrong(format!(
                "cargo {}: {}\n{}",
                args[0],
                output.status,
                command::tail(&said, 60)
            ));
            Err((said, failure))
        }
        Err(error) => Err((String::new(), Failure::Wrong(format!("cannot run cargo: {error}")))),
    }
}

/// Counts what `cargo test` printed. A test that could not be tried passes, and prints a line `skipped: NAME: reason`.
fn count(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines().map(str::trim) {
        if let Some(reason) = line.strip_prefix("skipped: ") {
            println!("skip  {reason}");
            tally.skipped += 1;
            tally.passed = tally.passed.saturating_sub(1);
        } else if line.starts_with("test ") && line.contains("... ignored") {
            println!("skip  {}", line.trim_start_matches("test "));
        }
        let Some(counts) = line.strip_prefix("test result: ") else {
            continue;
        };
        let number = |word: &str| {
            let part = counts.split([';', '.']).find(|part| part.trim().ends_with(word));
            part.and_then(|part| part.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        tally.add(Tally {
            passed: number("passed"),
            failed: number("failed"),
            skipped: number("ignored"),
        });
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::{Tally, count};

    #[test]
    fn counts_each_test_of_each_crate() {
        let output = "test a ... ok\ntest b ... ignored, needs a GPU\n\
                      test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\nskipped: kvm: no /dev/kvm\n";
        assert_eq!(
            count(output),
            Tally {
                passed: 13,
                failed: 1,
                skipped: 2
            }
        );
    }
}
