//! Results as they come in, and the closing line.

use std::fmt;
use std::time::Duration;

use super::Failure;

/// How many passed, failed and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seen to be right.
    pub passed: u32,
    /// Seen to be wrong.
    pub failed: u32,
    /// Not tried, each with its reason printed.
    pub skipped: u32,
}

impl Tally {
    /// Prints one result and counts it.
    pub fn record(&mut self, name: &str, took: Duration, result: &Result<(), Failure>) {
        let seconds = took.as_secs_f32();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("pass  {name} ({seconds:.1} s)");
            }
            Err(Failure::Skipped(reason)) => {
                self.skipped += 1;
                println!("skip  {name}: {reason}");
            }
            Err(failure) => {
                self.failed += 1;
                println!("FAIL  {name} ({seconds:.1} s)\n{}", indented(failure));
            }
        }
    }

    /// Takes in another count.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The whole chain of an error, set off from the results around it.
fn indented(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text.lines().map(|line| format!("      {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn closes_with_the_line_that_ci_reads() {
        assert_eq!(
            Tally {
                passed: 3,
                failed: 0,
                skipped: 1
            }
            .to_string(),
            "3 passed, 0 failed, 1 skipped"
        );
    }
}
