//! Functions taken from the host's drivers for vfio-pci, and given back to them: by address, so that a second card of the
//! same make stays with the host; with a time limit, as a driver may wait for ever for whoever uses it; and with a
//! journal, so that a process killed in between leaves nothing that cannot be put right.

pub mod effects;
pub mod error;
pub mod handover;
pub mod holders;
pub mod journal;
pub mod plan;

pub use effects::{Effects, LiveEffects, LoadError, WriteError, write_stdin_to};
pub use error::{StepError, TakeError};
pub use handover::{Given, Handover, Progress, VFIO_PCI};
pub use holders::{Grip, Holder, holders};
pub use journal::{Entry, Journal, JournalError, Purpose, Step};
pub use plan::{Action, BindPlan, DARK, PlanError, PlanOptions, Row, Why};

#[cfg(test)]
mod handover_tests;
