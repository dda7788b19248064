//! Why a machine was not built or did not go on, and the exit status that tells of it.

use std::io;
use std::path::PathBuf;

use devices::flash::VarsError;
use devices::fw_cfg::FwCfgError;
use devices::pci::TopologyError;
use devices::virtio::block::DiskError;
use firmware::acpi::AcpiError;
use firmware::mmio64::Mmio64Error;
use firmware::ovmf::OvmfError;
use firmware::smbios::SmbiosError;
use thiserror::Error;
use vfio::host::{LimitError, SysfsError};
use vfio::{AssignError, DmaError, SelectionError};

use super::ram::RamError;
use super::romfile::RomFileError;
use crate::boot;
use crate::exit::{ExitStatus, Failure};
use crate::kvm::host::HostError;

/// Why there is no machine, or no machine any more.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Kvm(#[from] HostError),
    #[error("KVM refused {what}")]
    KvmCall {
        what: &'static str,
        source: kvm_ioctls::Error,
    },
    #[error(transparent)]
    Firmware(#[from] OvmfError),
    #[error(transparent)]
    Vars(#[from] VarsError),
    #[error("cannot create {}, the directory of the UEFI variables", path.display())]
    VarsDirectory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Kernel(#[from] boot::Error),
    #[error(transparent)]
    RomFile(#[from] RomFileError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Assign(#[from] AssignError),
    #[error(transparent)]
    MemoryLimit(#[from] LimitError),
    #[error(transparent)]
    Dma(#[from] DmaError),
    #[error("{count} {what} are too many: the root bus has room for {room}")]
    TooMany { what: &'static str, count: usize, room: u8 },
    #[error(
        "cpu.phys-bits = {wanted} is more than the {available} bits this host can give: {limit}; leave it out or lower it"
    )]
    PhysBits {
        wanted: u8,
        available: u8,
        limit: &'static str,
    },
    #[error(transparent)]
    Window(#[from] Mmio64Error),
    #[error(transparent)]
    Ram(#[from] RamError),
    #[error(transparent)]
    FwCfg(#[from] FwCfgError),
    #[error(transparent)]
    Smbios(#[from] SmbiosError),
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    #[error("two functions on one place of the guest's bus")]
    Topology(#[from] TopologyError),
    #[error("cannot open {}", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("cannot {what}")]
    System { what: &'static str, source: io::Error },
    #[error("the event loop failed")]
    Events(#[source] event_manager::Error),
    #[error("{0}")]
    Guest(String),
}

/// For `map_err`: the host could not do `what`.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

impl Failure for Error {
    /// By whose fault it is: what the user asked for cannot be, the host cannot give it, or the guest or a device it owns failed.
    fn status(&self) -> ExitStatus {
        match self {
            Error::Firmware(_)
            | Error::Kernel(_)
            | Error::RomFile(_)
            | Error::TooMany { .. }
            | Error::PhysBits { .. }
            | Error::Window(_)
            | Error::Smbios(_)
            | Error::FwCfg(_)
            | Error::Output { .. } => ExitStatus::Configuration,
            Error::Vars(VarsError::InUse { .. } | VarsError::Thread(_) | VarsError::Map(_)) => ExitStatus::Host,
            Error::Disk(DiskError::Thread { .. }) => ExitStatus::Host,
            Error::Vars(_) | Error::VarsDirectory { .. } | Error::Disk(_) => ExitStatus::Configuration,
            Error::Selection(selection) => match selection {
                SelectionError::NotOnVfio { .. } | SelectionError::NoIommu(_) => ExitStatus::Host,
                SelectionError::Host(SysfsError::NoSuchFunction { .. }) => ExitStatus::Configuration,
                SelectionError::Host(_) => ExitStatus::Host,
                _ => ExitStatus::Configuration,
            },
            Error::Guest(_) => ExitStatus::Guest,
            _ => ExitStatus::Host,
        }
    }
}
