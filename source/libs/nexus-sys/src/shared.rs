//! One page that a process and its forks share.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicI64;

/// A few atomics in a page that stays shared over fork(2).
///
/// For the moment between installing a filter and exec: a store to memory is the one way to tell the parent something
/// that no filter can refuse.
#[derive(Debug)]
pub struct SharedPage {
    page: NonNull<AtomicI64>,
}

impl SharedPage {
    /// How many cells a page has; a handful is all a handshake needs.
    pub const CELLS: usize = 8;

    /// `mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0)` mmap(2). All cells are 0.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::CELLS * size_of::<AtomicI64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast())
            .map(|page| Self { page })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }

    /// The cell at `index`, `None` past [`SharedPage::CELLS`].
    #[must_use]
    pub fn cell(&self, index: usize) -> Option<&AtomicI64> {
        if index >= Self::CELLS {
            return None;
        }
        // SAFETY: `index` is below CELLS, so the result stays inside the mapping that `new` made.
        let cell = unsafe { self.page.add(index) };
        // SAFETY: the mapping is zeroed, aligned to a page, lives as long as `self`, and is only used as atomics.
        Some(unsafe { cell.as_ref() })
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: `page` and the size are those of the mapping that `new` made; no reference outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), Self::CELLS * size_of::<AtomicI64>()) };
    }
}
