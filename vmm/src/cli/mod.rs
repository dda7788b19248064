//! The command line: what there is to say, and what is done about it. A file for each subcommand.

mod advice;
mod bind;
mod boot_args;
mod capture;
mod check;
mod devices;
mod handover;
mod host;
mod loan;
mod log;
mod page;
mod release;
mod run;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process;

use clap::{Parser, Subcommand};
use vfio::host::bind::write_stdin_to;

use crate::exit::{EXIT_STATUS_HELP, ExitStatus, Failure};

/// Fits real PCI devices into a virtual machine: assigns a GPU, its audio and more to a guest on KVM.
#[derive(Debug, Parser)]
#[command(name = "tenon", version, max_term_width = 100, after_help = EXIT_STATUS_HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter like `vfio=debug,warn`
    /// [default: TENON_LOG from the environment, else warn]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log::parse_filter)]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check whether devices of this host can go to a guest, and what to do where not
    Check(Box<check::CheckArgs>),
    /// Run a virtual machine until it powers off
    Run(Box<run::RunArgs>),
    /// Show the host's PCI functions and which of them a guest can have
    Devices(devices::DevicesArgs),
    /// Take PCI functions from the host's drivers for vfio-pci
    Bind(Box<bind::BindArgs>),
    /// Give functions back to the drivers that had them
    Release(release::ReleaseArgs),
    /// Write standard input to a file of /sys
    #[command(name = handover::WRITE_COMMAND, hide = true)]
    SysfsWrite { path: PathBuf },
    /// Write down what there is to know of this host, for a bug report
    Capture(capture::CaptureArgs),
    /// Show, apply or remove what makes assignment survive a reboot
    BootArgs(Box<boot_args::BootArgs>),
}

/// Does what the command line asks for and answers how it went. Errors have been shown by then.
pub fn main() -> ExitStatus {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = answer.print();
            return clap_status(&answer);
        }
    };
    if let Err(error) = log::start(cli.log.as_deref()) {
        return show(&error);
    }
    let done = match cli.command {
        Command::Check(args) => check::run(*args),
        Command::Run(args) => run::run(*args),
        Command::Devices(args) => devices::devices(&args),
        Command::Bind(args) => bind::bind(&args),
        Command::Release(args) => release::release(&args),
        Command::SysfsWrite { path } => process::exit(write_stdin_to(&path).into()),
        Command::Capture(args) => capture::run(&args),
        Command::BootArgs(args) => boot_args::boot_args(&args),
    };
    done.unwrap_or_else(|error| show(error.as_ref()))
}

/// What clap's answer to the arguments amounts to: `--help` and `--version` are no errors, but come that way.
fn clap_status(answer: &clap::Error) -> ExitStatus {
    if answer.use_stderr() {
        ExitStatus::Configuration
    } else {
        ExitStatus::Success
    }
}

/// Shows an error with all its causes on standard error.
fn show(error: &dyn Failure) -> ExitStatus {
    let _ = io::stderr().write_all(describe(error).as_bytes());
    error.status()
}

fn describe(error: &dyn Failure) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("caused by: {error}\n");
        cause = Error::source(error);
    }
    if let Some(hint) = error.hint() {
        text += &format!("hint: {hint}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open /dev/kvm")]
    struct NoKvm(#[source] io::Error);

    impl Failure for NoKvm {
        fn status(&self) -> ExitStatus {
            ExitStatus::Host
        }

        fn hint(&self) -> Option<String> {
            Some("load kvm_intel or kvm_amd".into())
        }
    }

    #[test]
    fn clap_finds_no_fault() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn errors_are_shown_with_cause_and_hint() {
        let error = NoKvm(io::Error::from_raw_os_error(2));
        let expected = "error: cannot open /dev/kvm\n\
                        caused by: No such file or directory (os error 2)\n\
                        hint: load kvm_intel or kvm_amd\n";
        assert_eq!(describe(&error), expected);
    }

    #[test]
    fn unknown_words_are_a_matter_of_configuration() {
        for (words, status) in [
            (&["tenon", "--version"][..], ExitStatus::Success),
            (&["tenon", "run", "--help"], ExitStatus::Success),
            (&["tenon"], ExitStatus::Configuration),
            (&["tenon", "rum"], ExitStatus::Configuration),
            (&["tenon", "run", "--memory", "8"], ExitStatus::Configuration),
            (&["tenon", "run", "--log", "vfio=loud"], ExitStatus::Configuration),
        ] {
            assert_eq!(
                clap_status(&Cli::try_parse_from(words).unwrap_err()),
                status,
                "{words:?}"
            );
        }
    }
}
