//! What `bind`, `release` and `run --bind` share: where the journal is, how the host is written to, what the user sees.

use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use vfio::host::bind::{Given, Journal, JournalError, LiveEffects, PlanError, Progress, StepError, TakeError, journal};
use vfio::host::{Sysfs, SysfsError};
use vfio::selection::SelectionError;

use crate::exit::{ExitStatus, Failure};

/// The hidden command by which this program writes to `/sys` for itself, in a process that may hang.
pub(super) const WRITE_COMMAND: &str = "sysfs-write";

/// The environment's word on where the journal is kept.
const VARIABLE: &str = "TENON_RUN_DIR";

/// How long a driver may take to let go.
#[derive(Debug, Args)]
pub(super) struct Patience {
    /// How long a driver has to let go of a function
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub(super) timeout: Duration,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("choose from 0.1 to 3600".to_owned()),
    }
}

/// Where the journal is kept.
pub(super) fn directory() -> PathBuf {
    let chosen = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    chosen.map_or_else(|| journal::DEFAULT_DIRECTORY.into(), PathBuf::from)
}

/// How the running host is written to.
pub(super) fn effects(limit: Duration, journal: &Journal) -> Result<LiveEffects, JournalError> {
    LiveEffects::through_this_program(&[WRITE_COMMAND], limit, journal)
}

/// Set when the user wants it to end: functions are then not left half taken.
#[derive(Debug, Clone)]
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// From now on the usual signals are only noted.
    pub(super) fn watch() -> Result<Self, OutputError> {
        let flag = Arc::new(AtomicBool::new(false));
        let hang_up = (!hang_up_is_ignored()).then_some(libc::SIGHUP);
        for signal in [libc::SIGINT, libc::SIGTERM].into_iter().chain(hang_up) {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(OutputError)?;
        }
        Ok(Self(flag))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether this was started to outlive its terminal, as by nohup.
pub(super) fn hang_up_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) & (1 << (libc::SIGHUP - 1)) != 0
}

/// Tells the user what is being done: a line for each function on standard error, and a spinner while a driver is
/// waited for.
#[derive(Debug)]
pub(super) struct Narrator {
    silent: bool,
    spinner: Option<ProgressBar>,
}

impl Narrator {
    pub(super) fn new(silent: bool) -> Self {
        Self { silent, spinner: None }
    }

    pub(super) fn tell(&mut self, progress: &Progress) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        if self.silent {
            return;
        }
        let line = match progress {
            Progress::Unbinding { bdf, driver } => {
                // Drawn on a terminal only, and not before it is worth it.
                let spinner = ProgressBar::new_spinner();
                spinner.set_message(format!("waiting for {driver} to let go of {bdf}"));
                spinner.enable_steady_tick(Duration::from_millis(250));
                self.spinner = Some(spinner);
                return;
            }
            Progress::Taken { bdf, from } => {
                format!("{bdf}  {} -> vfio-pci", from.as_deref().unwrap_or("no driver"))
            }
            Progress::GivenBack { bdf, given } => format!("{bdf}  {}", given_words(given)),
        };
        let _ = writeln!(io::stderr(), "{line}");
    }
}

pub(super) fn given_words(given: &Given) -> String {
    match given {
        Given::To(Some(driver)) => format!("back on {driver}"),
        Given::To(None) => "back on no driver".to_owned(),
        Given::ElsewhereBy(driver) => format!("left on {driver}, to which somebody else gave it"),
        Given::Gone => "no longer in this machine".to_owned(),
    }
}

/// Asks on the terminal; without one the answer must be on the command line.
pub(super) fn confirm(question: &str) -> Result<(), Unconfirmed> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Unconfirmed::NoTerminal);
    }
    let mut answer = String::new();
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let _ = io::stdin().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Unconfirmed::No),
    }
}

/// The user has not said yes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconfirmed {
    #[error("there is no terminal to ask on; say --yes to take them, or --dry-run to see the plan only")]
    NoTerminal,
    #[error("nothing was done")]
    No,
}

impl Failure for Unconfirmed {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }
}

/// What was to be said could not be.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output or watch for signals")]
pub(super) struct OutputError(#[source] pub(super) io::Error);

impl Failure for OutputError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }
}

/// Prints to standard output.
pub(super) fn print(text: &str) -> Result<(), OutputError> {
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(OutputError)
}

/// Prints JSON to standard output.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), OutputError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| OutputError(error.into()))?;
    print(&text)
}

/// Something is only done on the running host.
#[derive(Debug, thiserror::Error)]
#[error("--host shows another host, of which nothing can be changed; add --dry-run")]
pub(super) struct NotThisHost;

impl Failure for NotThisHost {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }
}

impl Failure for PlanError {
    fn status(&self) -> ExitStatus {
        match self {
            Self::Selection(
                SelectionError::Host(_) | SelectionError::NotOnVfio { .. } | SelectionError::NoIommu(_),
            )
            | Self::InUse { .. }
            | Self::Held { .. }
            | Self::Unfit { .. } => ExitStatus::Host,
            Self::Selection(_) | Self::NoSuchFunction(_) | Self::Display { .. } => ExitStatus::Configuration,
        }
    }

    fn hint(&self) -> Option<String> {
        self.remedy()
    }
}

impl Failure for TakeError {
    fn status(&self) -> ExitStatus {
        match *self.cause {
            StepError::Interrupted => ExitStatus::Stopped,
            _ => ExitStatus::Host,
        }
    }
}

impl Failure for JournalError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }
}

/// The host does not even list its functions.
#[derive(Debug, thiserror::Error)]
#[error("this host cannot be surveyed")]
pub(super) struct NoSurvey(#[source] pub(super) SysfsError);

impl Failure for NoSurvey {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }
}

/// The running host's functions.
pub(super) fn live() -> Sysfs {
    Sysfs::host()
}
