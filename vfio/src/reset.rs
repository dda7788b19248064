//! Resets: before the guest first runs, so that it does not inherit what the host's driver left, and at each reset of
//! the guest.
//!
//! A function with a function level reset is reset alone. Most graphics adapters have none: their slot or bus is reset,
//! which hits all functions on it, so it happens once the last of them has been stopped.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use crate::container::Container;
use crate::discover::{Layout, PowerLayout};
use crate::host::Bdf;
use crate::io::{CONFIG_REGION, DeviceIo};

/// From D3hot to D0 a function may take 10 ms (PCI Express Base Specification 6.0 §5.9).
const WAKE: Duration = Duration::from_millis(10);

/// How a function is reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetMethod {
    /// Alone, by a function level reset or another way of the kernel's.
    Function,
    /// With its slot or bus, and these functions on it.
    Hot {
        /// All assigned functions hit.
        members: BTreeSet<Bdf>,
        /// The IOMMU groups hit.
        groups: BTreeSet<u32>,
    },
    /// Not at all, for this reason.
    None(String),
}

/// Decides how a function is reset. `owned` says whether a group is this process's.
pub(crate) fn method(io: &dyn DeviceIo, bdf: Bdf, layout: &Layout, owned: impl Fn(u32) -> bool) -> ResetMethod {
    // What the kernel offers without FLR may be a trip through D3hot, which leaves much of a graphics adapter as it was.
    if io.can_reset() && (layout.has_flr() || !layout.has_power_reset()) {
        return ResetMethod::Function;
    }
    let hot = match io.hot_reset_info() {
        Ok(hit) => match hit.iter().find(|dependent| !owned(dependent.group)) {
            None if hit.is_empty() => Err("its slot and bus cannot be reset".to_owned()),
            None => Ok(ResetMethod::Hot {
                members: hit.iter().map(|dependent| dependent.function).collect(),
                groups: hit.iter().map(|dependent| dependent.group).collect(),
            }),
            Some(other) => Err(format!(
                "a reset of its bus would hit {} in IOMMU group {}, which is not assigned",
                other.function, other.group
            )),
        },
        Err(error) => Err(format!("its slot and bus cannot be reset ({error})")),
    };
    hot.unwrap_or_else(|reason| {
        if io.can_reset() {
            return ResetMethod::Function;
        }
        tracing::warn!(
            "{bdf} cannot be reset: it has no function level reset, and {reason}; if it misbehaves in the guest, or \
             after a restart of it, power the host off and on"
        );
        ResetMethod::None(reason)
    })
}

/// The hot resets that functions share.
#[derive(Debug)]
pub(crate) struct Resets {
    container: Option<Arc<Container>>,
    functions: Vec<(Bdf, ResetMethod)>,
    /// Functions that have been stopped and wait for the others of their hot reset.
    waiting: Mutex<BTreeSet<Bdf>>,
}

impl Resets {
    /// The resets of `functions`, which are all that are assigned.
    pub(crate) fn new(container: Option<Arc<Container>>, mut functions: Vec<(Bdf, ResetMethod)>) -> Self {
        let assigned: BTreeSet<Bdf> = functions.iter().map(|(bdf, _)| *bdf).collect();
        for (_, method) in &mut functions {
            if let ResetMethod::Hot { members, .. } = method {
                // Members of the groups that are not assigned (bridges) have nothing to be stopped.
                members.retain(|bdf| assigned.contains(bdf));
            }
        }
        Self {
            container,
            functions,
            waiting: Mutex::default(),
        }
    }

    /// How a function is reset.
    pub(crate) fn method(&self, bdf: Bdf) -> Option<&ResetMethod> {
        self.functions
            .iter()
            .find(|(function, _)| *function == bdf)
            .map(|(_, method)| method)
    }

    /// A function has been stopped: it is reset, now or with the last function of its bus.
    pub(crate) fn arrived(&self, bdf: Bdf, io: &dyn DeviceIo) {
        if self.method(bdf) == Some(&ResetMethod::Function) {
            log(bdf, "function", io.reset());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(bdf);
        // A function that can be reset alone is waited for as well where another's hot reset hits it.
        let due = self.functions.iter().find_map(|(_, method)| match method {
            ResetMethod::Hot { members, groups } if members.contains(&bdf) && members.is_subset(&waiting) => {
                Some((members, groups))
            }
            _ => None,
        });
        if let Some((members, groups)) = due {
            // All of these are covered at once.
            waiting.retain(|bdf| !members.contains(bdf));
            let container = self.container.as_ref();
            let fds: Vec<RawFd> = groups
                .iter()
                .filter_map(|group| container.and_then(|container| container.group_fd(*group)))
                .collect();
            log(bdf, "hot", io.hot_reset(&fds));
        }
    }
}

fn log(bdf: Bdf, kind: &str, result: std::io::Result<()>) {
    match result {
        Ok(()) => tracing::debug!("{bdf}: {kind} reset done"),
        Err(error) => tracing::warn!("{bdf}: {kind} reset failed: {error}; the device keeps its state"),
    }
}

/// Brings a function to D0: in D3hot the reset of many a device does nothing, and its registers do not answer.
pub(crate) fn wake(io: &dyn DeviceIo, bdf: Bdf, power: PowerLayout) {
    let at = u64::from(power.offset) + 4;
    let read = || {
        let mut bytes = [0xff; 2];
        io.read(CONFIG_REGION, at, &mut bytes)
            .ok()
            .map(|()| u16::from_le_bytes(bytes))
    };
    let Some(control) = read().filter(|control| control & 3 != 0 && *control != 0xffff) else {
        return;
    };
    let written = io.write(CONFIG_REGION, at, &(control & !3).to_le_bytes());
    sleep(WAKE);
    if let (Err(_), _) | (_, Some(1..)) = (written, read().map(|control| control & 3)) {
        tracing::warn!(
            "{bdf} cannot be woken and stays in D{}; power the host off and on",
            control & 3
        );
    }
}

#[cfg(test)]
mod tests;
