//! `cargo lab bench`.

use std::process::ExitCode;

use clap::Args;
use tests::bench::{self, Monitor};
use tests::lab::product::target_dir;
use tests::lab::{Config, LabHost, Set};

use super::{Outcome, Packages};

/// `cargo lab bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Which kernel and firmware
    #[arg(long, value_enum, default_value = "new")]
    packages: Packages,
    /// Only this one
    #[arg(long, value_parser = ["tenon", "qemu"])]
    only: Option<String>,
}

impl Bench {
    /// Measures both in one lab host and prints their figures.
    pub fn run(self) -> Outcome {
        let set = Set::from(self.packages);
        let mut host = LabHost::boot(&Config::new(set, target_dir().join("lab/bench")))?;
        let mut whole = true;
        for monitor in [Monitor::Qemu, Monitor::Tenon] {
            if self.only.as_deref().is_some_and(|only| only != monitor.name()) {
                continue;
            }
            match bench::start(&mut host, monitor) {
                Ok(figures) => println!("{}: {figures}", monitor.name()),
                Err(error) => {
                    whole = false;
                    println!("{}: {error}", monitor.name());
                }
            }
        }
        host.stop()?;
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
