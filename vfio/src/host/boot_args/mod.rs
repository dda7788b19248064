//! What makes the assignment of devices survive the reboot: kernel arguments, a vfio-pci that comes early, and the files
//! of the distribution that hold both.
//!
//! [`BootPlan`] says what it takes; [`Edits`] is what that means for the files as they are now, with the journal of
//! what was added before; [`Root::carry_out`] writes them, inside one directory and nowhere else. Taking everything
//! back is [`Edits::undoing`] the same journal.

mod arguments;
mod claim;
mod early;
mod edits;
mod journal;
mod notes;
mod place;
mod plan;
mod processor;
mod program;
mod root;
mod shell;
mod system;
mod text;
mod words;

pub use arguments::WrongArgument;
pub use claim::{Claim, Claimed};
pub use edits::{Edit, EditError, Edits, Summary};
pub use journal::JournalError;
pub use place::{Place, PlaceError};
pub use plan::{BootPlan, Change, Command, Loss, PlanError};
pub use processor::Processor;
pub use program::Told;
pub use root::{Root, RootError};
pub use shell::Unbalanced;
pub use system::{Family, Initramfs, System};

#[cfg(test)]
mod tests;
