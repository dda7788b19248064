//! `tenon check`.

mod log;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use vfio::Bdf;
use vfio::host::check::{Facts, check};
use vfio::host::{SysfsError, symptom};

use self::log::LogReport;
use self::report::Report;
use super::handover::{OutputError, print_json};
use super::host::HostArgs;
use super::page::Page;
use crate::check::Guest;
use crate::config::{Config, MemorySize};
use crate::exit::{ExitStatus, Failure};

const EXAMPLES: &str = "\
Examples:
  Whether this host can give a device to a guest at all:
    tenon check
  Whether this guest would run, and all that is in its way:
    tenon check --config gaming.toml
  Whether this card could go to a guest of 16 GiB:
    tenon check --device 01:00.0 --memory 16G
  What a log tells of: the host's, QEMU's, libvirt's, a guest's, tenon's:
    tenon check --scan /var/log/libvirt/qemu/win10.log
    journalctl -k -b -1 | tenon check --scan -
  What a name in the answer means:
    tenon check --explain half-bound-slot

Exit status:
  0  a run would work; with --scan, the logs tell of no failure
  2  the command line or the configuration is wrong
  3  a run would not work; with --scan, the logs tell of failures";

/// The flags of `tenon check`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Check also all that the guest of this configuration file needs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check that a guest can have this function; may be repeated
    #[arg(long = "device", value_name = "BDF")]
    devices: Vec<Bdf>,
    /// Check that a guest can have this much memory: a number with M or G
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look through a log for known failures instead, `-` for standard input; may be repeated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "config", "devices", "memory"])]
    scan: Vec<PathBuf>,
    /// Tell all that is known of a failure
    #[arg(long, value_name = "ID", exclusive = true)]
    explain: Option<String>,
    /// List the failures that are known
    #[arg(long, exclusive = true)]
    list_symptoms: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("no failure is called `{0}`")]
    NoSymptom(String),
    #[error(transparent)]
    Host(#[from] SysfsError),
}

impl Failure for CheckError {
    fn status(&self) -> ExitStatus {
        match self {
            Self::NoSymptom(_) => ExitStatus::Configuration,
            Self::Host(_) => ExitStatus::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSymptom(_) => Some("`tenon check --list-symptoms` lists them".into()),
            Self::Host(_) => None,
        }
    }
}

/// Checks the host, reads logs, or explains a failure.
pub(super) fn run(args: CheckArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let mut page = Page::for_stdout();
    if let Some(id) = &args.explain {
        let symptom = symptom::find(id).ok_or_else(|| CheckError::NoSymptom(id.clone()))?;
        for line in symptom.to_string().lines() {
            page.wrapped("", "        ", line);
        }
        return print(&page).map(|()| ExitStatus::Success);
    }
    if args.list_symptoms {
        catalogue(&mut page);
        return print(&page).map(|()| ExitStatus::Success);
    }
    if !args.scan.is_empty() {
        return scan(&args, page);
    }
    let guest = Guest {
        config: match &args.config {
            Some(path) => Some(Config::from_file(path)?),
            None => None,
        },
        devices: args.devices,
        memory: args.memory.map(MemorySize::bytes),
    };
    let tree = args.host.tree()?;
    let facts = Facts::of(tree.clone(), guest.wanted()).map_err(CheckError::Host)?;
    let mut lines = check(&facts);
    let host_works = Report::new(lines.clone()).works();
    lines.extend(guest.lines(&tree, host_works));
    let report = Report::new(lines);
    if args.json {
        print_json(&report)?;
    } else {
        report.write(&mut page);
        print(&page)?;
    }
    Ok(match report.works() {
        true => ExitStatus::Success,
        false => ExitStatus::Host,
    })
}

fn scan(args: &CheckArgs, mut page: Page) -> Result<ExitStatus, Box<dyn Failure>> {
    let reports = args.scan.iter().map(|path| LogReport::of(path));
    let reports = reports.collect::<Result<Vec<_>, _>>()?;
    if args.json {
        print_json(&reports)?;
    } else {
        for (place, report) in reports.iter().enumerate() {
            if place > 0 {
                page.line("");
            }
            report.write(&mut page);
        }
        print(&page)?;
    }
    Ok(match reports.iter().all(LogReport::is_clean) {
        true => ExitStatus::Success,
        false => ExitStatus::Host,
    })
}

fn catalogue(page: &mut Page) {
    let longest = symptom::all().map(|symptom| symptom.id.len()).max().unwrap_or(0);
    let rest = " ".repeat(longest + 2);
    for symptom in symptom::all() {
        page.wrapped(&format!("{:longest$}  ", symptom.id), &rest, symptom.title);
    }
}

fn print(page: &Page) -> Result<(), Box<dyn Failure>> {
    Ok(page.print().map_err(OutputError)?)
}
