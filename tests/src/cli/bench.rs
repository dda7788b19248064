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
    /// Measures both in one lab host and prints their figures. Times are the lab host's: under icount they count instructions.
    pub fn run(self) -> Outcome {
        let set = Set::from(self.packages);
        let mut host = LabHost::boot(&Config::new(set, target_dir().join("lab/bench")))?;
        let mut whole = true;
        for monitor in [Monitor::Qemu, Monitor::Tenon] {
            if self.only.as_deref().is_some_and(|only| only != monitor.name()) {
                continue;
            }
            let name = monitor.name();
            let start = bench::start(&mut host, monitor).map(|figures| println!("{name}: {figures}"));
            let played = bench::audio::audio(&mut host, set, monitor).map(|audio| println!("{name}: {audio}"));
            for error in [start.err(), played.err()].into_iter().flatten() {
                whole = false;
                println!("{name}: {error}");
            }
        }
        host.stop()?;
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
