//! Why functions were not taken or not given back.

use std::io;
use std::time::Duration;

use super::effects::{LoadError, WriteError};
use super::holders::{Holder, list};
use super::journal::JournalError;
use crate::container::OpenError;
use crate::host::{Bdf, SysfsError};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The function's facts.
    #[error(transparent)]
    Facts(#[from] SysfsError),
    /// The journal. Nothing is done that is not written down first.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel refused.
    #[error("{bdf}: {source}")]
    Write {
        /// The function.
        bdf: Bdf,
        /// What was written where.
        source: WriteError,
    },
    /// The driver has not let go.
    #[error(
        "{driver} has not let go of {bdf} within {} s; {}. The kernel goes on unbinding it and cannot be stopped: once \
         they have closed it, `tenon release {bdf}` gives it back to {driver}",
        limit.as_secs_f32(), blame(holders)
    )]
    Stuck {
        /// The function.
        bdf: Bdf,
        /// The driver that is being unbound.
        driver: String,
        /// How long it had.
        limit: Duration,
        /// Who has it open.
        holders: Vec<Holder>,
    },
    /// The function is in use.
    #[error("{bdf} is in use: {}; end that first", list(holders))]
    InUse {
        /// The function.
        bdf: Bdf,
        /// By whom.
        holders: Vec<Holder>,
    },
    /// All was written without complaint, and yet it is on another driver.
    #[error(
        "{bdf} was given to {wanted}, but is on {}; the kernel's log (dmesg) says why",
        now.as_deref().unwrap_or("no driver")
    )]
    NotBound {
        /// The function.
        bdf: Bdf,
        /// The driver it should have.
        wanted: String,
        /// The driver it has.
        now: Option<String>,
    },
    /// A module is needed and does not load.
    #[error("the driver {driver} is not there: {source}")]
    Module {
        /// The driver.
        driver: String,
        /// Why.
        source: LoadError,
    },
    /// There are no modules for the running kernel.
    #[error(
        "the driver {driver} is not there, and /lib/modules/{running} with the modules of the running kernel is not \
         either (there are: {}): the kernel was upgraded since the last boot; reboot",
        named(installed)
    )]
    OtherKernel {
        /// The driver.
        driver: String,
        /// Release of the running kernel.
        running: String,
        /// What is in `/lib/modules`.
        installed: Vec<String>,
    },
    /// The group does not open.
    #[error(transparent)]
    Group(#[from] OpenError),
    /// A signal.
    #[error("interrupted")]
    Interrupted,
}

fn blame(holders: &[Holder]) -> String {
    match holders.is_empty() {
        true => "no process was found that has it open (without root not all can be seen)".to_owned(),
        false => format!("it is held by {}", list(holders)),
    }
}

fn named(installed: &[String]) -> String {
    match installed.is_empty() {
        true => "none".to_owned(),
        false => installed.join(", "),
    }
}

/// Functions were not taken; those that had been are as before, except where it says otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{cause}{}", outcome(undone, left))]
pub struct TakeError {
    /// What went wrong.
    pub cause: Box<StepError>,
    /// Functions that were given back.
    pub undone: Vec<Bdf>,
    /// Functions that could not be given back; they stay in the journal.
    pub left: Vec<(Bdf, StepError)>,
}

impl From<StepError> for TakeError {
    fn from(cause: StepError) -> Self {
        Self {
            cause: Box::new(cause),
            undone: Vec::new(),
            left: Vec::new(),
        }
    }
}

fn outcome(undone: &[Bdf], left: &[(Bdf, StepError)]) -> String {
    let mut text = String::new();
    if !undone.is_empty() {
        let undone: Vec<String> = undone.iter().map(ToString::to_string).collect();
        text += &format!("\nundone: {} as before", undone.join(", "));
    }
    for (bdf, error) in left {
        text += &format!("\nnot undone: {bdf}: {error}");
    }
    text
}

/// The remedy for a file of the host that only root may write.
pub(super) fn root_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        _ => "",
    }
}
