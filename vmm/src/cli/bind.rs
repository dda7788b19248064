//! `tenon bind`.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use vfio::host::bind::{Action, BindPlan, DARK, Handover, Journal, PlanOptions, Purpose, Row};
use vfio::host::{Bdf, HostTree, Survey};

use super::handover::{
    Interrupted, Narrator, NoSurvey, NotThisHost, Patience, confirm, directory, effects, live, print, print_json,
};
use super::host::HostArgs;
use crate::exit::{ExitStatus, Failure};

const EXAMPLES: &str = "\
The whole IOMMU group comes along, and the other functions of a graphics card: its HDMI audio, its USB-C controllers. \
Each function is bound by its address, never by its IDs, of which the host may have another. One that a process has \
open is not taken where that would hang it or lose data.

What each function was is kept in /run/tenon (TENON_RUN_DIR) until the next boot, so that `tenon release` can give it \
back, also after this command was killed.

Examples:
  A graphics card and all that goes with it, after a look at the plan:
    tenon bind 01:00.0
  The same from a script:
    tenon bind 01:00.0 --yes
  What it would do, and on another machine's capture:
    tenon bind 01:00.0 --dry-run --json
    tenon bind 01:00.0 --dry-run --host capture.tar.zst";

/// The flags of `tenon bind`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", crate::exit::EXIT_STATUS_HELP))]
pub(super) struct BindArgs {
    /// PCI functions, as `tenon devices` and lspci show them
    #[arg(required = true, value_name = "BDF")]
    functions: Vec<Bdf>,
    /// Do not ask; needed where there is no terminal
    #[arg(long, short)]
    yes: bool,
    /// Take the display of the host's own console too: its screen goes dark
    #[arg(long)]
    yes_this_is_my_display: bool,
    /// Leave functions on pci-stub that only come along
    #[arg(long)]
    keep_stubs: bool,
    /// Show the plan, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    host: HostArgs,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'a> {
    #[serde(flatten)]
    plan: &'a BindPlan,
    /// Whether it was done, rather than only planned.
    done: bool,
}

/// Takes functions for vfio-pci until they are released.
pub(super) fn bind(args: &BindArgs) -> Result<ExitStatus, Box<dyn Failure>> {
    let tree = args.host.tree()?;
    if !tree.is_live() && !args.dry_run {
        return Err(NotThisHost.into());
    }
    let options = PlanOptions {
        whole_units: true,
        keep_stubs: args.keep_stubs,
        my_display: args.yes_this_is_my_display,
    };
    let plan = plan(&tree, &args.functions, options)?;
    if !args.json {
        print(&table(&plan))?;
    }
    let taken = plan.to_take();
    if !args.dry_run && !taken.is_empty() {
        if !args.yes {
            confirm(&question(taken.len()))?;
        }
        take(args, &taken)?;
    }
    if args.json {
        let done = !args.dry_run;
        print_json(&Answer { plan: &plan, done })?;
    } else if taken.is_empty() {
        print("Nothing to do: they are on vfio-pci already.")?;
    } else if !args.dry_run {
        let named: Vec<String> = args.functions.iter().map(ToString::to_string).collect();
        let them = if taken.len() == 1 { "it" } else { "them" };
        print(&format!("`tenon release {}` gives {them} back.", named.join(" ")))?;
    }
    Ok(ExitStatus::Success)
}

fn take(args: &BindArgs, functions: &[Bdf]) -> Result<(), Box<dyn Failure>> {
    let interrupted = Interrupted::watch()?;
    let sysfs = live();
    let journal = Journal::open(&directory(), sysfs.tree(), args.patience.timeout)?;
    let effects = effects(args.patience.timeout, &journal)?;
    let asked = || interrupted.is_set();
    let mut narrator = Narrator::new(args.json);
    let mut tell = |progress| narrator.tell(&progress);
    Ok(Handover::new(&sysfs, &effects, journal, &asked, &mut tell).take(functions, Purpose::Bind)?)
}

/// Surveys the host and plans.
pub(super) fn plan(tree: &HostTree, named: &[Bdf], options: PlanOptions) -> Result<BindPlan, Box<dyn Failure>> {
    let survey = Survey::of(tree).map_err(NoSurvey)?;
    Ok(BindPlan::new(tree, &survey, named, options)?)
}

fn question(count: usize) -> String {
    match count {
        1 => "Take this function from the host?".to_owned(),
        count => format!("Take these {count} functions from the host?"),
    }
}

/// The plan for people: a line for each function, and what there is to say of it below.
pub(super) fn table(plan: &BindPlan) -> String {
    let now = |row: &Row| row.driver.clone().unwrap_or_else(|| "no driver".to_owned());
    let wide = plan.functions.iter().map(|row| now(row).len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &plan.functions {
        let then = match row.action {
            Action::Take => "-> vfio-pci",
            Action::Keep | Action::KeepStub => "   stays",
        };
        let _ = writeln!(text, "{}  {:wide$} {then:11}  {}", row.bdf, now(row), row.name);
        let _ = writeln!(text, "              {}", row.why);
        for note in &row.notes {
            let _ = writeln!(text, "              {note}");
        }
    }
    if let Some(display) = plan.display {
        let _ = writeln!(text, "{display} is a display of this host: {DARK}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        bind: BindArgs,
    }

    fn parse(words: &[&str]) -> Result<BindArgs, clap::Error> {
        Only::try_parse_from([&["bind"], words].concat()).map(|only| only.bind)
    }

    /// `tenon bind` on a capture of the repository.
    fn on(capture: &str, words: &[&str]) -> Result<ExitStatus, Box<dyn Failure>> {
        let file = format!("{}/../resources/hosts/{capture}.tar.zst", env!("CARGO_MANIFEST_DIR"));
        bind(&parse(&[words, &["--host", &file]].concat()).unwrap())
    }

    fn table_of(capture: &str, named: &str) -> String {
        let file = format!("{}/../resources/hosts/{capture}.tar.zst", env!("CARGO_MANIFEST_DIR"));
        let args = parse(&[named, "--host", &file]).unwrap();
        let options = PlanOptions {
            whole_units: true,
            ..PlanOptions::default()
        };
        table(&plan(&args.host.tree().unwrap(), &args.functions, options).unwrap())
    }

    #[test]
    fn the_plan_shows_who_comes_along_and_why() {
        assert_eq!(
            table_of("z77", "01:00.0"),
            "0000:01:00.0  nouveau       -> vfio-pci  GM206 [GeForce GTX 960] [10de:1401]\n              \
             named\n              \
             has screens (HDMI-A-2)\n\
             0000:01:00.1  snd_hda_intel -> vfio-pci  GM206 High Definition Audio Controller [10de:0fba]\n              \
             in IOMMU group 1, which goes as a whole\n"
        );
        let by_mistake = table_of("z77-by-mistake", "01:00.1");
        assert!(by_mistake.contains("pci-stub      -> vfio-pci"), "{by_mistake}");
        assert!(by_mistake.contains("isolated on pci-stub"), "{by_mistake}");
    }

    #[test]
    fn a_capture_is_only_looked_at() {
        assert_eq!(on("z77", &["01:00.0", "--dry-run"]).unwrap(), ExitStatus::Success);
        for (words, status, expected) in [
            (&["01:00.0", "--yes"][..], ExitStatus::Configuration, "add --dry-run"),
            (&["00:1f.2", "--dry-run"], ExitStatus::Host, "holds / (sda)"),
            (&["00:01.0", "--dry-run"], ExitStatus::Configuration, "is a bridge"),
            (
                &["00:02.0", "--dry-run"],
                ExitStatus::Configuration,
                "--yes-this-is-my-display",
            ),
            (&["0f:00.0", "--dry-run"], ExitStatus::Configuration, "no PCI function"),
        ] {
            let error = on("z77", words).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.status(), status, "{words:?}");
        }
    }

    #[test]
    fn bad_flags_say_what_they_take() {
        for (words, expected) in [
            (&[][..], "<BDF>"),
            (&["gpu"], "01:00.0"),
            (&["01:00.0", "--timeout", "0"], "from 0.1 to 3600"),
            (&["01:00.0", "--timeout", "soon"], "number of seconds"),
        ] {
            let message = parse(words).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
