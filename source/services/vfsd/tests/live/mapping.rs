//! Files as memory, and calls that only libc has: all that is unsafe in these tests.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

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

/// Takes a lock on bytes of a file that belongs to the open file description (`F_OFD_SETLK`, fcntl_locking(2)), or lets go of
/// it; never waits.
pub(crate) fn ofd_lock(file: &File, kind: i32, from: i64, length: i64) -> io::Result<()> {
    let lock = libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: 0,
        l_start: from,
        l_len: length,
        l_pid: 0,
    };
    // SAFETY: an open descriptor, and a whole `struct flock` that the kernel only reads.
    #[expect(unsafe_code, reason = "rustix has no locks of open file descriptions")]
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What open_by_handle_at(2) says to the handle of `path`, with `change` done to the handle's bytes.
pub(crate) fn open_by_handle(path: &CStr, below: &File, change: impl FnOnce(&mut [u8])) -> io::Result<()> {
    const BYTES: usize = 128;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; BYTES],
    }
    let mut handle = Handle {
        bytes: BYTES as u32,
        kind: 0,
        handle: [0; BYTES],
    };
    let mut mount = 0;
    // SAFETY: a path that ends, a handle with room for as many bytes as it says, and a place for the mount's number.
    #[expect(unsafe_code, reason = "rustix has no file handles")]
    let named = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            0,
        )
    };
    if named < 0 {
        return Err(io::Error::last_os_error());
    }
    let used = usize::try_from(handle.bytes).unwrap();
    change(&mut handle.handle[..used]);
    // SAFETY: an open descriptor, and a handle whose bytes are all there.
    #[expect(unsafe_code, reason = "rustix has no file handles")]
    let opened = unsafe { libc::open_by_handle_at(below.as_raw_fd(), (&raw mut handle).cast(), libc::O_RDONLY) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What write(2) of memory says that nobody has mapped.
pub(crate) fn write_from_nowhere(file: &File, count: usize) -> io::Result<usize> {
    // SAFETY: the kernel only reads there, and says so (`EFAULT`) where nothing is.
    #[expect(unsafe_code, reason = "no safe call takes an address where nothing is")]
    let written = unsafe { libc::write(file.as_raw_fd(), std::ptr::without_provenance(8), count) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// The same of two pages of which only the first is there.
pub(crate) fn write_half_from_nowhere(file: &File) -> io::Result<usize> {
    const PAGE: usize = 4096;
    // SAFETY: a new mapping at an address that the kernel chooses touches nothing else.
    #[expect(unsafe_code, reason = "a mapping cannot be made without")]
    let start =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 2 * PAGE, ProtFlags::READ, MapFlags::PRIVATE) }?;
    let second = start.cast::<u8>().wrapping_add(PAGE);
    // SAFETY: the second page of the mapping above, to which no reference was made.
    #[expect(unsafe_code, reason = "a mapping cannot be removed without")]
    unsafe { rustix::mm::munmap(second.cast(), PAGE) }?;
    // SAFETY: the kernel only reads there; of the second page it says that nothing is there.
    #[expect(unsafe_code, reason = "no safe call takes an address where nothing is")]
    let written = unsafe { libc::write(file.as_raw_fd(), start, 2 * PAGE) };
    let result = usize::try_from(written).map_err(|_| io::Error::last_os_error());
    // SAFETY: what is left of the mapping, to which no reference was made.
    #[expect(unsafe_code, reason = "a mapping cannot be removed without")]
    unsafe { rustix::mm::munmap(start, PAGE) }?;
    result
}
