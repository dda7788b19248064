//! Runs scenarios: two lab hosts side by side, each booted once for as many scenarios as it fits.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{Failure, Scenario, Wish};
use crate::lab::{HostError, LabHost, host};

/// How many hosts there is room for: an icount host uses one core, and this job has at most two.
#[must_use]
pub fn room() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(2)
}

/// Runs the scenarios in so many hosts at once and prints each result; logs go into a folder for each under `logs`.
#[must_use]
pub fn run(scenarios: &[&'static dyn Scenario], hosts: usize, logs: &Path) -> Tally {
    let mut waiting = scenarios.to_vec();
    waiting.sort_by_key(|scenario| std::cmp::Reverse(scenario.cost()));
    let queue = Mutex::new(waiting);
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for number in 0..hosts.min(scenarios.len()) {
            let mut worker = Worker {
                queue: &queue,
                tally: &tally,
                logs,
                number,
                boots: 0,
                current: None,
            };
            scope.spawn(move || worker.work());
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

struct Worker<'a> {
    queue: &'a Mutex<Vec<&'static dyn Scenario>>,
    tally: &'a Mutex<Tally>,
    logs: &'a Path,
    number: usize,
    boots: u32,
    current: Option<(Wish, LabHost)>,
}

impl Worker<'_> {
    fn work(&mut self) {
        while let Some(scenario) = self.next() {
            let logs = self.logs.join(scenario.name());
            let start = Instant::now();
            let mut result = self.attempt(scenario, &logs);
            if let Err(Failure::Host(HostError::Dead {
                known: true,
                logs: dead,
                ..
            })) = &result
            {
                host::count_retry(dead);
                self.keep_host_logs(&logs);
                // A dead host is still as wished; the attempt must not take it for a live one.
                self.current = None;
                result = self.attempt(scenario, &logs);
            }
            if result.is_err() {
                self.keep_host_logs(&logs);
                self.current = None;
            }
            self.tally
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .record(scenario.name(), start.elapsed(), &result);
        }
        self.current = None;
    }

    /// The longest scenario for the host at hand, else the longest of all.
    fn next(&self) -> Option<&'static dyn Scenario> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |scenario: &&dyn Scenario| self.current.as_ref().is_some_and(|(wish, _)| *wish == scenario.wish());
        let place = queue.iter().position(fits).unwrap_or(0);
        (!queue.is_empty()).then(|| queue.remove(place))
    }

    fn attempt(&mut self, scenario: &dyn Scenario, logs: &Path) -> Result<(), Failure> {
        let wish = scenario.wish();
        fs::create_dir_all(logs).map_err(|error| Failure::Wrong(format!("cannot make {}: {error}", logs.display())))?;
        let host = self.host(wish)?;
        // A panic is a failure of that scenario, not the end of all the others.
        let run = panic::catch_unwind(AssertUnwindSafe(|| scenario.run(host, logs)));
        let result = run.unwrap_or_else(|panic| Err(Failure::Wrong(format!("panicked: {}", words(&*panic)))));
        if result.is_ok() {
            host.check("tidy", Duration::from_secs(60))?;
        }
        result
    }

    fn host(&mut self, wish: Wish) -> Result<&mut LabHost, HostError> {
        if self.current.as_ref().is_none_or(|(current, _)| *current != wish) {
            // The old one first: two in one worker would be one too many for the machine.
            self.current = None;
            self.boots += 1;
            let host = LabHost::boot(&wish.config(&self.host_logs()))?;
            self.current = Some((wish, host));
        }
        self.current
            .as_mut()
            .map(|(_, host)| host)
            .ok_or_else(|| unreachable_host(self.logs))
    }

    fn host_logs(&self) -> PathBuf {
        self.logs.join(format!("host-{}-{}", self.number, self.boots))
    }

    /// A failed scenario's folder has everything there is to know.
    fn keep_host_logs(&self, logs: &Path) {
        for name in ["console.log", "qemu.log"] {
            let _ = fs::copy(self.host_logs().join(name), logs.join(name));
        }
    }
}

fn unreachable_host(logs: &Path) -> HostError {
    HostError::Io {
        action: "no host for",
        path: logs.to_path_buf(),
        source: std::io::ErrorKind::NotFound.into(),
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
