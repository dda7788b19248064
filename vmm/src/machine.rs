//! Placeholder until the machine is here.

use std::fmt;

use serde::Serialize;

use crate::config::RunConfig;
use crate::exit::{ExitStatus, Failure};

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest powered off.
    PoweredOff,
    /// A second signal stopped it.
    Stopped,
    /// Nothing was run; this would have been built.
    Planned(Box<Plan>),
}

/// What would be built.
#[derive(Debug, Serialize)]
pub struct Plan {
    config: RunConfig,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#?}", self.config)
    }
}

/// Why a machine was not run.
#[derive(Debug, thiserror::Error)]
#[error("machines are not built yet")]
pub struct Error;

impl Failure for Error {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }
}

/// Builds a machine and runs it until it ends; with `dry_run`, says what would be built.
///
/// # Errors
/// When the host or the guest fails.
pub fn run(config: RunConfig, dry_run: bool) -> Result<Outcome, Error> {
    if dry_run {
        Ok(Outcome::Planned(Box::new(Plan { config })))
    } else {
        Err(Error)
    }
}
