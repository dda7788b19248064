//! Scattered reads and writes between a file and guest memory: one system call for all buffers of a request.
#![expect(
    unsafe_code,
    reason = "vm-memory's file access takes a call a buffer, and std's takes slices, which guest memory is not"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

/// Buffers of one call (IOV_MAX, limits.h).
const MAX_BUFFERS: usize = 1024;

/// Fills `slices` from byte `offset` of the file.
///
/// # Errors
/// What the host says, or the file ends before.
pub(super) fn read_exact_at(file: &File, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
    transfer(slices, offset, io::ErrorKind::UnexpectedEof, |buffers, offset| {
        // SAFETY: `transfer` made the buffers of slices that live until it returns; writes to guest memory are volatile to all else.
        unsafe { libc::preadv(file.as_raw_fd(), buffers.as_ptr(), buffers.len() as i32, offset) }
    })
}

/// Writes `slices` at byte `offset` of the file.
///
/// # Errors
/// What the host says.
pub(super) fn write_all_at(file: &File, slices: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
    transfer(slices, offset, io::ErrorKind::WriteZero, |buffers, offset| {
        // SAFETY: as above; the kernel only reads them.
        unsafe { libc::pwritev(file.as_raw_fd(), buffers.as_ptr(), buffers.len() as i32, offset) }
    })
}

fn transfer(
    slices: &[VolatileSlice<'_>],
    offset: u64,
    ended: io::ErrorKind,
    call: impl Fn(&[libc::iovec], i64) -> isize,
) -> io::Result<()> {
    // The guards keep the memory mapped.
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let mut buffers: Vec<libc::iovec> = guards
        .iter()
        .filter(|guard| guard.len() > 0)
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
    let mut first = 0;
    while let Some(rest @ [_, ..]) = buffers.get_mut(first..) {
        let count = rest.len().min(MAX_BUFFERS);
        let done = match usize::try_from(call(rest.get(..count).unwrap_or(&[]), offset)) {
            Ok(0) => return Err(ended.into()),
            Ok(done) => done,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
        };
        offset = offset
            .checked_add_unsigned(done as u64)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        first += consume(rest, done);
    }
    Ok(())
}

/// Takes `done` bytes off `buffers`. Returns how many of them are used up.
fn consume(buffers: &mut [libc::iovec], mut done: usize) -> usize {
    let mut used = 0;
    for buffer in buffers {
        if done < buffer.iov_len {
            buffer.iov_base = buffer.iov_base.cast::<u8>().wrapping_add(done).cast();
            buffer.iov_len -= done;
            break;
        }
        done -= buffer.iov_len;
        used += 1;
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_buffers_than_one_call_takes() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        let mut source: Vec<u8> = (0..3000u32).map(|index| index as u8).collect();
        let expected = source.clone();
        let slices: Vec<_> = source.chunks_mut(1).map(VolatileSlice::from).collect();
        write_all_at(&file, &slices, 7).unwrap();
        let mut target = vec![0u8; 3000];
        let slices: Vec<_> = target.chunks_mut(2).map(VolatileSlice::from).collect();
        read_exact_at(&file, &slices, 7).unwrap();
        assert_eq!(target, expected);
    }

    #[test]
    fn short_files_and_empty_buffers() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap().into_file();
        file.set_len(512).unwrap();
        let mut data = [0u8; 513];
        let error = read_exact_at(&file, &[VolatileSlice::from(&mut data[..])], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        read_exact_at(&file, &[VolatileSlice::from(&mut data[..0])], 0).unwrap();
        assert!(read_exact_at(&file, &[VolatileSlice::from(&mut data[..1])], u64::MAX).is_err());
    }

    #[test]
    fn a_partial_transfer_continues_within_a_buffer() {
        let mut data = [0u8; 8];
        let base: *mut libc::c_void = data.as_mut_ptr().cast();
        let mut buffers = [libc::iovec {
            iov_base: base,
            iov_len: 4,
        }; 2];
        assert_eq!(consume(&mut buffers, 5), 1);
        assert_eq!(buffers[1].iov_len, 3);
        assert_eq!(buffers[1].iov_base as usize, base as usize + 1);
    }
}
