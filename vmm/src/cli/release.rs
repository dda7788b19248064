//! `tenon release`.

use std::fmt::Write;

use clap::Args;
use serde::{Serialize, Serializer};
use vfio::host::bind::{Entry, Given, Handover, Journal, Purpose, StepError};
use vfio::host::{Bdf, HostTree, Survey, Sysfs};

use super::handover::{Narrator, NotThisHost, Patience, directory, effects, given_words, live, print, print_json};
use super::host::HostArgs;
use crate::exit::{ExitStatus, Failure};

const EXAMPLES: &str = "\
Each function goes back to the driver that had it before `tenon bind` or `tenon run --bind`, and what came along with \
it goes back too. One that a virtual machine has is refused; the others go back all the same, and the status is 3. \
Without functions and --all, those that are taken are listed.

Examples:
  What is taken, and from whom:
    tenon release
  A graphics card and all that came with it:
    tenon release 01:00.0
  Everything, also after tenon was killed:
    tenon release --all";

/// The flags of `tenon release`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", crate::exit::EXIT_STATUS_HELP))]
pub(super) struct ReleaseArgs {
    /// PCI functions that were taken
    #[arg(value_name = "BDF")]
    functions: Vec<Bdf>,
    /// Every function that was taken
    #[arg(long, conflicts_with = "functions")]
    all: bool,
    /// Show what would be given back to whom, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    host: HostArgs,
}

/// One function in what `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    #[serde(serialize_with = "as_text")]
    bdf: Bdf,
    /// The driver that had it.
    was: Option<String>,
    /// The driver it is on.
    driver: Option<String>,
    /// Whether it is off the journal.
    released: bool,
    error: Option<String>,
}

fn as_text<S: Serializer>(bdf: &Bdf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(bdf)
}

/// Gives functions back.
pub(super) fn release(args: &ReleaseArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let tree = args.host.tree()?;
    let list_only = args.dry_run || (args.functions.is_empty() && !args.all);
    if !tree.is_live() && !list_only {
        return Err(NotThisHost.into());
    }
    let sysfs = Sysfs::of(tree.clone());
    if list_only {
        let entries = chosen(args, &tree, &Journal::peek(&directory(), &tree)?);
        return list(args, &sysfs, &entries);
    }
    let sysfs = live();
    // Without having been bound there may be nothing to lock, and nobody who may.
    if Journal::peek(&directory(), sysfs.tree()).is_ok_and(|entries| entries.is_empty()) {
        return list(args, &sysfs, &[]);
    }
    let journal = Journal::open(&directory(), sysfs.tree(), args.patience.timeout)?;
    let mut entries = chosen(args, sysfs.tree(), journal.entries());
    // A display before its sound controller, which it powers.
    entries.sort_by_key(|entry| entry.bdf);
    let effects = effects(args.patience.timeout, &journal)?;
    let mut narrator = Narrator::new(args.json);
    let mut tell = |progress| narrator.tell(&progress);
    let mut handover = Handover::new(&sysfs, &effects, journal, &|| false, &mut tell);
    let results: Vec<(Entry, Result<Option<Given>, StepError>)> = entries
        .into_iter()
        .map(|entry| {
            let result = handover.give_back(entry.bdf);
            (entry, result)
        })
        .collect();
    drop(handover);
    if !args.json {
        report_unknown(args, &results)?;
    }
    finish(args, &sysfs, results)
}

/// The functions asked for and what goes with them, of those that are taken.
fn chosen(args: &ReleaseArgs, tree: &HostTree, entries: &[Entry]) -> Vec<Entry> {
    if args.functions.is_empty() {
        return entries.to_vec();
    }
    let mut wanted = args.functions.clone();
    if let Ok(survey) = Survey::of(tree) {
        wanted.extend(survey.unit(&args.functions));
    }
    entries
        .iter()
        .filter(|entry| wanted.contains(&entry.bdf))
        .cloned()
        .collect()
}

/// What is taken, or would be given back.
fn list(args: &ReleaseArgs, sysfs: &Sysfs, entries: &[Entry]) -> Result<ExitStatus, Box<dyn Failure>> {
    if args.json {
        let answers: Vec<Answer> = entries.iter().map(|entry| answer(sysfs, entry, false, None)).collect();
        print_json(&answers)?;
        return Ok(ExitStatus::Success);
    }
    let mut text = String::new();
    for entry in entries {
        let driver = now(sysfs, entry.bdf).unwrap_or_else(|| "no driver".to_owned());
        let was = entry.driver.as_deref().unwrap_or("no driver");
        let purpose = match entry.purpose {
            Purpose::Bind => "by tenon bind".to_owned(),
            Purpose::Run { pid } => format!("by tenon run, process {pid}"),
        };
        let _ = writeln!(text, "{}  {driver} -> {was}  (taken {purpose})", entry.bdf);
    }
    match entries.is_empty() {
        true => print("Nothing to give back: tenon has taken none of them.")?,
        false => print(&text)?,
    }
    Ok(ExitStatus::Success)
}

/// A function that was named and is not taken is no mistake: giving back twice is giving back.
fn report_unknown(
    args: &ReleaseArgs,
    results: &[(Entry, Result<Option<Given>, StepError>)],
) -> Result<(), Box<dyn Failure>> {
    for bdf in &args.functions {
        if results.iter().all(|(entry, _)| entry.bdf != *bdf) {
            print(&format!("{bdf}  was not taken by tenon, and stays as it is"))?;
        }
    }
    Ok(())
}

fn finish(
    args: &ReleaseArgs,
    sysfs: &Sysfs,
    results: Vec<(Entry, Result<Option<Given>, StepError>)>,
) -> Result<ExitStatus, Box<dyn Failure>> {
    let mut answers = Vec::new();
    let mut failures = Vec::new();
    for (entry, result) in results {
        let error = result.as_ref().err().map(ToString::to_string);
        if let Ok(Some(given)) = &result {
            tracing::debug!("{}: {}", entry.bdf, given_words(given));
        }
        answers.push(answer(sysfs, &entry, result.is_ok(), error));
        failures.extend(result.err());
    }
    if args.json {
        print_json(&answers)?;
    }
    match failures.is_empty() {
        true => Ok(ExitStatus::Success),
        false => Err(NotReleased {
            count: answers.len(),
            failures,
        }
        .into()),
    }
}

fn answer(sysfs: &Sysfs, entry: &Entry, released: bool, error: Option<String>) -> Answer {
    Answer {
        bdf: entry.bdf,
        was: entry.driver.clone(),
        driver: now(sysfs, entry.bdf),
        released,
        error,
    }
}

fn now(sysfs: &Sysfs, bdf: Bdf) -> Option<String> {
    sysfs.function(bdf).ok()?.driver
}

/// Some functions are still taken.
#[derive(Debug, thiserror::Error)]
#[error("{} of {count} functions were not given back{}", failures.len(), lines(failures))]
struct NotReleased {
    count: usize,
    failures: Vec<StepError>,
}

fn lines(failures: &[StepError]) -> String {
    failures.iter().map(|failure| format!("\n  {failure}")).collect()
}

impl Failure for NotReleased {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }

    fn hint(&self) -> Option<String> {
        Some("what is left is still written down: try `tenon release --all` again".to_owned())
    }
}
