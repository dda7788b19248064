//! The container: one IOMMU address space for all functions assigned to a guest, and the groups in it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use kvm_ioctls::DeviceFd;
use vfio_ioctls::{VfioContainer, VfioError};

use crate::group::Group;
use crate::host::{Bdf, HostFunction, Sysfs};
use crate::ioctl::{self, DeviceFile, IommuInfo};
use crate::selection::{Selection, bind_hint, list};

/// Why devices could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The container's file is not there.
    #[error("/dev/vfio/vfio does not exist; load VFIO: `modprobe vfio-pci vfio_iommu_type1`")]
    NoVfio,
    /// A file under /dev/vfio could not be opened.
    #[error(
        "cannot open {path}: {source}; run as root, or let a udev rule give the files to you: SUBSYSTEM==\"vfio\", \
         GROUP=\"kvm\", MODE=\"0660\""
    )]
    Device {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The container is not one this crate can use.
    #[error("/dev/vfio/vfio offers no type1 IOMMU; load its driver: `modprobe vfio_iommu_type1`")]
    NoType1(#[source] VfioError),
    /// The group's file does not exist.
    #[error(
        "{path} does not exist: no function of the group is on vfio-pci; the group holds {}",
        list(members)
    )]
    NoGroupFile {
        /// The file.
        path: String,
        /// The functions of the group.
        members: Vec<HostFunction>,
    },
    /// Somebody has the group.
    #[error(
        "IOMMU group {group} ({}) is in use by another process, most likely another virtual machine; stop that one first",
        list(members)
    )]
    GroupBusy {
        /// The group.
        group: u32,
        /// The functions of the group.
        members: Vec<HostFunction>,
    },
    /// A function of the group is on a host driver.
    #[error(
        "IOMMU group {group} is not viable: its functions {} are driven by the host; free it: {}",
        list(spoilers),
        bind_hint(spoilers)
    )]
    NotViable {
        /// The group.
        group: u32,
        /// The functions at fault, with their drivers.
        spoilers: Vec<HostFunction>,
    },
    /// An operation on the group failed.
    #[error("IOMMU group {group}: cannot {what}: {source}{}", group_hint(source))]
    Group {
        /// The group.
        group: u32,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The IOMMU driver refused.
    #[error(
        "the IOMMU cannot be used: {0}; if the kernel log says `No interrupt remapping support`, turn interrupt remapping \
         on in the firmware setup, or, trusting the guest, load vfio_iommu_type1 with allow_unsafe_interrupts=1"
    )]
    Iommu(#[source] io::Error),
    /// The device descriptor could not be had.
    #[error("cannot open {bdf} through its IOMMU group: {source}")]
    Function {
        /// The function.
        bdf: Bdf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn group_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => {
            " (see the kernel log: `No interrupt remapping support` calls for interrupt remapping in the firmware setup \
             or vfio_iommu_type1.allow_unsafe_interrupts=1)"
        }
        Some(libc::EINVAL) => {
            " (see the kernel log: a 1:1 mapping the firmware asks for, RMRR or IVMD, keeps a device from being assigned; \
             turn Pre-boot DMA Protection off in the firmware setup, or use another slot)"
        }
        _ => "",
    }
}

/// An IOMMU address space and the groups in it.
pub struct Container {
    /// vfio-ioctls opens and checks the container and maps through it.
    vfio: Arc<VfioContainer>,
    groups: BTreeMap<u32, Arc<Group>>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Opens a container with all groups of the selection, and tells KVM's VFIO device, if given, of each.
    ///
    /// # Errors
    /// See [`OpenError`]. Whatever was opened is closed again.
    pub fn open(selection: &Selection, sysfs: &Sysfs, kvm: Option<&Arc<DeviceFd>>) -> Result<Self, OpenError> {
        let vfio = Arc::new(VfioContainer::new(None).map_err(container_error)?);
        let mut groups = BTreeMap::new();
        for number in selection.groups.keys() {
            let group = Group::open(*number, sysfs, &vfio, kvm)?;
            // The IOMMU driver is chosen once, as soon as there is a group whose IOMMU it can look at.
            if groups.is_empty() {
                ioctl::set_type1(vfio.as_ref()).map_err(OpenError::Iommu)?;
            }
            groups.insert(*number, Arc::new(group));
        }
        Ok(Self { vfio, groups })
    }

    /// What the IOMMU can map.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn iommu_info(&self) -> io::Result<IommuInfo> {
        ioctl::iommu_info(self.vfio.as_ref())
    }

    /// The wrapped container.
    pub(crate) fn vfio(&self) -> &VfioContainer {
        &self.vfio
    }

    /// Opens a function of one of the groups.
    pub(crate) fn function(&self, function: &HostFunction) -> Result<(Arc<Group>, DeviceFile), OpenError> {
        let failed = |source| OpenError::Function {
            bdf: function.bdf,
            source,
        };
        let group = function
            .group
            .and_then(|number| self.groups.get(&number))
            .ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "its group was not selected")))?;
        let device = group.device(function.bdf).map_err(failed)?;
        Ok((group.clone(), device))
    }

    /// The descriptor of a group, if it is ours.
    pub(crate) fn group_fd(&self, number: u32) -> Option<RawFd> {
        self.groups.get(&number).map(|group| group.fd())
    }
}

fn container_error(error: VfioError) -> OpenError {
    match error {
        VfioError::OpenContainer(source) if source.kind() == io::ErrorKind::NotFound => OpenError::NoVfio,
        VfioError::OpenContainer(source) => OpenError::Device {
            path: "/dev/vfio/vfio".to_owned(),
            source,
        },
        other => OpenError::NoType1(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_failures_say_what_to_do() {
        let missing = container_error(VfioError::OpenContainer(io::Error::from_raw_os_error(libc::ENOENT)));
        assert!(missing.to_string().contains("modprobe vfio-pci"));
        let denied = container_error(VfioError::OpenContainer(io::Error::from_raw_os_error(libc::EACCES)));
        assert!(denied.to_string().contains("udev"));
    }
}
