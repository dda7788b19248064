//! `tenon devices`.

mod details;
mod filter;
mod groups;
mod json;
mod label;
mod tree;

use std::io::{self, Write};

use clap::Args;
use vfio::host::survey::{Function, Reason, Survey};
use vfio::host::{Bdf, HostTree, SysfsError};

use super::host::HostArgs;
use super::page::{Page, Tone, is_unsafe};
use crate::exit::{ExitStatus, Failure};

const EXAMPLES: &str = "\
Examples:
  All functions by IOMMU group, and which of them a guest can have:
    tenon devices
  The graphics cards; what a guest can have of network cards, as on the bus:
    tenon devices --class display
    tenon devices --class network --assignable --tree
  All about one function:
    tenon devices 01:00.0
  What a bug report's capture tells, for a script:
    tenon devices --host capture.tar.zst --json

A function is assignable, assignable together with others (the rest of its IOMMU group and of its
card), or not: then the reason is told, and in the view of one function what can be done about it.

Exit status: 0 shown, 2 wrong command line, 3 the host does not tell";

/// The flags of `tenon devices`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DevicesArgs {
    #[command(flatten)]
    filter: filter::Filter,
    /// As they hang on each other
    #[arg(long, conflicts_with = "json")]
    tree: bool,
    /// As JSON; docs/devices.schema.json describes it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum DevicesError {
    #[error("the host's PCI functions cannot be listed")]
    Survey(#[source] SysfsError),
    #[error("there is no PCI function {0} on this host; `tenon devices` lists those there are")]
    NoSuchFunction(Bdf),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl Failure for DevicesError {
    fn status(&self) -> ExitStatus {
        match self {
            Self::NoSuchFunction(_) => ExitStatus::Configuration,
            Self::Survey(_) | Self::Output(_) => ExitStatus::Host,
        }
    }
}

/// Shows the host's functions.
pub(super) fn devices(args: &DevicesArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let tree = args.host.tree()?;
    let survey = Survey::of(&tree).map_err(DevicesError::Survey)?;
    if args.json {
        let text = json(args, &survey)?;
        io::stdout().write_all(text.as_bytes()).map_err(DevicesError::Output)?;
    } else {
        let mut page = Page::for_stdout();
        write(&mut page, args, &tree, &survey)?;
        page.print().map_err(DevicesError::Output)?;
    }
    Ok(ExitStatus::Success)
}

fn json(args: &DevicesArgs, survey: &Survey) -> Result<String, DevicesError> {
    let shown = match args.filter.addresses() {
        Some(addresses) => named(survey, &addresses)?,
        None => args.filter.apply(survey),
    };
    let report = json::Report::new(survey, &shown);
    let text = serde_json::to_string_pretty(&report).map_err(|error| DevicesError::Output(error.into()))?;
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Outside of strings there is only ASCII, so that this makes of JSON the same JSON.
        match is_unsafe(c) && c != '\n' {
            true => safe += &format!("\\u{:04x}", u32::from(c)),
            false => safe.push(c),
        }
    }
    safe.push('\n');
    Ok(safe)
}

fn write(page: &mut Page, args: &DevicesArgs, tree: &HostTree, survey: &Survey) -> Result<(), DevicesError> {
    if let (Some(addresses), false) = (args.filter.addresses(), args.tree) {
        for (position, function) in named(survey, &addresses)?.into_iter().enumerate() {
            if position > 0 {
                page.line("");
            }
            details::write(page, tree, survey, function);
        }
        return Ok(());
    }
    let shown = args.filter.apply(survey);
    match args.tree {
        true => tree::write(page, survey, &shown),
        false => groups::write(page, survey, &shown),
    }
    if args.filter.is_empty() {
        remarks(page, survey);
    }
    if shown.is_empty() && !survey.functions.is_empty() {
        page.line("No function passes the filter.");
    } else {
        summary(page, survey, &shown);
    }
    Ok(())
}

fn named<'s>(survey: &'s Survey, addresses: &[Bdf]) -> Result<Vec<&'s Function>, DevicesError> {
    let find = |bdf: &Bdf| survey.get(*bdf).ok_or(DevicesError::NoSuchFunction(*bdf));
    addresses.iter().map(find).collect()
}

/// What the host as a whole should be told.
fn remarks(page: &mut Page, survey: &Survey) {
    if let (true, Some(remedy)) = (survey.groups.is_empty(), Reason::NoGroup.remedy()) {
        page.line("");
        let mark = page.toned(Tone::Bad, "Note: ");
        page.wrapped(
            &mark,
            "      ",
            "no IOMMU is active, so that a guest can have none of these",
        );
        page.wrapped("      ", "      ", &remedy);
    }
    for (position, anomaly) in survey.anomalies.iter().enumerate() {
        page.line("");
        let mark = page.toned(Tone::Bad, "Note: ");
        page.wrapped(&mark, "      ", &anomaly.title());
        let explanation = anomaly.explanation();
        let next = survey.anomalies.get(position + 1);
        if next.is_none_or(|next| next.explanation() != explanation) {
            page.wrapped("      ", "      ", &explanation);
        }
    }
    for unreadable in &survey.unreadable {
        page.line("");
        let mark = page.toned(Tone::Warning, "Note: ");
        page.wrapped(
            &mark,
            "      ",
            &format!("{} is not shown: {}", unreadable.bdf, unreadable.reason),
        );
    }
}

fn summary(page: &mut Page, survey: &Survey, shown: &[&Function]) {
    let assignable = shown.iter().filter(|function| function.verdict.is_assignable()).count();
    let counted = |count: usize, thing: &str| format!("{count} {thing}{}", if count == 1 { "" } else { "s" });
    page.line("");
    let all = counted(survey.functions.len(), "function");
    let total = match (survey.groups.len(), shown.len() == survey.functions.len()) {
        (_, false) => format!("{} of {all} shown", shown.len()),
        (0, true) => format!("{all}, no IOMMU group"),
        (groups, true) => format!("{all} in {}", counted(groups, "IOMMU group")),
    };
    let text = format!("{total}; a guest can have {assignable}. `tenon devices BDF` tells all about one.");
    page.wrapped("", "", &text);
}

#[cfg(test)]
mod tests;
