//! External programs: run to the end, with an error that says what was run and what it said.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// How an external program failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program as named.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program as named.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of what it printed.
        said: String,
    },
}

/// Runs a program to its end without a terminal and returns its standard output.
///
/// # Errors
/// When it cannot be started or exits with anything but success.
pub fn run(command: &mut Command) -> Result<String, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CommandError::Start {
            program: program.clone(),
            source,
        })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let said = format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    Err(CommandError::Failed {
        program,
        status: output.status,
        said: tail(&said, 15),
    })
}

/// The last `count` lines of a text.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
