//! Files as memory: all that is unsafe in these tests.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::mm::{MapFlags, ProtFlags};

/// A shared mapping of a part of a file, which goes when it is dropped.
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes from `offset` on, which is a multiple of the page's size.
    pub(crate) fn new(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing else.
        #[expect(unsafe_code, reason = "a mapping cannot be made without")]
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                rights,
                MapFlags::SHARED,
                file.as_fd(),
                offset,
            )
        }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// The file's bytes; touching them may read the file. It is not shortened meanwhile.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped, readable, and covered by the file as long as nobody shortens it.
        #[expect(unsafe_code, reason = "a mapping cannot be read without")]
        unsafe {
            std::slice::from_raw_parts(self.start, self.length)
        }
    }

    /// The same, to change them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading; writable, and no other reference to them is used while this one is.
        #[expect(unsafe_code, reason = "a mapping cannot be written without")]
        unsafe {
            std::slice::from_raw_parts_mut(self.start, self.length)
        }
    }

    /// Writes one byte, even where the file may end before it by now, which ends the process (`SIGBUS`).
    pub(crate) fn poke(&self, at: usize, byte: u8) {
        assert!(at < self.length);
        let place = self.start.wrapping_add(at);
        // SAFETY: inside the mapping, by the line above; that there may be no file under it is a signal, no wrong memory.
        #[expect(unsafe_code, reason = "a mapping cannot be written without")]
        unsafe {
            place.write_volatile(byte);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made, of which no reference is left.
        #[expect(unsafe_code, reason = "a mapping cannot be removed without")]
        let removed = unsafe { rustix::mm::munmap(self.start.cast(), self.length) };
        removed.unwrap();
    }
}
