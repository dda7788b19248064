//! Where log lines go: standard error, so that standard output is the guest's serial port alone.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::exit::{ExitStatus, Failure};

/// The environment's word on what is logged.
const VARIABLE: &str = "TENON_LOG";
/// When nobody says anything.
const DEFAULT: &str = "warn";

/// The environment asks for something that cannot be logged.
#[derive(Debug, thiserror::Error)]
#[error("TENON_LOG is `{0}`; set it to error, warn, info, debug or trace, or to a filter like `vfio=debug,warn`")]
pub(super) struct LogError(String);

impl Failure for LogError {
    fn status(&self) -> ExitStatus {
        ExitStatus::Configuration
    }
}

/// For clap: whether the filter is one.
pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Starts logging by the flag, else the environment.
pub(super) fn start(flag: Option<&str>) -> Result<(), LogError> {
    let variable = env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
    let chosen = flag.map(str::to_owned).or(variable).filter(|text| !text.is_empty());
    let text = chosen.unwrap_or_else(|| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|_| LogError(text))?;
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !plain)
        .with_target(false);
    // Only a second start in one process fails, and then the first one serves.
    let _ = subscriber.try_init();
    Ok(())
}
