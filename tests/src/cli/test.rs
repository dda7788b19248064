//! `cargo lab test`.

use std::process::ExitCode;

use clap::Args;
use tests::lab::host::boots_retried;
use tests::lab::product::target_dir;
use tests::scenario::{checks, runner};
use tests::scenarios;

use super::Outcome;

/// `cargo lab test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Only the checks and scenarios with this in their name
    filter: Option<String>,
    /// So many lab hosts at once; each takes a core and up to 6 GiB [default: one for each core, at most 2]
    #[arg(long, value_name = "N")]
    hosts: Option<usize>,
    /// Say what there is, and run nothing
    #[arg(long)]
    list: bool,
}

impl Test {
    /// Runs everything the filter lets through; the closing line counts it.
    pub fn run(self) -> Outcome {
        let wanted = |name: &str| self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
        let checks: Vec<&str> = checks::NAMES.into_iter().filter(|name| wanted(name)).collect();
        let chosen: Vec<_> = scenarios::ALL
            .iter()
            .copied()
            .filter(|scenario| wanted(scenario.name()))
            .collect();
        if checks.is_empty() && chosen.is_empty() {
            return Err("nothing has that in its name; --list says what there is".into());
        }
        if self.list {
            checks.iter().for_each(|name| println!("{name}"));
            chosen
                .iter()
                .for_each(|scenario| println!("{}: {}", scenario.name(), scenario.shows()));
            return Ok(ExitCode::SUCCESS);
        }
        let mut tally = checks::run(&checks);
        tally.add(runner::run(
            &chosen,
            self.hosts.unwrap_or_else(runner::room).max(1),
            &target_dir().join("lab"),
        ));
        if boots_retried() > 0 {
            println!("{} retries after the lab host died of its known fault", boots_retried());
        }
        println!("{tally}");
        Ok(if tally.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
