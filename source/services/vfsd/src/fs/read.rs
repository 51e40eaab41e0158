use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::Vfs;

/// The most that one read asks for: the largest request that we agree on with the kernel.
pub(crate) const READ_BYTES_MAX: u32 = 1024 * 1024;

thread_local! {
    /// One for each thread that serves, kept between requests; it grows to the largest that was asked.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads until the buffer is full or the file ends.
fn read_all(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(done)
            .ok()
            .and_then(|done| offset.checked_add(done))
            .ok_or(Errno::INVAL)?;
        match rustix::io::pread(file, rest, at) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(Errno::INTR) => {}
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

impl Vfs {
    /// Reads up to `size` bytes, fewer only at the end of the file, and gives them to `reply`.
    pub(crate) fn op_read<R>(
        &self,
        number: u64,
        offset: u64,
        size: u32,
        reply: impl FnOnce(Result<&[u8], Errno>) -> R,
    ) -> R {
        BUFFER.with_borrow_mut(|buffer| {
            let size = usize::try_from(size.min(READ_BYTES_MAX)).unwrap_or_default();
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let buffer = buffer.get_mut(..size).unwrap_or_default();
            let read = self
                .handle(number)
                .and_then(|handle| read_all(&handle.file, offset, buffer));
            reply(read.map(|read| buffer.get(..read).unwrap_or_default()))
        })
    }

    pub(crate) fn op_fsync(&self, number: u64, only_data: bool) -> Result<(), Errno> {
        if number == 0 {
            return Ok(());
        }
        let handle = self.handle(number)?;
        if only_data {
            rustix::fs::fdatasync(&handle.file)
        } else {
            rustix::fs::fsync(&handle.file)
        }
    }

    /// Data and holes as the host has them.
    pub(crate) fn op_lseek(&self, number: u64, offset: i64, whence: i32) -> Result<i64, Errno> {
        let handle = self.handle(number)?;
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let to = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let at = rustix::fs::seek(handle.file.as_fd(), to)?;
        i64::try_from(at).map_err(|_| Errno::OVERFLOW)
    }
}

/// lseek(2).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
