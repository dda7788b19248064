//! The survey: every PCI function of a host, what the host uses it for, and whether a guest can have it.

mod anomaly;
mod facts;
mod modules;
mod names;
mod reset;
mod unit;
mod uses;
mod verdict;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

pub use anomaly::Anomaly;
pub use facts::{Function, Group, Names, Region, Unreadable, Use};
pub use reset::Reset;
use unit::Units;
use verdict::Obstacles;
pub use verdict::{Reason, Verdict};
pub use words::{short, short_list};

use super::{Bdf, HostFunction, HostTree, Sysfs, SysfsError};

/// See the module's own words.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The functions in order of address.
    pub functions: Vec<Function>,
    /// The IOMMU groups by number; empty where no IOMMU is active.
    pub groups: BTreeMap<u32, Group>,
    /// Functions that the host lists but tells nothing of, like those that vanish meanwhile.
    pub unreadable: Vec<Unreadable>,
    /// Mistakes in what is set aside for guests.
    pub anomalies: Vec<Anomaly>,
    units: Units,
}

impl Survey {
    /// Surveys a host.
    ///
    /// # Errors
    /// The host has no `/sys/bus/pci/devices`.
    pub fn of(tree: &HostTree) -> Result<Self, SysfsError> {
        let devices = Path::new("/sys/bus/pci/devices");
        tree.list(devices).map_err(|source| SysfsError::Read {
            path: devices.to_owned(),
            source,
        })?;
        let (facts, unreadable) = read_all(tree);
        let (names, modules, uses) = std::thread::scope(|scope| {
            let names = scope.spawn(|| names::of(tree, facts.iter()));
            let modules = scope.spawn(|| modules::of(tree, facts.iter()));
            let uses = uses::of(tree, &facts);
            (joined(names), joined(modules), uses)
        });
        let mut survey = Self {
            groups: Group::all(tree, &facts),
            functions: facts
                .into_iter()
                .zip(names)
                .zip(modules)
                .zip(uses)
                .map(|(((facts, names), modules), uses)| Function {
                    names,
                    modules,
                    uses,
                    ..Function::new(facts)
                })
                .collect(),
            unreadable,
            anomalies: Vec::new(),
            units: Units::default(),
        };
        survey.judge();
        Ok(survey)
    }

    /// The function at an address.
    pub fn get(&self, bdf: Bdf) -> Option<&Function> {
        let place = self
            .functions
            .binary_search_by_key(&bdf, |function| function.facts.bdf)
            .ok()?;
        self.functions.get(place)
    }

    /// The functions of an IOMMU group in order of address, bridges among them.
    pub fn group(&self, number: u32) -> Vec<&Function> {
        self.groups
            .get(&number)
            .map(|group| group.members.iter().filter_map(|bdf| self.get(*bdf)).collect())
            .unwrap_or_default()
    }

    /// The facts of all functions in order of address.
    pub fn facts(&self) -> impl Iterator<Item = &HostFunction> {
        self.functions.iter().map(|function| &function.facts)
    }

    fn judge(&mut self) {
        self.units = Units::of(&self.facts().collect::<Vec<_>>());
        let obstacles = Obstacles::find(self);
        let verdicts = self.functions.iter().map(|function| obstacles.verdict(self, function));
        let verdicts: Vec<Verdict> = verdicts.collect();
        for (function, verdict) in self.functions.iter_mut().zip(verdicts) {
            function.verdict = verdict;
        }
        self.anomalies = self.find_anomalies();
    }
}

/// More functions than any host has; what a capture has beyond is not looked at.
const MOST_FUNCTIONS: usize = 4096;

/// Functions that one thread reads in about a millisecond.
const SHARE: usize = 32;

/// The most threads that read; what they wait for is mostly the kernel.
const READERS: usize = 8;

/// The facts of all functions in order of address, and what could not be read.
fn read_all(tree: &HostTree) -> (Vec<HostFunction>, Vec<Unreadable>) {
    let sysfs = Sysfs::of(tree.clone());
    let mut bdfs = sysfs.bdfs();
    let beyond = bdfs.split_off(bdfs.len().min(MOST_FUNCTIONS));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let readers = bdfs.len().div_ceil(SHARE).clamp(1, cores.min(READERS));
    let read = |share: &[Bdf]| -> Vec<(Bdf, Result<HostFunction, SysfsError>)> { sysfs.functions(share) };
    let answers = std::thread::scope(|scope| {
        let shares = bdfs.chunks(bdfs.len().div_ceil(readers).max(1));
        let threads: Vec<_> = shares.map(|share| scope.spawn(move || read(share))).collect();
        threads.into_iter().flat_map(joined).collect::<Vec<_>>()
    });
    let mut facts = Vec::with_capacity(answers.len());
    let mut unreadable: Vec<Unreadable> = beyond
        .first()
        .map(|bdf| Unreadable {
            bdf: *bdf,
            reason: format!("it and all after it are more than {MOST_FUNCTIONS} functions"),
        })
        .into_iter()
        .collect();
    for (bdf, answer) in answers {
        match answer {
            Ok(function) => facts.push(function),
            Err(error) => unreadable.push(Unreadable {
                bdf,
                reason: error.to_string(),
            }),
        }
    }
    // Where the kernel tells of the ways to reset a function, one of which it does not has none.
    if facts
        .iter()
        .any(|function: &HostFunction| function.reset_methods.is_some())
    {
        for function in &mut facts {
            function.reset_methods.get_or_insert_default();
        }
    }
    (facts, unreadable)
}

/// What a thread has found; its panic is ours.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Address, class, vendor, driver, group.
    pub(crate) type Line = (&'static str, u32, u16, Option<&'static str>, Option<u32>);

    /// A host of these functions.
    pub(crate) fn made_up(functions: &[Line]) -> Survey {
        let facts: Vec<HostFunction> = functions
            .iter()
            .map(|(bdf, class, vendor, driver, group)| HostFunction {
                class: *class,
                vendor: *vendor,
                driver: driver.map(str::to_owned),
                group: *group,
                ..HostFunction::from(bdf.parse::<Bdf>().unwrap())
            })
            .collect();
        let mut survey = Survey {
            groups: Group::all(&HostTree::at("/nonexistent"), &facts),
            functions: facts.into_iter().map(Function::new).collect(),
            unreadable: Vec::new(),
            anomalies: Vec::new(),
            units: Units::default(),
        };
        survey.judge();
        survey
    }

    #[test]
    fn verdicts_follow_the_group() {
        let mut survey = made_up(&[
            ("00:01.0", 0x060400, 0x8086, Some("pcieport"), Some(1)),
            ("00:1f.0", 0x060100, 0x8086, Some("lpc_ich"), Some(3)),
            ("00:1f.3", 0x040300, 0x8086, None, Some(3)),
            ("01:00.0", 0x030000, 0x10de, None, Some(1)),
            ("01:00.1", 0x040300, 0x10de, None, Some(1)),
            ("02:00.0", 0x010802, 0x144d, None, Some(2)),
            ("03:00.0", 0x010802, 0x144d, None, None),
            ("04:00.0", 0x010802, 0x144d, None, Some(4)),
        ]);
        let disk = Use::Mount {
            at: "/".to_owned(),
            disk: "nvme0n1p2".to_owned(),
        };
        survey.functions[5].uses.push(disk.clone());
        survey.judge();
        let bdf = |text: &str| text.parse::<Bdf>().unwrap();
        for (place, expected) in [
            ("00:01.0", Verdict::No(Reason::Bridge)),
            (
                "00:1f.3",
                Verdict::No(Reason::BridgeDriver {
                    bridge: bdf("00:1f.0"),
                    driver: "lpc_ich".to_owned(),
                }),
            ),
            ("01:00.0", Verdict::WithSiblings(vec![bdf("01:00.1")])),
            (
                "02:00.0",
                Verdict::No(Reason::InUse {
                    by: bdf("02:00.0"),
                    what: disk.clone(),
                }),
            ),
            ("03:00.0", Verdict::No(Reason::NoGroup)),
            ("04:00.0", Verdict::Yes),
        ] {
            assert_eq!(survey.get(bdf(place)).unwrap().verdict, expected, "{place}");
        }
    }
}
