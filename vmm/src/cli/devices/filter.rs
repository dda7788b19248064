//! Which functions are asked for.

use clap::{Args, ValueEnum};
use vfio::host::Bdf;
use vfio::host::survey::{Function, Survey};

use super::label;

/// Kinds of functions that people look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Class {
    Display,
    Audio,
    Usb,
    Network,
    Storage,
    Bridge,
    Other,
}

impl Class {
    fn of(class: u32) -> Self {
        match (class >> 16, class >> 8 & 0xff) {
            (0x01, _) => Self::Storage,
            (0x02, _) | (0x0d, _) => Self::Network,
            (0x03, _) => Self::Display,
            (0x04, _) => Self::Audio,
            (0x06, _) => Self::Bridge,
            (0x0c, 0x03) => Self::Usb,
            _ => Self::Other,
        }
    }
}

/// The filters on the command line; a function must pass all kinds of them.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Only functions of these kinds
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    class: Vec<Class>,
    /// Only functions of these IOMMU groups
    #[arg(long, value_name = "N", value_delimiter = ',')]
    group: Vec<u32>,
    /// Only functions that a guest can have
    #[arg(long)]
    assignable: bool,
    /// Addresses, which are shown in detail; or words that all occur in a function's line: its names, IDs
    /// (10de:1401), driver, modules or address
    #[arg(value_name = "BDF|TEXT")]
    words: Vec<String>,
}

impl Filter {
    /// The addresses, if nothing else was named.
    pub(super) fn addresses(&self) -> Option<Vec<Bdf>> {
        let addresses: Vec<Bdf> = self.words.iter().filter_map(|word| word.parse().ok()).collect();
        (!addresses.is_empty() && addresses.len() == self.words.len()).then_some(addresses)
    }

    /// The functions that pass, in order of address.
    pub(super) fn apply<'s>(&self, survey: &'s Survey) -> Vec<&'s Function> {
        let words: Vec<String> = self.words.iter().map(|word| word.to_lowercase()).collect();
        let passes = |function: &&Function| {
            let facts = &function.facts;
            (self.class.is_empty() || self.class.contains(&Class::of(facts.class)))
                && (self.group.is_empty() || facts.group.is_some_and(|group| self.group.contains(&group)))
                && (!self.assignable || function.verdict.is_assignable())
                && (words.is_empty() || has_all(function, &words))
        };
        survey.functions.iter().filter(passes).collect()
    }

    /// Whether all functions pass.
    pub(super) fn is_empty(&self) -> bool {
        self.class.is_empty() && self.group.is_empty() && !self.assignable && self.words.is_empty()
    }
}

fn has_all(function: &Function, words: &[String]) -> bool {
    let names = &function.names;
    let mut text = format!(
        "{}\n{}\n{}\n",
        function.facts.bdf,
        label::ids(function),
        label::kind(function.facts.class)
    );
    let parts = [
        &names.vendor,
        &names.device,
        &names.subsystem_vendor,
        &names.subsystem,
        &names.class,
        &function.facts.driver,
    ];
    for part in parts.into_iter().flatten().chain(&function.modules) {
        text += part;
        text.push('\n');
    }
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(word.as_str()))
}
