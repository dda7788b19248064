//! All the scenarios, a file a subject.

mod boot_order;
mod cases;
mod console;
mod contracts;
mod direct;
pub mod gaming;
mod host;
mod lifecycle;
pub mod monitor;
mod prepare;
mod reboot;
mod refusals;
mod variables;

use crate::scenario::Scenario;

/// Every scenario there is.
pub const ALL: &[&dyn Scenario] = &[
    &host::Stands(crate::lab::Set::New),
    &host::Stands(crate::lab::Set::Old),
    &gaming::NEW,
    &gaming::OLD,
    &gaming::INTX,
    &contracts::KvmContracts,
    &direct::BZIMAGE_1,
    &direct::BZIMAGE_4,
    &direct::PVH_1,
    &direct::PVH_4,
    &boot_order::FIRST,
    &boot_order::SECOND,
    &refusals::Refusals,
    &prepare::Prepare,
    &prepare::WithoutRemapping,
    &lifecycle::GivenBack,
    &reboot::Reboot,
    &reboot::TripleFault,
    &variables::Survive,
];
