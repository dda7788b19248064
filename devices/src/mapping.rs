//! An owned mapping of host memory: a BAR of a device, a flash image, guest RAM.
#![expect(unsafe_code, reason = "mmap, munmap and volatile copies have no safe form")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;

/// An empty file in memory, closed on exec, which `name` shows in `/proc/PID/maps`.
///
/// # Errors
/// What `memfd_create` says.
pub fn memory_file(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the name is a valid C string for the time of the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A mapping that is unmapped when dropped.
///
/// The bytes are shared with guests and devices, so they are only ever copied in and out, never borrowed.
#[derive(Debug)]
pub struct HostMapping {
    address: *mut u8,
    len: usize,
    reserved: *mut u8,
    reserved_len: usize,
}

// SAFETY: the mapping is owned by this value, is never handed out as a reference, and plain loads and stores to it are as racy as the
// guest's own: each access copies single bytes.
unsafe impl Send for HostMapping {}
// SAFETY: as above.
unsafe impl Sync for HostMapping {}

impl HostMapping {
    /// `len` bytes of private zeroed memory.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(None, 0, len, 4096, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// `len` bytes of private zeroed memory at a host address that is a multiple of `align` (a power of two, at least 4 KiB), in
    /// transparent huge pages where the host allows that.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn anonymous_huge(len: usize, align: usize) -> io::Result<Self> {
        let mapping = Self::map(None, 0, len, align, libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: advice on a mapping that nobody else has yet; it changes the size of its pages and nothing else.
        if unsafe { libc::madvise(mapping.address.cast(), mapping.len, libc::MADV_HUGEPAGE) } != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "no transparent huge pages here");
        }
        Ok(mapping)
    }

    /// `len` bytes of `file` from `offset`, shared, at a host address that is a multiple of `align` (a power of two, at least 4 KiB).
    ///
    /// Alignment matters for device memory: the kernel maps a BAR with 2 MiB and 1 GiB pages only where host and physical address
    /// agree modulo the page size.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn shared(file: &impl AsRawFd, offset: u64, len: usize, align: usize, writable: bool) -> io::Result<Self> {
        let prot = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        Self::map(Some(file.as_raw_fd()), offset, len, align, prot)
    }

    fn map(fd: Option<i32>, offset: u64, len: usize, align: usize, prot: i32) -> io::Result<Self> {
        let align = align.max(4096);
        let slack = if align > 4096 { align } else { 0 };
        let reserved_len = len
            .checked_add(slack)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let file_offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a fresh reservation at an address of the kernel's choosing; nothing else lives there.
        let reserved = unsafe {
            libc::mmap(
                ptr::null_mut(),
                reserved_len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let reserved = reserved.cast::<u8>();
        let pad = reserved.align_offset(align);
        let address = reserved.wrapping_add(pad.min(slack));
        let mut mapping = Self {
            address,
            len,
            reserved,
            reserved_len,
        };
        let flags = match fd {
            Some(_) => libc::MAP_SHARED,
            None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        };
        // SAFETY: MAP_FIXED replaces a part of the reservation made above, which this value owns.
        let mapped = unsafe {
            libc::mmap(
                address.cast(),
                len,
                prot,
                flags | libc::MAP_FIXED,
                fd.unwrap_or(-1),
                file_offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            mapping.len = 0;
            return Err(error);
        }
        Ok(mapping)
    }

    /// The host virtual address (HVA) of the first byte.
    pub fn address(&self) -> u64 {
        self.address as u64
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies out of the mapping; what lies beyond its end reads as all-ones.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = match self.at(offset, index) {
                // SAFETY: `at` checked the address to be inside the live mapping.
                Some(address) => unsafe { address.read_volatile() },
                None => 0xff,
            };
        }
    }

    /// Copies into the mapping; what lies beyond its end is dropped. The mapping must be writable.
    pub fn write(&self, offset: u64, data: &[u8]) {
        for (index, byte) in data.iter().enumerate() {
            if let Some(address) = self.at(offset, index) {
                // SAFETY: `at` checked the address to be inside the live mapping.
                unsafe { address.write_volatile(*byte) };
            }
        }
    }

    fn at(&self, offset: u64, index: usize) -> Option<*mut u8> {
        let at = usize::try_from(offset).ok()?.checked_add(index)?;
        (at < self.len).then(|| self.address.wrapping_add(at))
    }
}

impl Drop for HostMapping {
    fn drop(&mut self) {
        // SAFETY: the whole reservation, the mapping inside it included, belongs to this value, and nobody keeps addresses of it
        // beyond the value's life (KVM slots and DMA mappings hold an Arc of it until they are removed).
        unsafe { libc::munmap(self.reserved.cast(), self.reserved_len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_in_and_out_within_bounds() {
        let mapping = HostMapping::anonymous(8192).unwrap();
        mapping.write(8190, &[1, 2, 3, 4]);
        let mut data = [0; 4];
        mapping.read(8190, &mut data);
        assert_eq!(data, [1, 2, 0xff, 0xff]);
        mapping.read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn honours_the_alignment() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(4096).unwrap();
        let mapping = HostMapping::shared(&file, 0, 4096, 2 << 20, true).unwrap();
        assert_eq!(mapping.address() % (2 << 20), 0);
        mapping.write(0, b"x");
        let mut data = [0];
        mapping.read(0, &mut data);
        assert_eq!(&data, b"x");
    }
}
