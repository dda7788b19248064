//! Scenarios: what is tried in a lab host, and what counts as having worked.

pub mod checks;
pub mod runner;
pub mod tally;

use std::path::Path;
use std::time::Duration;

use crate::lab::{Config, Hardware, HostError, LabHost, Set};

/// Why a scenario did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was to be seen was not.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be tried here.
    #[error("skipped: {0}")]
    Skipped(String),
    /// The lab host failed it.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Failure {
    /// Fails with a message unless the condition holds.
    ///
    /// # Errors
    /// When it does not hold.
    pub fn unless(holds: bool, message: impl FnOnce() -> String) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::Wrong(message())) }
    }
}

/// What kind of lab host a scenario wants. Scenarios with equal wishes share a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose kernel and firmware.
    pub set: Set,
    /// The machine.
    pub hardware: Hardware,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            set: Set::New,
            hardware: Hardware::default(),
        }
    }
}

impl Wish {
    /// The usual machine with a set's kernel and firmware.
    #[must_use]
    pub fn of(set: Set) -> Self {
        Self { set, ..Self::default() }
    }

    fn config(&self, logs: &Path) -> Config {
        Config {
            hardware: self.hardware.clone(),
            ..Config::new(self.set, logs.to_path_buf())
        }
    }
}

/// Something to try in a lab host. It leaves the host as it found it, except that monitors still running are ended
/// for it; after a failure the host is thrown away.
pub trait Scenario: Sync {
    /// A short name, words joined by hyphens; it is also the name of its log folder.
    fn name(&self) -> &'static str;

    /// What it shows, in one line.
    fn shows(&self) -> &'static str;

    /// The host it wants.
    fn wish(&self) -> Wish {
        Wish::default()
    }

    /// About how long it takes; the longest are started first.
    fn cost(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Tries it. `logs` is a folder of its own.
    ///
    /// # Errors
    /// Says what was wrong, or why it cannot be tried.
    fn run(&self, host: &mut LabHost, logs: &Path) -> Result<(), Failure>;
}
