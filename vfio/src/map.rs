//! The one call of vfio-ioctls that has no safe form.
#![expect(unsafe_code, reason = "vfio_dma_map takes a raw address")]

use std::io;

use vfio_ioctls::{VfioContainer, VfioError};

use crate::dma::DmaRange;

/// Maps `ram` at the IOVA that is its guest-physical address.
pub(crate) fn dma_map(container: &VfioContainer, ram: &DmaRange) -> io::Result<()> {
    let address = usize::try_from(ram.mapping.address()).map_err(io::Error::other)?;
    let address = std::ptr::without_provenance_mut(address);
    // SAFETY: these are the bytes of a live `HostMapping`, which never lends them out as a reference; `GuestDma` holds
    // the mapping until the range is unmapped, and leaks it where that fails.
    let mapped = unsafe { container.vfio_dma_map(ram.gpa, ram.mapping.len(), address) };
    mapped.map_err(|error| match error {
        VfioError::IommuDmaMap(errno) => io::Error::from_raw_os_error(errno.errno()),
        other => io::Error::other(other),
    })
}
