//! `tenon boot-args`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process;

use clap::Args;
use serde::Serialize;
use vfio::host::boot_args::{BootPlan, Command, EditError, Edits, Loss, PlanError, Root, RootError, Summary, System};
use vfio::host::{Bdf, HostTree, SysfsError};

use super::host::HostArgs;
use crate::exit::{ExitStatus, Failure};

const EXAMPLES: &str = "\
The whole IOMMU group comes along, and the other functions of a graphics card. Without BDF the IOMMU alone is turned on. \
What is added is noted in /var/lib/tenon/boot-args with a copy of each file as it was, so that --remove takes back exactly \
that, and leaves what was edited by hand meanwhile. A later --apply takes the place of an earlier one.

Examples:
  What it takes on this distribution, and nothing is changed:
    tenon boot-args 01:00.0
  Do it, after a look at the changes; then run the commands it names, and reboot:
    tenon boot-args 01:00.0 --apply --dry-run
    tenon boot-args 01:00.0 --apply
  Do it all at once; take it all back:
    tenon boot-args 01:00.0 --apply --run-commands
    tenon boot-args --remove --run-commands
  A system that is mounted to be mended, with the devices of this host:
    tenon boot-args 01:00.0 --apply --root /mnt
  The right arguments for somebody else's host:
    tenon boot-args 01:00.0 --host capture.tar.zst";

/// The flags of `tenon boot-args`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", crate::exit::EXIT_STATUS_HELP))]
pub(super) struct BootArgs {
    /// PCI functions to assign, as `tenon devices` and lspci show them
    #[arg(value_name = "BDF", conflicts_with = "remove")]
    functions: Vec<Bdf>,
    /// Edit the files, and show how they change
    #[arg(long)]
    apply: bool,
    /// Take back what --apply added
    #[arg(long, conflicts_with = "apply")]
    remove: bool,
    /// With --apply or --remove: show how the files would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take away other claims by ID (pci-stub.ids=, vfio-pci.ids=) and what turns the IOMMU off; --remove puts them back
    #[arg(long, conflicts_with = "remove")]
    replace: bool,
    /// Take the host's only display too: after the reboot it shows no console
    #[arg(long, conflicts_with = "remove")]
    yes_this_is_my_display: bool,
    /// With --apply or --remove: run the commands afterwards that bring the change to the boot loader
    #[arg(long, conflicts_with_all = ["dry_run", "root", "host"])]
    run_commands: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Work on the system in this directory; nothing outside of it is written
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    host: HostArgs,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum BootArgsError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error("--host is for reading only; --{0} works on this host, or on a system given with --root")]
    ReadOnly(&'static str),
    #[error("--root {0}: there is no such directory")]
    NoRoot(PathBuf),
    #[error("--{0} goes with --apply or --remove")]
    Alone(&'static str),
    #[error("--apply is refused: {0}")]
    Obstacle(String),
    #[error("--apply is refused: {}; {}", .0.what, .0.consequence)]
    Loss(Loss),
    #[error("cannot run `{line}`")]
    Start { line: String, source: io::Error },
    #[error("`{line}` failed ({status}); the files are changed, run it again by hand")]
    Command { line: String, status: process::ExitStatus },
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl Failure for BootArgsError {
    fn status(&self) -> ExitStatus {
        match self {
            Self::Plan(PlanError::Bridge(_) | PlanError::Host(SysfsError::NoSuchFunction { .. }))
            | Self::ReadOnly(_)
            | Self::NoRoot(_)
            | Self::Alone(_) => ExitStatus::Configuration,
            _ => ExitStatus::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Root(RootError::File { source, .. } | RootError::Root { source, .. })
            | Self::Edit(EditError::Read { source, .. })
                if denied(source) =>
            {
                Some("run it as root".into())
            }
            Self::Loss(loss) => loss.remedy.clone(),
            _ => None,
        }
    }
}

/// What `--json` prints for a change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'a> {
    /// Whether files were changed, rather than only shown.
    done: bool,
    changes: Vec<Summary>,
    remarks: &'a [String],
    commands: &'a [Command],
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a BootPlan>,
}

/// Shows, applies or removes what makes assignment survive the reboot.
pub(super) fn boot_args(args: &BootArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let host = args.host.tree()?;
    let verb = match (args.apply, args.remove) {
        (true, _) => Some("apply"),
        (_, true) => Some("remove"),
        _ => None,
    };
    let alone = [("dry-run", args.dry_run), ("run-commands", args.run_commands)];
    if let (None, Some((flag, _))) = (verb, alone.into_iter().find(|(_, given)| *given)) {
        return Err(BootArgsError::Alone(flag).into());
    }
    let system = match (&args.root, verb) {
        (Some(root), _) if !root.is_dir() => return Err(BootArgsError::NoRoot(root.clone()).into()),
        (Some(root), _) => HostTree::at(root),
        (None, Some(verb)) if !host.is_live() => return Err(BootArgsError::ReadOnly(verb).into()),
        (None, _) => host.clone(),
    };
    if args.remove {
        return Ok(remove(args, &system)?);
    }
    let plan = BootPlan::for_system(&host, &system, &args.functions, args.replace).map_err(BootArgsError::from)?;
    if args.apply {
        return Ok(apply(args, &plan, &system)?);
    }
    let text = if args.json { json(&plan)? } else { plan.to_string() };
    print(&text)?;
    Ok(ExitStatus::Success)
}

fn apply(args: &BootArgs, plan: &BootPlan, system: &HostTree) -> Result<ExitStatus, BootArgsError> {
    if let Some(why) = plan.obstacle() {
        return Err(BootArgsError::Obstacle(why));
    }
    let refused = |loss: &&Loss| !(loss.may_be_wanted && args.yes_this_is_my_display);
    if let Some(loss) = plan.losses.iter().find(refused) {
        return Err(BootArgsError::Loss(loss.clone()));
    }
    let edits = Edits::applying(plan, system)?;
    carry_out(args, &edits)?;
    finish(args, &edits, &plan.commands, Some(plan))
}

fn remove(args: &BootArgs, system: &HostTree) -> Result<ExitStatus, BootArgsError> {
    let edits = Edits::undoing(system)?;
    carry_out(args, &edits)?;
    let commands = match edits.is_empty() {
        true => Vec::new(),
        false => System::of(system).commands_after_removal(&edits),
    };
    finish(args, &edits, &commands, None)
}

fn carry_out(args: &BootArgs, edits: &Edits) -> Result<(), BootArgsError> {
    if args.dry_run || edits.is_empty() {
        return Ok(());
    }
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    Ok(Root::open(root)?.carry_out(edits)?)
}

/// Says what has changed, and what is left to be done.
fn finish(
    args: &BootArgs,
    edits: &Edits,
    commands: &[Command],
    plan: Option<&BootPlan>,
) -> Result<ExitStatus, BootArgsError> {
    if args.json {
        print(&json(&Answer {
            done: !args.dry_run && !edits.is_empty(),
            changes: edits.summary(),
            remarks: &edits.remarks,
            commands,
            plan,
        })?)?;
    } else {
        print(&report(args, edits, commands, plan))?;
    }
    if args.run_commands && (!edits.is_empty() || still_pending(args, plan)) {
        commands.iter().try_for_each(|command| run(command, args.json))?;
    }
    Ok(ExitStatus::Success)
}

fn report(args: &BootArgs, edits: &Edits, commands: &[Command], plan: Option<&BootPlan>) -> String {
    let mut text = coloured(&edits.diff());
    for remark in &edits.remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    for wrong in plan.iter().flat_map(|plan| &plan.wrong) {
        let _ = writeln!(
            text,
            "warning: the kernel was started with `{}`: it {}",
            wrong.argument, wrong.why
        );
    }
    for note in plan.iter().flat_map(|plan| &plan.notes) {
        let _ = writeln!(text, "note: {note}");
    }
    if edits.is_empty() {
        text += match (args.remove, still_pending(args, plan)) {
            (true, _) => "Nothing to take back: tenon has added nothing here.\n",
            (false, false) => "Nothing to change: everything is in place.\n",
            (false, true) => {
                "Nothing to change: the files are as they should be, but the kernel was started without.\n"
            }
        };
    }
    if args.dry_run && !edits.is_empty() {
        text += "Nothing was changed: this is a dry run.\n";
    }
    if args.dry_run || (edits.is_empty() && !still_pending(args, plan)) {
        return text;
    }
    let system = match &args.root {
        Some(root) => format!(", in the system at {} (`chroot`)", root.display()),
        None => String::new(),
    };
    if commands.is_empty() {
        let _ = writeln!(text, "It takes effect with the next boot{system}.");
    } else if !args.run_commands {
        let _ = writeln!(text, "Now, as root{system}; with --run-commands tenon does it:");
        for command in commands {
            let _ = writeln!(text, "  {}", command.line());
        }
        text += "  reboot\n";
    }
    text
}

/// Whether the running kernel lacks arguments: the commands may not have been run yet.
fn still_pending(args: &BootArgs, plan: Option<&BootPlan>) -> bool {
    args.root.is_none() && plan.is_some_and(|plan| !plan.pending.is_empty())
}

fn run(command: &Command, quiet: bool) -> Result<(), BootArgsError> {
    let line = command.line();
    let Some((program, words)) = command.words.split_first() else {
        return Ok(());
    };
    if !quiet {
        print(&format!("Running {line}\n"))?;
    }
    let mut child = process::Command::new(program);
    // Standard output is the JSON alone.
    if quiet {
        child.stdout(io::stderr());
    }
    match child.args(words).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(BootArgsError::Command { line, status }),
        Err(source) => Err(BootArgsError::Start { line, source }),
    }
}

/// A diff as terminals show it.
fn coloured(diff: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !io::stdout().is_terminal() {
        return diff.to_owned();
    }
    let line = |line: &str| match line.as_bytes().first() {
        Some(b'+') => format!("\u{1b}[32m{line}\u{1b}[0m\n"),
        Some(b'-') => format!("\u{1b}[31m{line}\u{1b}[0m\n"),
        Some(b'@') => format!("\u{1b}[36m{line}\u{1b}[0m\n"),
        _ => format!("{line}\n"),
    };
    diff.lines().map(line).collect()
}

fn json(value: &impl Serialize) -> Result<String, BootArgsError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| BootArgsError::Output(error.into()))?;
    Ok(text + "\n")
}

fn print(text: &str) -> Result<(), BootArgsError> {
    io::stdout().write_all(text.as_bytes()).map_err(BootArgsError::Output)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: BootArgs,
    }

    fn parse(words: &[&str]) -> Result<BootArgs, clap::Error> {
        Only::try_parse_from([&["boot-args"], words].concat()).map(|only| only.args)
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused() {
        for words in [
            &["--apply", "--remove"][..],
            &["--remove", "01:00.0"],
            &["--remove", "--replace"],
            &["--apply", "--run-commands", "--dry-run"],
            &["--apply", "--run-commands", "--root", "/mnt"],
            &["gpu"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn flags_out_of_place_say_so() {
        let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/hosts/z77.tar.zst");
        for (words, expected) in [
            (&["--dry-run"][..], "goes with --apply"),
            (&["--run-commands"], "goes with --apply"),
            (&["01:00.0", "--apply", "--host", capture], "reading only"),
            (&["09:00.0", "--host", capture], "no PCI function 0000:09:00.0"),
            (&["--remove", "--root", "/nowhere"], "--root /nowhere"),
        ] {
            let error = boot_args(&parse(words).unwrap()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.status(), ExitStatus::Configuration);
        }
    }
}
