//! An IOMMU group: opened once, shared by all its functions that are assigned, closed when the last of them is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use kvm_bindings::{KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, KVM_DEV_VFIO_GROUP_DEL, kvm_device_attr};
use kvm_ioctls::DeviceFd;
use vfio_ioctls::VfioContainer;

use crate::container::OpenError;
use crate::host::{Bdf, HostFunction, Sysfs};
use crate::ioctl::{self, DeviceFile};

/// An open group in a container.
///
/// vfio-ioctls has one, which cannot be used here: dropping the first of two devices of a group takes the group away
/// from KVM while the second still needs it, and its descriptor, which a hot reset wants, cannot be reached.
pub(crate) struct Group {
    number: u32,
    file: File,
    kvm: Option<Arc<DeviceFd>>,
    /// Keeps the container open as long as it holds this group.
    _container: Arc<VfioContainer>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("number", &self.number)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// Opens the group, puts it into the container and tells KVM.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(
        number: u32,
        sysfs: &Sysfs,
        container: &Arc<VfioContainer>,
        kvm: Option<&Arc<DeviceFd>>,
    ) -> Result<Self, OpenError> {
        let file = open(number, sysfs)?;
        let failed = |what: &'static str| {
            move |source| OpenError::Group {
                group: number,
                what,
                source,
            }
        };
        ioctl::set_container(&file, container.as_raw_fd()).map_err(failed("put it into a container"))?;
        let group = Self {
            number,
            file,
            kvm: None,
            _container: container.clone(),
        };
        Ok(group.tell(kvm))
    }

    /// KVM learns of the group before a device of it is opened: it needs to know whether devices snoop the caches, and
    /// takes note of that when it is told. Without it a guest still runs, so a refusal is only logged.
    fn tell(mut self, kvm: Option<&Arc<DeviceFd>>) -> Self {
        if let Some(kvm) = kvm {
            match self.kvm_attribute(kvm, KVM_DEV_VFIO_GROUP_ADD) {
                Ok(()) => self.kvm = Some(kvm.clone()),
                Err(error) => tracing::warn!("KVM was not told of IOMMU group {}: {error}", self.number),
            }
        }
        self
    }

    fn kvm_attribute(&self, kvm: &DeviceFd, attribute: u32) -> io::Result<()> {
        let fd: RawFd = self.file.as_raw_fd();
        let attribute = kvm_device_attr {
            flags: 0,
            group: KVM_DEV_VFIO_GROUP,
            attr: u64::from(attribute),
            // The address of a descriptor number, which lives across the call.
            addr: (&raw const fd).addr() as u64,
        };
        kvm.set_device_attr(&attribute)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    /// Opens a function of the group.
    pub(crate) fn device(&self, bdf: Bdf) -> io::Result<DeviceFile> {
        DeviceFile::open(&self.file, bdf)
    }

    /// The group's descriptor, which a hot reset takes as proof of ownership.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The group's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // KVM holds a reference to the group's file: it lets go first, or the group stays busy after the close.
        if let Some(kvm) = self.kvm.take()
            && let Err(error) = self.kvm_attribute(&kvm, KVM_DEV_VFIO_GROUP_DEL)
        {
            tracing::warn!("KVM did not let go of IOMMU group {}: {error}", self.number);
        }
        if let Err(error) = ioctl::unset_container(&self.file) {
            tracing::warn!("IOMMU group {} did not leave its container: {error}", self.number);
        }
    }
}

/// Opens the file of a group that is fit for a guest.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn open(number: u32, sysfs: &Sysfs) -> Result<File, OpenError> {
    let path = format!("/dev/vfio/{number}");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EBUSY) => OpenError::GroupBusy {
                    group: number,
                    members: members(sysfs, number),
                },
                Some(libc::ENOENT) => OpenError::NoGroupFile {
                    path,
                    members: members(sysfs, number),
                },
                // Linux 5.19 to 6.0 refuse to open a group that is not viable.
                Some(libc::EPERM) if !spoilers(sysfs, number).is_empty() => not_viable(sysfs, number),
                _ => OpenError::Device { path, source },
            }
        })?;
    let viable = ioctl::group_viable(&file).map_err(|source| OpenError::Group {
        group: number,
        what: "ask for its status",
        source,
    })?;
    match viable {
        true => Ok(file),
        false => Err(not_viable(sysfs, number)),
    }
}

fn members(sysfs: &Sysfs, group: u32) -> Vec<HostFunction> {
    sysfs.group_members(group).unwrap_or_default()
}

/// The members whose drivers make the group unfit: all but those on VFIO, on nothing, on pci-stub or on pcieport, which
/// the kernel lets stay (`vfio_driver_allowed` and the drivers that set `driver_managed_dma`).
fn spoilers(sysfs: &Sysfs, group: u32) -> Vec<HostFunction> {
    let harmless = |function: &HostFunction| {
        function.on_vfio() || matches!(function.driver.as_deref(), None | Some("pci-stub" | "pcieport"))
    };
    members(sysfs, group)
        .into_iter()
        .filter(|function| !harmless(function))
        .collect()
}

fn not_viable(sysfs: &Sysfs, group: u32) -> OpenError {
    OpenError::NotViable {
        group,
        spoilers: spoilers(sysfs, group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sysfs::tests::Host;

    #[test]
    fn an_unfit_group_names_the_sibling_and_its_driver() {
        let host = Host::new()
            .with("0000:00:01.0", 0x060400, Some("pcieport"), Some(1))
            .with("0000:01:00.0", 0x030000, Some("vfio-pci"), Some(1))
            .with("0000:01:00.1", 0x040300, Some("snd_hda_intel"), Some(1));
        let message = not_viable(&host.sysfs(), 1).to_string();
        assert!(
            message.contains("0000:01:00.1 [10de:1401, driver snd_hda_intel]"),
            "{message}"
        );
        assert!(
            message.contains("`tenon bind 0000:01:00.1`") && !message.contains("0000:00:01.0"),
            "{message}"
        );
    }

    #[test]
    fn a_bridge_with_a_driver_is_freed_and_not_bound() {
        let host = Host::new()
            .with("0000:00:1f.0", 0x060100, Some("lpc_ich"), Some(3))
            .with("0000:00:1f.3", 0x040300, Some("vfio-pci"), Some(3));
        let message = not_viable(&host.sysfs(), 3).to_string();
        assert!(
            message.contains("unbind lpc_ich from the bridge 0000:00:1f.0") && !message.contains("tenon bind"),
            "{message}"
        );
    }
}
