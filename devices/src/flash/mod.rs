//! The firmware's two flash chips, below 4 GiB: CODE, which only reads, and VARS, which keeps the UEFI variables.
//!
//! Both are guest memory that reads without exits; writes come here. VARS speaks the dialect of Intel's command set that stock OVMF
//! expects (edk2 OvmfPkg/QemuFlashFvbServicesRuntimeDxe/QemuFlash.c).

mod cfi;
mod code;
mod store;
mod vars;

pub use cfi::BLOCK_SIZE;
pub use code::CodeFlash;
pub use store::{VarsError, VarsMode, VarsOptions, VarsStore};
pub use vars::VarsFlash;
