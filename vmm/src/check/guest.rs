//! What one guest needs besides the host's own requirements: firmware, files, and a plan that comes off.

use std::path::Path;

use firmware::ovmf::FirmwareSearch;
use vfio::host::check::{Finding, Line, Section, Wanted};
use vfio::host::{Bdf, HostTree};

use crate::config::{BindMode, Config, MEMORY_DEFAULT, MemorySize};
use crate::machine::problems::{self, Problem};

/// The guest asked about: a configuration, or only what is to go into it.
#[derive(Debug, Default)]
pub struct Guest {
    /// The whole of it.
    pub config: Option<Config>,
    /// Devices named besides.
    pub devices: Vec<Bdf>,
    /// Memory named besides.
    pub memory: Option<u64>,
}

impl Guest {
    /// What the host is asked for.
    pub fn wanted(&self) -> Wanted {
        let configured = self
            .config
            .iter()
            .flat_map(|config| &config.devices)
            .map(|device| device.address);
        let mut devices: Vec<Bdf> = Vec::new();
        for bdf in configured.chain(self.devices.iter().copied()) {
            if !devices.contains(&bdf) {
                devices.push(bdf);
            }
        }
        let bind = self.config.as_ref().and_then(|config| config.bind).unwrap_or_default();
        Wanted {
            taken: bind != BindMode::Off,
            along: bind == BindMode::Auto,
            without_devices: self.config.is_some() && devices.is_empty(),
            devices,
            memory: self.memory.or_else(|| self.config.as_ref().map(memory)),
        }
    }

    /// What can be said of it on a host. `host_works` says whether its devices can be opened at all: only then are they.
    pub fn lines(&self, tree: &HostTree, host_works: bool) -> Vec<Line> {
        let Some(config) = &self.config else {
            return vec![line("firmware", "OVMF", ovmf(tree))];
        };
        if !tree.is_live() {
            let seen = "its files are on another machine; devices and memory are checked above";
            return vec![line("config", "Configuration", Finding::unknown(seen))];
        }
        let found = problems::find(config.clone(), host_works);
        if found.is_empty() {
            let seen = match host_works {
                true => "all that it needs is there",
                false => "its files are there",
            };
            return vec![line("config", "Configuration", Finding::pass(seen))];
        }
        found.iter().map(problem).collect()
    }
}

fn memory(config: &Config) -> u64 {
    config.memory.map_or(MEMORY_DEFAULT, MemorySize::bytes)
}

fn line(requirement: &'static str, title: &'static str, finding: Finding) -> Line {
    Line {
        requirement,
        title,
        section: Section::Guest,
        finding,
    }
}

fn problem(problem: &Problem) -> Line {
    let mut seen = problem.error.to_string();
    let mut cause = problem.error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many a message says its cause already.
        if !seen.contains(&text) {
            seen += &format!(": {text}");
        }
        cause = error.source();
    }
    let finding = Finding::fail(seen);
    line(
        "config",
        problem.part,
        match problem.error.hint() {
            Some(hint) => finding.remedy(hint),
            None => finding,
        },
    )
}

/// The firmware that a guest without further ado would start from.
fn ovmf(tree: &HostTree) -> Finding {
    let search = match tree.root() {
        Some(root) => FirmwareSearch::under(root),
        None => return Finding::unknown("a capture holds no firmware images"),
    };
    match search.find() {
        Ok(image) => {
            let path = image.code.as_path();
            let shown = tree.root().and_then(|root| path.strip_prefix(root).ok());
            Finding::pass(
                shown
                    .map_or_else(|| path.to_owned(), |path| Path::new("/").join(path))
                    .display()
                    .to_string(),
            )
        }
        Err(_) if !tree.is_live() => Finding::unknown("no OVMF image in this directory"),
        Err(_) => Finding::fail("no OVMF image that tenon can use").remedy(
            "install edk2-ovmf (Fedora, Arch), ovmf (Debian, Ubuntu) or qemu-ovmf-x86_64 (openSUSE); or name one with \
             --firmware PATH",
        ),
    }
}
