//! All the scenarios, a file a subject.

mod boot_order;
mod console;
mod contracts;
mod direct;
mod host;
mod refusals;

use crate::scenario::Scenario;

/// Every scenario there is.
pub const ALL: &[&dyn Scenario] = &[
    &host::Stands(crate::lab::Set::New),
    &host::Stands(crate::lab::Set::Old),
    &contracts::KvmContracts,
    &direct::BZIMAGE_1,
    &direct::BZIMAGE_4,
    &direct::PVH_1,
    &direct::PVH_4,
    &boot_order::FIRST,
    &boot_order::SECOND,
    &refusals::Refusals,
];
