//! What the requirements are judged by, read once.

use std::fmt;

use super::Arguments;
use crate::host::survey::{Anomaly, Function, short};
use crate::host::{Bdf, HostTree, KernelLog, Survey, SysfsError};

/// What somebody wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Functions for the guest.
    pub devices: Vec<Bdf>,
    /// Bytes of guest memory.
    pub memory: Option<u64>,
    /// Whether the guest is to have no devices at all.
    pub without_devices: bool,
    /// Whether the run takes the functions from their drivers itself.
    pub taken: bool,
    /// Whether it takes what must go along, too.
    pub along: bool,
}

/// Who made the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Intel: VT-x, VT-d.
    Intel,
    /// AMD: SVM, AMD-Vi.
    Amd,
    /// Somebody else.
    Other,
}

/// What `/proc/cpuinfo` says of the first processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Who made it.
    pub vendor: Vendor,
    /// What it is called.
    pub model: String,
    /// Its feature flags.
    pub flags: Vec<String>,
    /// How many processors the kernel sees.
    pub count: usize,
}

impl Processor {
    fn read(tree: &HostTree) -> Option<Self> {
        let text = tree.text("/proc/cpuinfo").ok()?;
        let field = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        let vendor = match field("vendor_id")?.as_str() {
            "GenuineIntel" => Vendor::Intel,
            "AuthenticAMD" | "HygonGenuine" => Vendor::Amd,
            _ => Vendor::Other,
        };
        Some(Self {
            vendor,
            model: field("model name").unwrap_or_else(|| "a processor without a name".to_owned()),
            flags: field("flags")?.split_whitespace().map(str::to_owned).collect(),
            count: text.lines().filter(|line| line.starts_with("processor")).count(),
        })
    }

    /// Whether it has a feature.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }
}

/// The version of the running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// As `uname -r` writes it.
    pub text: String,
    /// Version, patch level and sub-level.
    pub number: (u32, u32, u32),
}

impl Release {
    /// Of a capture it may stand in the log alone.
    fn read(tree: &HostTree, log: &KernelLog) -> Option<Self> {
        let after = |text: &str| Some(text.split_once("Linux version ")?.1.split(' ').next()?.to_owned());
        let text = tree
            .text("/proc/sys/kernel/osrelease")
            .ok()
            .filter(|text| !text.is_empty())
            .or_else(|| after(&tree.text("/proc/version").ok()?))
            .or_else(|| after(log.find("Linux version ")?))?;
        Self::parse(&text)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
        let mut next = || numbers.next()?.parse::<u32>().ok();
        let number = (next()?, next()?, next().unwrap_or(0));
        let plain = |letter: &char| letter.is_ascii_alphanumeric() || "._+~-".contains(*letter);
        Some(Self {
            // It goes into paths and onto the terminal.
            text: text.chars().take_while(plain).take(80).collect(),
            number,
        })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All that is known of a host.
#[derive(Debug)]
pub struct Facts {
    /// Its files.
    pub tree: HostTree,
    /// Its functions.
    pub survey: Survey,
    /// What its kernel said.
    pub log: KernelLog,
    /// What its kernel was told; `None` where that cannot be read.
    pub arguments: Option<Arguments>,
    /// Its processor; `None` where that cannot be read.
    pub processor: Option<Processor>,
    /// Its kernel; `None` where that cannot be read.
    pub release: Option<Release>,
    /// What is to be run on it.
    pub wanted: Wanted,
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// There are no PCI functions to read.
    pub fn of(tree: HostTree, wanted: Wanted) -> Result<Self, SysfsError> {
        let log = KernelLog::of(&tree);
        Ok(Self {
            survey: Survey::of(&tree)?,
            arguments: Arguments::read(&tree, &log),
            processor: Processor::read(&tree),
            release: Release::read(&tree, &log),
            log,
            wanted,
            tree,
        })
    }

    /// Who made the processor, by its host bridge where nothing else tells.
    pub fn vendor(&self) -> Vendor {
        let bridge = || {
            let root = Bdf {
                domain: 0,
                bus: 0,
                device: 0,
                function: 0,
            };
            match self.survey.get(root)?.facts.vendor {
                0x8086 => Some(Vendor::Intel),
                0x1022 => Some(Vendor::Amd),
                _ => None,
            }
        };
        self.processor
            .as_ref()
            .map(|processor| processor.vendor)
            .or_else(bridge)
            .unwrap_or(Vendor::Other)
    }

    /// Whether the kernel is at least of this version; `None` where it is not known.
    pub fn at_least(&self, major: u32, minor: u32) -> Option<bool> {
        self.release
            .as_ref()
            .map(|release| (release.number.0, release.number.1) >= (major, minor))
    }

    /// The functions that were set aside instead of others.
    pub(super) fn mistaken(&self) -> Vec<Bdf> {
        let mistaken = |anomaly: &Anomaly| match anomaly {
            Anomaly::TakenInstead { function, .. } => Some(*function),
            _ => None,
        };
        self.survey.anomalies.iter().filter_map(mistaken).collect()
    }

    /// The functions that a guest is meant to have already.
    pub(super) fn set_aside(&self) -> impl Iterator<Item = &Function> {
        let mistaken = self.mistaken();
        self.survey.functions.iter().filter(move |function| {
            let aside = function.facts.is_set_aside() && !function.facts.is_bridge();
            aside && !mistaken.contains(&function.bdf())
        })
    }

    /// What there is to be judged, by what goes together: the functions asked for, or else those set aside already and
    /// rightly.
    pub fn units(&self) -> Vec<Vec<&Function>> {
        let subjects: Vec<Bdf> = match self.wanted.devices.is_empty() {
            false => self.wanted.devices.clone(),
            true => self.set_aside().map(Function::bdf).collect(),
        };
        let mut units: Vec<Vec<Bdf>> = Vec::new();
        for bdf in subjects {
            if !units.iter().any(|unit| unit.contains(&bdf)) {
                units.push(self.survey.unit(&[bdf]));
            }
        }
        units
            .into_iter()
            .map(|unit| unit.into_iter().filter_map(|bdf| self.survey.get(bdf)).collect())
            .filter(|unit: &Vec<&Function>| !unit.is_empty())
            .collect()
    }

    /// The functions of all [`Self::units`].
    pub fn subjects(&self) -> Vec<&Function> {
        self.units().concat()
    }

    /// `unknown`, worded for a capture or for the host itself.
    pub(super) fn not_said(&self, what: &str) -> super::Finding {
        super::Finding::unknown(match self.tree.is_live() {
            true => format!("{what} cannot be read"),
            false => format!("{what}: not in the capture"),
        })
    }
}

/// Addresses in a sentence.
pub(super) fn list(bdfs: impl IntoIterator<Item = Bdf>) -> String {
    let all: Vec<String> = bdfs.into_iter().map(short).collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => all.join(""),
    }
}

/// Addresses as arguments of a command.
pub(super) fn words(bdfs: impl IntoIterator<Item = Bdf>) -> String {
    let all: Vec<String> = bdfs.into_iter().map(short).collect();
    all.join(" ")
}
