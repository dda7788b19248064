//! All that stands in the way of a machine on this host, not only the first of it.

use super::error::Error;
use super::plan::{self, Plan};
use crate::config::RunConfig;

/// Something that stands in the way.
#[derive(Debug)]
pub struct Problem {
    /// What it is about, in a word or two.
    pub part: &'static str,
    /// What it is.
    pub error: Error,
}

/// Goes through what a machine is planned from, part by part; `whole` also makes the plan itself, which opens devices
/// and disks for a moment.
pub fn find(config: &RunConfig, whole: bool) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut note = |part, error: Option<Error>| found.extend(error.map(|error| Problem { part, error }));
    note("Firmware", plan::boot_plan(&config.boot).err());
    note("Disks", plan::room_for_disks(config).err());
    for (index, disk) in config.disks.iter().enumerate() {
        note("Disk", plan::open_disk(index, disk).err());
    }
    if found.is_empty() && whole {
        let error = Plan::check(config.clone()).err();
        found.extend(error.map(|error| Problem { part: "Guest", error }));
    }
    found
}
