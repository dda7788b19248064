//! How the program ends, as its caller sees it.

use std::error::Error;
use std::process::ExitCode;

/// Exit statuses. Each kind of failure has its own, so that a script can tell what to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitStatus {
    /// The guest powered off, or all that was asked for was done.
    Success = 0,
    /// The command line or the configuration is wrong; also what clap exits with.
    Configuration = 2,
    /// The host refused: KVM, VFIO, memory, files.
    Host = 3,
    /// The guest cannot go on: an internal error of KVM, a device that does not recover.
    Guest = 4,
    /// Stopped by a signal: a run by the second, before the guest had powered off.
    Stopped = 5,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// An error the program can end with.
pub trait Failure: Error {
    /// The exit status that tells of it.
    fn status(&self) -> ExitStatus;

    /// What to do about it, when the message does not say so already.
    fn hint(&self) -> Option<String> {
        None
    }
}

impl<T: Failure + 'static> From<T> for Box<dyn Failure> {
    fn from(error: T) -> Self {
        Box::new(error)
    }
}

/// The statuses, as `--help` shows them.
pub const EXIT_STATUS_HELP: &str = "\
Exit status:
  0  the guest powered off, or all was done
  2  the command line or the configuration is wrong
  3  the host refused: KVM, VFIO, memory, files
  4  the guest cannot go on: internal error, device that does not recover
  5  stopped by a signal (a run by the second, before the guest had powered off)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_status() {
        use ExitStatus::{Configuration, Guest, Host, Stopped, Success};
        for status in [Success, Configuration, Host, Guest, Stopped] {
            let line = format!("\n  {}  ", status as u8);
            assert!(EXIT_STATUS_HELP.contains(&line), "{status:?}");
        }
    }
}
