//! A computer built out of the other crates, and run.
//!
//! [`plan::Plan`] checks everything against the host and changes nothing; [`builder::build`] makes the machine; [`run`] runs it until
//! the guest powers off or somebody stops it.

pub mod address_space;
pub mod board;
pub mod builder;
pub mod control;
pub mod error;
mod identity;
pub mod layout;
pub mod places;
pub mod plan;
mod power_button;
pub mod power_on;
pub mod problems;
pub mod ram;
mod romfile;
mod runner;
mod sources;
pub mod summary;
pub mod tables;
mod terminal;
pub mod vcpus;

pub use error::Error;
pub use runner::{Outcome, run};
