//! What the kernel is told.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::DATA_BYTES_MAX;

/// `struct fuse_out_header`.
const HEADER_BYTES: usize = 16;

/// The largest answer: a read's data. Everything else is far shorter.
const ANSWER_BYTES_MAX: usize = HEADER_BYTES + DATA_BYTES_MAX;

/// Seconds since 1970, before it negative, and nanoseconds upwards from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What `stat` says of an inode (`struct fuse_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) id: u64,
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    /// File type and permissions.
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) block_bytes: u32,
    /// Others may change it too, so it is believed for less long.
    pub(crate) shared: bool,
}

/// One answer, built in place. A thread has one and uses it again for each request.
#[derive(Debug)]
pub(crate) struct Answer {
    buffer: Vec<u8>,
    len: usize,
}

impl Answer {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; ANSWER_BYTES_MAX],
            len: HEADER_BYTES,
        }
    }

    /// Takes everything back but the header's room.
    pub(crate) fn clear(&mut self) {
        self.len = HEADER_BYTES;
    }

    /// Room for `size` bytes of data behind what is there; fewer if there is not as much.
    pub(crate) fn room(&mut self, size: usize) -> &mut [u8] {
        let end = self.len.saturating_add(size).min(self.buffer.len());
        self.buffer.get_mut(self.len..end).unwrap_or_default()
    }

    /// Says that `count` bytes of the room are used.
    pub(crate) fn used(&mut self, count: usize) {
        self.len = self.len.saturating_add(count).min(self.buffer.len());
    }

    /// How many bytes the body has.
    pub(crate) fn body_len(&self) -> usize {
        self.len.saturating_sub(HEADER_BYTES)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if let Some((room, _)) = self.room(bytes.len()).split_at_mut_checked(bytes.len()) {
            room.copy_from_slice(bytes);
            self.used(bytes.len());
        }
    }

    pub(crate) fn u16(&mut self, number: u16) {
        self.bytes(&number.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_ne_bytes());
    }

    fn attr(&mut self, attr: &Attr) {
        self.u64(attr.id);
        self.u64(attr.size);
        self.u64(attr.blocks);
        let times = [attr.atime, attr.mtime, attr.ctime];
        for time in times {
            self.u64(time.seconds.cast_unsigned());
        }
        for time in times {
            self.u32(time.nanoseconds);
        }
        for number in [attr.mode, attr.links, attr.uid, attr.gid, 0, attr.block_bytes, 0] {
            self.u32(number);
        }
    }

    /// `struct fuse_attr_out`.
    pub(crate) fn attributes(&mut self, valid: Duration, attr: &Attr) {
        self.u64(valid.as_secs());
        self.u64(0);
        self.attr(attr);
    }

    /// `struct fuse_entry_out`. The number 0 says that there is nothing, and that this may be remembered.
    pub(crate) fn entry(&mut self, valid: Duration, attr: &Attr) {
        self.u64(attr.id);
        self.u64(0);
        self.u64(valid.as_secs());
        self.u64(valid.as_secs());
        self.u64(0);
        self.attr(attr);
    }

    /// `struct fuse_open_out`.
    pub(crate) fn opened(&mut self, handle: u64, flags: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(0);
    }

    /// `struct fuse_write_out`.
    pub(crate) fn written(&mut self, count: u32) {
        self.u32(count);
        self.u32(0);
    }

    /// `struct fuse_dirent`, unless the body would be longer than `limit` then: `false`.
    pub(crate) fn dirent(&mut self, id: u64, next: u64, kind: FileType, name: &OsStr, limit: usize) -> bool {
        const FIXED_BYTES: usize = 24;
        let name = name.as_bytes();
        let size = FIXED_BYTES.saturating_add(name.len()).next_multiple_of(8);
        let Ok(name_len) = u32::try_from(name.len()) else {
            return false;
        };
        if self.body_len().saturating_add(size) > limit.min(DATA_BYTES_MAX) {
            return false;
        }
        self.u64(id);
        self.u64(next);
        self.u32(name_len);
        // The same four bits as `d_type` has.
        self.u32(kind.as_raw_mode() >> 12);
        self.bytes(name);
        let padding = size.saturating_sub(FIXED_BYTES).saturating_sub(name.len());
        self.bytes([0; 8].get(..padding).unwrap_or_default());
        true
    }

    /// The whole answer to `unique`: what was put in, or an error alone.
    pub(crate) fn finish(&mut self, unique: u64, result: Result<(), Errno>) -> &[u8] {
        let error = match result {
            Ok(()) => 0,
            Err(errno) => {
                self.clear();
                errno.raw_os_error().saturating_neg()
            }
        };
        let len = self.len;
        self.clear();
        self.len = 0;
        self.u32(u32::try_from(len).unwrap_or(u32::MAX));
        self.u32(error.cast_unsigned());
        self.u64(unique);
        self.len = len;
        self.buffer.get(..len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_header_alone() {
        let mut answer = Answer::new();
        answer.u64(1);
        assert_eq!(answer.finish(3, Ok(())).len(), HEADER_BYTES + 8);
        answer.clear();
        answer.u64(1);
        let error = answer.finish(3, Err(Errno::NOENT));
        assert_eq!(error.len(), HEADER_BYTES);
        assert_eq!(error.get(4..8), Some(&(-2_i32).to_ne_bytes()[..]));
    }

    #[test]
    fn a_listing_stops_before_its_limit() {
        let mut answer = Answer::new();
        let mut add = |limit| answer.dirent(1, 2, FileType::RegularFile, OsStr::new("name"), limit);
        assert!(add(32));
        assert!(!add(63));
        assert!(add(64));
        assert_eq!(answer.body_len(), 64);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut answer = Answer::new();
        assert_eq!(answer.room(usize::MAX).len(), DATA_BYTES_MAX);
        answer.used(DATA_BYTES_MAX - 4);
        answer.u64(1);
        assert_eq!(answer.body_len(), DATA_BYTES_MAX - 4);
        answer.u32(1);
        assert_eq!(answer.body_len(), DATA_BYTES_MAX);
    }
}
