//! Taking functions from their drivers for vfio-pci, and giving them back: each step written into the journal before it is
//! done, all of it undone in reverse when one fails.

use std::path::{Path, PathBuf};

use super::effects::{Effects, WriteError};
use super::error::{StepError, TakeError};
use super::holders::{DeviceFiles, Grip, holders};
use super::journal::{Entry, Journal, Purpose, Step};
use crate::host::{Bdf, HostFunction, Sysfs, SysfsError};

/// The driver that hands functions to guests.
pub const VFIO_PCI: &str = "vfio-pci";

const DRIVERS: &str = "/sys/bus/pci/drivers";

/// What is being done, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A driver is being unbound, which may take a while.
    Unbinding {
        /// The function.
        bdf: Bdf,
        /// Its driver.
        driver: String,
    },
    /// A function has come to vfio-pci.
    Taken {
        /// The function.
        bdf: Bdf,
        /// The driver that had it.
        from: Option<String>,
    },
    /// A function was given back.
    GivenBack {
        /// The function.
        bdf: Bdf,
        /// How.
        given: Given,
    },
}

/// What giving back a function came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// It is on the driver that had it, or on none if it had none.
    To(Option<String>),
    /// It is on a driver that somebody else gave it meanwhile, and was left there.
    ElsewhereBy(String),
    /// It is no longer in this machine, or another card is in its place.
    Gone,
}

/// The host's functions changing hands. The journal is held as long as this lives.
pub struct Handover<'a> {
    sysfs: &'a Sysfs,
    effects: &'a dyn Effects,
    journal: Journal,
    interrupted: &'a dyn Fn() -> bool,
    progress: &'a mut dyn FnMut(Progress),
}

impl std::fmt::Debug for Handover<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover")
            .field("effects", &self.effects)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl<'a> Handover<'a> {
    /// With a journal that is open. `interrupted` is asked before each function is taken.
    pub fn new(
        sysfs: &'a Sysfs,
        effects: &'a dyn Effects,
        journal: Journal,
        interrupted: &'a dyn Fn() -> bool,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        Self {
            sysfs,
            effects,
            journal,
            interrupted,
            progress,
        }
    }

    /// What has been taken.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes functions for vfio-pci: all of them, or none. Those on vfio-pci already stay as they are, and stay there
    /// when the others are given back.
    ///
    /// # Errors
    /// The first step that failed, and what could not be undone.
    pub fn take(&mut self, functions: &[Bdf], purpose: Purpose) -> Result<(), TakeError> {
        self.need_driver(VFIO_PCI, VFIO_PCI)?;
        let mut all = functions.to_vec();
        // The highest first: a card's sound controller goes before the display that powers it, and comes back after it.
        all.sort_unstable_by(|a, b| b.cmp(a));
        let mut touched = Vec::new();
        for bdf in &all {
            if let Err(cause) = self.take_one(*bdf, purpose, &mut touched) {
                return Err(self.undo(cause, touched));
            }
        }
        match self.verify(&all) {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.undo(cause, touched)),
        }
    }

    fn take_one(&mut self, bdf: Bdf, purpose: Purpose, touched: &mut Vec<Bdf>) -> Result<(), StepError> {
        let function = self.sysfs.function(bdf)?;
        if function.on_vfio() {
            return self.adopt(bdf, purpose);
        }
        if (self.interrupted)() {
            return Err(StepError::Interrupted);
        }
        self.journal.add(Entry {
            bdf,
            id: (function.vendor, function.device),
            driver: function.driver.clone(),
            driver_override: function.driver_override.clone(),
            purpose,
            step: Step::Override,
        })?;
        touched.push(bdf);
        self.write(bdf, &file_of(bdf, "driver_override"), VFIO_PCI)?;
        if let Some(driver) = &function.driver {
            self.journal.step(bdf, Step::Unbind)?;
            self.unbind(bdf, driver)?;
        }
        self.journal.step(bdf, Step::Bind)?;
        // By the driver's own file, which answers with the error of its probe.
        self.write(bdf, &Path::new(DRIVERS).join(VFIO_PCI).join("bind"), &bdf.to_string())?;
        self.expect_driver(bdf, Some(VFIO_PCI))?;
        self.journal.step(bdf, Step::Taken)?;
        (self.progress)(Progress::Taken {
            bdf,
            from: function.driver,
        });
        Ok(())
    }

    /// A function that a killed run left on vfio-pci becomes this one's, to be given back after all.
    fn adopt(&mut self, bdf: Bdf, purpose: Purpose) -> Result<(), StepError> {
        let left = self.journal.entry(bdf).filter(|entry| match entry.purpose {
            Purpose::Bind => false,
            Purpose::Run { pid } => !self.sysfs.tree().exists(format!("/proc/{pid}")),
        });
        match left.cloned() {
            Some(entry) => Ok(self.journal.add(Entry {
                purpose,
                step: Step::Taken,
                ..entry
            })?),
            None => Ok(()),
        }
    }

    /// That the groups of these functions can be opened, as a run will.
    fn verify(&self, functions: &[Bdf]) -> Result<(), StepError> {
        let mut groups = Vec::new();
        for bdf in functions {
            groups.extend(self.sysfs.function(*bdf)?.group);
        }
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            self.effects.open_group(self.sysfs, group)?;
        }
        Ok(())
    }

    fn undo(&mut self, cause: StepError, touched: Vec<Bdf>) -> TakeError {
        let stuck = match &cause {
            StepError::Stuck { bdf, .. } => Some(*bdf),
            _ => None,
        };
        let mut error = TakeError::from(cause);
        for bdf in touched.into_iter().rev() {
            // Its driver holds the kernel's lock of the function: each write to it would hang as well.
            if stuck == Some(bdf) {
                continue;
            }
            match self.give_back(bdf) {
                Ok(_) => error.undone.push(bdf),
                Err(why) => error.left.push((bdf, why)),
            }
        }
        error
    }

    /// Gives a function back to what the journal says it was. One that is not in the journal is left as it is.
    ///
    /// # Errors
    /// The step that failed; the function stays in the journal, and it may be tried again.
    pub fn give_back(&mut self, bdf: Bdf) -> Result<Option<Given>, StepError> {
        let Some(entry) = self.journal.entry(bdf).cloned() else {
            return Ok(None);
        };
        let given = self.give_back_entry(&entry)?;
        self.journal.forget(bdf)?;
        (self.progress)(Progress::GivenBack {
            bdf,
            given: given.clone(),
        });
        Ok(Some(given))
    }

    fn give_back_entry(&mut self, entry: &Entry) -> Result<Given, StepError> {
        let bdf = entry.bdf;
        let function = match self.sysfs.function(bdf) {
            Ok(function) if (function.vendor, function.device) == entry.id => function,
            Ok(_) | Err(SysfsError::NoSuchFunction { .. }) => return Ok(Given::Gone),
            Err(error) => return Err(error.into()),
        };
        self.refuse_in_use(&function)?;
        self.journal.step(bdf, Step::GiveBack)?;
        // Somebody else's is not touched.
        if function.driver_override.as_deref() == Some(VFIO_PCI) {
            let before = entry.driver_override.as_deref().unwrap_or("\n");
            self.write(bdf, &file_of(bdf, "driver_override"), before)?;
        }
        match &function.driver {
            now if *now == entry.driver => return Ok(Given::To(entry.driver.clone())),
            Some(now) if !function.on_vfio() => return Ok(Given::ElsewhereBy(now.clone())),
            Some(now) => self.unbind(bdf, now)?,
            None => {}
        }
        if let Some(driver) = &entry.driver {
            let alias = self.sysfs.tree().text(file_of(bdf, "modalias")).unwrap_or_default();
            self.need_driver(driver, &alias)?;
            let bound = self.write(bdf, &Path::new(DRIVERS).join(driver).join("bind"), &bdf.to_string());
            // A driver that has just been loaded takes it by itself.
            if self.sysfs.function(bdf)?.driver.as_ref() != Some(driver) {
                bound?;
            }
        }
        self.expect_driver(bdf, entry.driver.as_deref())?;
        Ok(Given::To(entry.driver.clone()))
    }

    /// vfio-pci would wait for a virtual machine to end.
    fn refuse_in_use(&self, function: &HostFunction) -> Result<(), StepError> {
        if !function.on_vfio() {
            return Ok(());
        }
        let mut holders = holders(self.sysfs.tree(), function.bdf);
        holders.retain(|holder| holder.grip == Grip::Holds);
        match holders.is_empty() {
            true => Ok(()),
            false => Err(StepError::InUse {
                bdf: function.bdf,
                holders,
            }),
        }
    }

    fn unbind(&mut self, bdf: Bdf, driver: &str) -> Result<(), StepError> {
        (self.progress)(Progress::Unbinding {
            bdf,
            driver: driver.to_owned(),
        });
        let files = DeviceFiles::of(self.sysfs.tree(), bdf);
        let file = Path::new(DRIVERS).join(driver).join("unbind");
        match self.write(bdf, &file, &bdf.to_string()) {
            Err(StepError::Write {
                source: WriteError::Stuck { limit, .. },
                ..
            }) => Err(StepError::Stuck {
                bdf,
                driver: driver.to_owned(),
                limit,
                holders: files.holders(self.sysfs.tree()),
            }),
            // Gone by itself is as good.
            Err(error) => match self.sysfs.function(bdf)?.driver {
                None => Ok(()),
                Some(_) => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Loads a driver's module unless the driver is there.
    fn need_driver(&self, driver: &str, module: &str) -> Result<(), StepError> {
        let tree = self.sysfs.tree();
        if tree.is_dir(Path::new(DRIVERS).join(driver)) {
            return Ok(());
        }
        let driver = driver.to_owned();
        self.effects.load(module).map_err(|source| {
            let running = tree.text("/proc/sys/kernel/osrelease").unwrap_or_default();
            let installed = tree.list("/lib/modules").unwrap_or_default();
            match running.is_empty() || installed.contains(&running) {
                true => StepError::Module { driver, source },
                false => StepError::OtherKernel {
                    driver,
                    running,
                    installed,
                },
            }
        })
    }

    fn expect_driver(&self, bdf: Bdf, wanted: Option<&str>) -> Result<(), StepError> {
        let now = self.sysfs.function(bdf)?.driver;
        match now.as_deref() == wanted {
            true => Ok(()),
            false => Err(StepError::NotBound {
                bdf,
                wanted: wanted.unwrap_or("no driver").to_owned(),
                now,
            }),
        }
    }

    fn write(&self, bdf: Bdf, path: &Path, text: &str) -> Result<(), StepError> {
        let written = self.effects.write(path, text);
        written.map_err(|source| StepError::Write { bdf, source })
    }
}

fn file_of(bdf: Bdf, name: &str) -> PathBuf {
    Sysfs::function_path(bdf).join(name)
}
