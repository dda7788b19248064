//! `tenon run --bind`: functions taken for one run, and given back when it has ended, however it did.

use std::process;
use std::thread;
use std::time::Duration;

use signal_hook::iterator::Signals;
use vfio::host::bind::{BindPlan, Entry, Handover, Journal, JournalError, PlanOptions, Purpose, StepError};
use vfio::host::{Bdf, LimitError, MemoryLock};

use super::bind;
use super::handover::{Interrupted, Narrator, OutputError, directory, effects, hang_up_is_ignored, live};
use crate::config::{BindMode, Device, RunConfig};
use crate::exit::{ExitStatus, Failure};

/// How long a driver has to let go. `tenon bind --timeout` has more patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// What must be taken before the machine can be built; `None` if nothing must. With `auto` the functions that come along
/// become the guest's.
pub(super) fn plan(config: &mut RunConfig, my_display: bool) -> Result<Option<BindPlan>, Box<dyn Failure>> {
    let named: Vec<Bdf> = config.devices.iter().map(|device| device.address).collect();
    if config.bind == BindMode::Off || named.is_empty() {
        return Ok(None);
    }
    let sysfs = live();
    let options = PlanOptions {
        whole_units: config.bind == BindMode::Auto,
        keep_stubs: false,
        my_display,
    };
    let plan = bind::plan(sysfs.tree(), &named, options)?;
    let all = plan.for_guest();
    let along = all.iter().copied().filter(|bdf| !named.contains(bdf));
    config
        .devices
        .extend(along.map(|address| Device { address, romfile: None }));
    // With nothing to take it needs no root, unless a run that was killed left something to be given back.
    let left = Journal::peek(&directory(), sysfs.tree()).is_ok_and(|entries| {
        let by_run = |entry: &Entry| entry.purpose != Purpose::Bind && all.contains(&entry.bdf);
        entries.iter().any(by_run)
    });
    Ok((left || !plan.to_take().is_empty()).then_some(plan))
}

/// Functions on loan from the host. Dropping it gives them back too, with errors only logged.
#[derive(Debug)]
pub(super) struct Loan {
    interrupted: Interrupted,
    open: bool,
}

impl Loan {
    /// Takes functions for this process; `memory` is what they will need locked.
    pub(super) fn take(functions: &[Bdf], memory: u64) -> Result<Self, Box<dyn Failure>> {
        let lock = MemoryLock::of_this_process().and_then(|lock| lock.check(memory));
        lock.map_err(NoLock)?;
        let interrupted = Interrupted::watch()?;
        hang_up_is_terminate()?;
        let sysfs = live();
        let journal = Journal::open(&directory(), sysfs.tree(), PATIENCE)?;
        let effects = effects(PATIENCE, &journal)?;
        let asked = || interrupted.is_set();
        let mut narrator = Narrator::new(false);
        let mut tell = |progress| narrator.tell(&progress);
        let purpose = Purpose::Run { pid: process::id() };
        Handover::new(&sysfs, &effects, journal, &asked, &mut tell).take(functions, purpose)?;
        Ok(Self {
            interrupted,
            open: true,
        })
    }

    /// Whether a signal asked for the end since.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.is_set()
    }

    /// Gives back all that is this run's.
    pub(super) fn give_back(mut self) -> Result<(), NotGivenBack> {
        self.close()
    }

    fn close(&mut self) -> Result<(), NotGivenBack> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        let sysfs = live();
        let journal = Journal::open(&directory(), sysfs.tree(), PATIENCE)?;
        let mine = Purpose::Run { pid: process::id() };
        let own = journal.entries().iter().filter(|entry| entry.purpose == mine);
        let mut functions: Vec<Bdf> = own.map(|entry| entry.bdf).collect();
        // A display before its sound controller, which it powers.
        functions.sort_unstable();
        let effects = effects(PATIENCE, &journal)?;
        let mut narrator = Narrator::new(false);
        let mut tell = |progress| narrator.tell(&progress);
        let mut handover = Handover::new(&sysfs, &effects, journal, &|| false, &mut tell);
        let results = functions.into_iter().map(|bdf| handover.give_back(bdf));
        let failures: Vec<StepError> = results.filter_map(Result::err).collect();
        match failures.is_empty() {
            true => Ok(()),
            false => Err(NotGivenBack::Functions(failures)),
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!("{error}");
        }
    }
}

/// A terminal that closes presses the power button, as SIGTERM does, rather than killing the process with the functions
/// still taken.
fn hang_up_is_terminate() -> Result<(), OutputError> {
    if hang_up_is_ignored() {
        return Ok(());
    }
    let mut signals = Signals::new([libc::SIGHUP]).map_err(OutputError)?;
    thread::spawn(move || {
        for _ in signals.forever() {
            let _ = signal_hook::low_level::raise(libc::SIGTERM);
        }
    });
    Ok(())
}

/// The guest's memory cannot be locked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct NoLock(LimitError);

impl Failure for NoLock {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }
}

/// The run is over and functions are still taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotGivenBack {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("functions taken for the run were not given back{}", lines(.0))]
    Functions(Vec<StepError>),
}

fn lines(failures: &[StepError]) -> String {
    failures.iter().map(|failure| format!("\n  {failure}")).collect()
}

impl Failure for NotGivenBack {
    fn status(&self) -> ExitStatus {
        ExitStatus::Host
    }

    fn hint(&self) -> Option<String> {
        Some("`tenon release --all` tries again".to_owned())
    }
}
