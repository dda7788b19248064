//! `tenon check`: the host's requirements from `vfio`, those of one guest, and how they are shown.

mod guest;
mod log;
mod report;
mod style;
#[cfg(test)]
mod tests;

pub use guest::Guest;
pub use log::LogReport;
pub use report::Report;
pub use style::{Style, wrapped};
