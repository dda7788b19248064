//! All that stands in the way of a machine on this host, not only the first of it.

use super::error::Error;
use super::plan::{self, Plan};
use super::romfile;
use crate::config::{BindMode, Config, ConfigError, RunConfig};
use crate::exit::Failure;

/// Something that stands in the way.
#[derive(Debug)]
pub struct Problem {
    /// What it is about, in a word.
    pub part: &'static str,
    /// What it is.
    pub error: Box<dyn Failure>,
}

impl Problem {
    fn new(part: &'static str, error: impl Failure + 'static) -> Self {
        Self {
            part,
            error: Box::new(error),
        }
    }
}

/// Goes through the settings and then through what a machine is planned from, part by part. `whole` also makes the plan
/// itself, which opens devices and disks for a moment.
pub fn find(config: Config, whole: bool) -> Vec<Problem> {
    let (config, mut found) = settings(config);
    let Some(config) = config else { return found };
    let missing = found.iter().any(|problem| problem.part == "Firmware");
    if let (false, Err(error)) = (missing, plan::boot_plan(&config.boot)) {
        found.push(Problem::new("Firmware", error));
    }
    if let Err(error) = plan::room_for_disks(&config) {
        found.push(Problem::new("Disk", error));
    }
    for (index, disk) in config.disks.iter().enumerate() {
        if let Err(error) = plan::open_disk(index, disk) {
            found.push(Problem::new("Disk", error));
        }
    }
    if let Err(error) = romfile::read_all(&config.devices) {
        found.push(Problem::new("ROM", Error::from(error)));
    }
    if found.is_empty() && whole {
        // Functions that the run takes first cannot be opened yet.
        let devices = match config.bind {
            BindMode::Off => config.devices.clone(),
            BindMode::Named | BindMode::Auto => Vec::new(),
        };
        let config = RunConfig { devices, ..config };
        found.extend(Plan::check(config).err().map(|error| Problem::new("Guest", error)));
    }
    found
}

/// The settings checked, without the files that are not there; nothing where something else is wrong with them.
fn settings(mut config: Config) -> (Option<RunConfig>, Vec<Problem>) {
    let mut found = Vec::new();
    loop {
        let error = match config.clone().validate() {
            Ok(config) => return (Some(config), found),
            Err(error) => error,
        };
        let part = match &error {
            ConfigError::File { key, path, .. } => without(&mut config, key, path),
            _ => None,
        };
        found.push(Problem::new(part.unwrap_or("Settings"), error));
        if part.is_none() {
            return (None, found);
        }
    }
}

/// Takes a file out of the settings, so that the rest can be looked at; says what it was for.
fn without(config: &mut Config, key: &str, path: &std::path::Path) -> Option<&'static str> {
    match key {
        "disk" => {
            let before = config.disks.len();
            config.disks.retain(|disk| disk.path != path);
            (config.disks.len() < before).then_some("Disk")
        }
        "romfile" => {
            let device = config
                .devices
                .iter_mut()
                .find(|device| device.romfile.as_deref() == Some(path))?;
            device.romfile = None;
            Some("ROM")
        }
        "firmware" => config.firmware.take().map(|_| "Firmware"),
        "initrd" => config.initrd.take().map(|_| "Kernel"),
        // Without its kernel the rest would be that of another guest, with firmware.
        _ => None,
    }
}
