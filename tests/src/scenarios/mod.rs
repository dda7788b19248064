//! All the scenarios, a file a subject.

pub mod gaming;
mod host;
mod lifecycle;
pub mod monitor;
mod reboot;
mod variables;

use crate::scenario::Scenario;

/// Every scenario there is.
pub const ALL: &[&dyn Scenario] = &[
    &host::Stands(crate::lab::Set::New),
    &host::Stands(crate::lab::Set::Old),
    &gaming::NEW,
    &gaming::OLD,
    &gaming::INTX,
    &lifecycle::GivenBack,
    &reboot::Reboot,
    &reboot::TripleFault,
    &variables::Survive,
];
