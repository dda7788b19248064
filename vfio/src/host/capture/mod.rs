//! Captures: the files of a host that the survey and the checks read, in a `.tar.zst` to attach to a bug report.
//!
//! - [`Memory`]: files kept in memory, what a capture is read into and written from.
//! - [`Capture`]: reads an archive that may come from anybody; every size in it has a limit.
//! - [`take`]: reads a host's files for one, and leaves out or masks what is personal.
//! - [`write`]: writes one, the same bytes for the same files.
//!
//! What is no file of the host stands under `/tenon`: [`KERNEL_LOG`], and [`ABOUT`], which says how the capture was made.

mod about;
mod content;
mod mask;
mod memory;
mod reader;
mod rules;
mod take;
mod writer;

pub use about::{About, FORMAT};
pub use mask::Masks;
pub use memory::{Memory, Refusal, Visit};
pub use reader::{Capture, CaptureError, LARGEST_ARCHIVE};
pub use take::{Taken, take};
pub use writer::{WriteError, write};

/// Where the kernel's log stands in a capture, as text.
pub const KERNEL_LOG: &str = super::kernel_log::CAPTURED;

/// Where a capture says how it was made.
pub const ABOUT: &str = "/tenon/capture.toml";
