//! `cargo lab hosts`.

use std::process::ExitCode;

use clap::Args;
use tests::hosts;

use super::Outcome;

/// `cargo lab hosts`.
#[derive(Debug, Args)]
pub struct Hosts {}

impl Hosts {
    /// Makes each capture anew from its description.
    pub fn run(self) -> Outcome {
        for name in hosts::names()? {
            let changed = hosts::renew(&name).map_err(|error| format!("{name}: {}", describe(&error)))?;
            println!("{name}: {}", if changed { "made anew" } else { "as it was" });
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
