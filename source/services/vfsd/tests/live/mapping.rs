//! Files as memory, and calls that only libc has: all that is unsafe in these tests.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};

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

    /// Which of its pages the kernel has in memory (mincore(2)).
    pub(crate) fn resident(&self) -> io::Result<Vec<bool>> {
        let mut pages = vec![0_u8; self.length.div_ceil(4096)];
        // SAFETY: exactly this mapping, and a byte for each of its pages.
        #[expect(unsafe_code, reason = "rustix does not ask for it")]
        let result = unsafe { libc::mincore(self.start.cast(), self.length, pages.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.into_iter().map(|page| page & 1 == 1).collect())
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

/// A file handle as name_to_handle_at(2) gives and open_by_handle_at(2) takes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; Self::BYTES_MAX],
}

impl FileHandle {
    const BYTES_MAX: usize = 128;

    /// That of `path`, such as one that only compares gets it (`AT_HANDLE_FID`, Linux 6.6).
    pub(crate) fn of(path: &CStr) -> io::Result<Self> {
        const HANDLE_FID: i32 = 0x200;
        let mut handle = Self {
            bytes: Self::BYTES_MAX as u32,
            kind: 0,
            handle: [0; Self::BYTES_MAX],
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
                HANDLE_FID,
            )
        };
        if named < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(handle)
    }

    /// Such as FUSE makes them: an inode's number for the file server, and how often that was used
    /// (`FILEID_INO64_GEN`, linux/exportfs.h).
    pub(crate) fn made_up(inode: u64, generation: u32) -> Self {
        const INO64_GEN: i32 = 0x81;
        let mut handle = [0; Self::BYTES_MAX];
        let words = [(inode >> 32) as u32, inode as u32, generation];
        for (word, place) in words.into_iter().zip(handle.chunks_exact_mut(4)) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        Self {
            bytes: 12,
            kind: INO64_GEN,
            handle,
        }
    }

    /// The bytes that count.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let used = usize::try_from(self.bytes).unwrap();
        &mut self.handle[..used]
    }

    /// Opens it, which is a directory's, on the file system that `below` is on.
    pub(crate) fn open(mut self, below: &File) -> io::Result<File> {
        // SAFETY: an open descriptor, and a handle whose bytes are all there.
        #[expect(unsafe_code, reason = "rustix has no file handles")]
        let opened = unsafe { libc::open_by_handle_at(below.as_raw_fd(), (&raw mut self).cast(), libc::O_DIRECTORY) };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else has.
        #[expect(unsafe_code, reason = "a number becomes a file")]
        let file = unsafe { File::from_raw_fd(opened) };
        Ok(file)
    }
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
