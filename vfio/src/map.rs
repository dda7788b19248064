//! The one call of vfio-ioctls that has no safe form.
#![expect(unsafe_code, reason = "vfio_dma_map takes a raw address")]

use std::io;

use vfio_ioctls::{VfioContainer, VfioError};

use crate::dma::GuestRam;

/// Maps `ram`, which must lie within its mapping.
pub(crate) fn dma_map(container: &VfioContainer, ram: &GuestRam) -> io::Result<()> {
    let within = ram
        .offset
        .checked_add(ram.size)
        .is_some_and(|end| end <= ram.mapping.len() as u64);
    let address = ram
        .mapping
        .address()
        .checked_add(ram.offset)
        .and_then(|address| usize::try_from(address).ok());
    let (Some(address), Ok(size), true) = (address, usize::try_from(ram.size), within) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: the range lies within a live `HostMapping`, which never lends its bytes out as a reference; `GuestDma`
    // holds the mapping until the range is unmapped, and leaks it where that fails.
    let mapped = unsafe { container.vfio_dma_map(ram.gpa, size, std::ptr::without_provenance_mut(address)) };
    mapped.map_err(|error| match error {
        VfioError::IommuDmaMap(errno) => io::Error::from_raw_os_error(errno.errno()),
        other => io::Error::other(other),
    })
}
