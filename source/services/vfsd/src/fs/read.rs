use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::Vfs;
use super::protocol::{Answer, ReadHead};
use super::serve::aside;

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
    /// Reads up to `size` bytes, fewer only at the end of the file.
    pub(crate) fn op_read(&self, head: ReadHead, answer: &mut Answer) -> Result<(), Errno> {
        let ReadHead { offset, .. } = head;
        let handle = self.handle(head.handle)?;
        let size = usize::try_from(head.size).map_err(|_| Errno::INVAL)?;
        let mut state = handle.node.state();
        // Where writes pass the kernel's copy, what is read for it is either before a write or after it.
        let count = if state.passers > 0 && !head.passes {
            state.passed.read(offset, size);
            read_all(&handle.file, offset, answer.room(size))?
        } else {
            drop(state);
            read_all(&handle.file, offset, answer.room(size))?
        };
        answer.used(count);
        Ok(())
    }

    pub(crate) fn op_fsync(&self, number: u64, only_data: bool) -> Result<(), Errno> {
        if number == 0 {
            return Ok(());
        }
        let handle = self.handle(number)?;
        // The disk takes its time.
        aside();
        if only_data {
            rustix::fs::fdatasync(&handle.file)
        } else {
            rustix::fs::fsync(&handle.file)
        }
    }

    /// Data and holes as the host has them.
    pub(crate) fn op_lseek(&self, number: u64, offset: u64, whence: u32) -> Result<u64, Errno> {
        let handle = self.handle(number)?;
        let to = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(handle.file.as_fd(), to)
    }
}

/// lseek(2).
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;
