//! The plan as a person reads it.

use std::fmt;

use super::claim::{Claim, Claimed};
use super::place::Place;
use super::plan::{BootPlan, Change};
use super::processor::Processor;

impl fmt::Display for BootPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.system.name)?;
        for evidence in &self.system.evidence {
            writeln!(f, "  {evidence}")?;
        }
        self.devices(f)?;
        heading(f, "Kernel arguments")?;
        writeln!(f, "  {}", self.argument_line())?;
        let wrong = self.wrong.iter().map(|wrong| {
            let why: String = wrong.why.split("; ").map(|why| format!("\n      {why}")).collect();
            format!("{}{why}", wrong.argument)
        });
        section(f, "Wrong on the kernel's command line now", wrong)?;
        let losses = self.losses.iter().map(|loss| {
            let remedy = loss
                .remedy
                .iter()
                .map(|remedy| format!("\n      {remedy}"))
                .collect::<String>();
            format!("{}\n      {}{remedy}", loss.what, loss.consequence)
        });
        section(f, "The host would lose", losses)?;
        section(f, "Files", self.changes.iter().map(shown))?;
        let commands = self
            .commands
            .iter()
            .map(|command| format!("{}\n      {}", command.line(), command.why));
        let reboot = (!self.commands.is_empty()).then(|| "reboot".to_owned());
        section(f, "Then, as root", commands.chain(reboot))?;
        let by_hand = self.obstacle().filter(|_| !self.has_grubby());
        let notes = self.notes.iter().cloned().chain(by_hand);
        section(f, "Note", notes.map(|note| note.replace("\n", " ")))
    }
}

impl BootPlan {
    fn devices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processor = match self.processor {
            Processor::Intel => "Intel",
            Processor::Amd => "AMD",
            Processor::Unknown => "an unknown processor",
        };
        if self.functions.is_empty() {
            return writeln!(f, "\nNo devices were named: only the IOMMU is turned on ({processor}).");
        }
        let driver = |function: &Claimed| function.driver.clone().unwrap_or_else(|| "no driver".into());
        let width = self
            .functions
            .iter()
            .map(|function| driver(function).len())
            .max()
            .unwrap_or(0);
        let lines = self.functions.iter().map(|function| {
            let how = match &function.claim {
                Claim::ById => "by ID".to_owned(),
                Claim::ByAddress { why } => format!("by address: {why}"),
            };
            let along = if function.named { "" } else { ", goes along" };
            format!(
                "{} [{}] {:width$}  {how}{along}",
                function.bdf,
                function.id(),
                driver(function)
            )
        });
        section(f, &format!("Devices for vfio-pci at boot ({processor})"), lines)
    }
}

fn heading(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "\n{title}:")
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, lines: impl Iterator<Item = String>) -> fmt::Result {
    for (at, line) in lines.enumerate() {
        if at == 0 {
            heading(f, title)?;
        }
        writeln!(f, "  {line}")?;
    }
    Ok(())
}

fn shown(change: &Change) -> String {
    match change {
        Change::Words { path, words, .. } if words.is_empty() => format!("{path}: holds what would undo this"),
        Change::Words { path, place, .. } => match place {
            Place::Shell { variable, .. } => format!("{path}: the arguments, added to {variable}"),
            Place::Line => format!("{path}: the arguments, added to the line"),
            Place::Options => format!("{path}: the arguments, added to `options`"),
            Place::List => format!("{path}: the modules of VFIO"),
        },
        Change::File { path, text, executable } => {
            let kind = if *executable { ", a script" } else { "" };
            let lines = text.lines().map(|line| format!("      {line}").trim_end().to_owned());
            format!("{path}{kind}:\n{}", lines.collect::<Vec<_>>().join("\n"))
        }
    }
}
