use std::sync::Arc;

use rustix::io::Errno;

use super::Vfs;
use super::serve::aside;

/// The most that one request copies: the answer is a 32-bit number, and a program asks again for the rest.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// What is copied within the time of an ordinary request.
const QUICK_BYTES_MAX: u64 = 1 << 20;

impl Vfs {
    /// Copies on the host, which may share the blocks; charged like a write all the same.
    pub(crate) fn op_copy(
        &self,
        from: u64,
        from_offset: u64,
        to: u64,
        to_offset: u64,
        length: u64,
        pid: u32,
    ) -> Result<u32, Errno> {
        let (from, to) = (self.handle(from)?, self.handle(to)?);
        // What the source does not have cannot be copied, and must not be charged.
        let source_len = if Arc::ptr_eq(&from.node, &to.node) {
            to.node.state().len
        } else {
            from.node.state().len
        };
        let length = length.min(COPY_BYTES_MAX).min(source_len.saturating_sub(from_offset));
        if length == 0 {
            return Ok(0);
        }
        let end = to_offset.checked_add(length).ok_or(Errno::FBIG)?;
        let count = usize::try_from(length).map_err(|_| Errno::FBIG)?;
        if length > QUICK_BYTES_MAX {
            aside();
        }
        let mut state = to.node.state();
        self.grow(&to.node, &to.file, &mut state, end, pid, || {
            let (mut read_at, mut write_at) = (from_offset, to_offset);
            let copied =
                rustix::fs::copy_file_range(&from.file, Some(&mut read_at), &to.file, Some(&mut write_at), count)?;
            let copied = u32::try_from(copied).map_err(|_| Errno::OVERFLOW)?;
            Ok((copied, to_offset.saturating_add(u64::from(copied))))
        })
    }
}
