//! The handshake: which version, which abilities.

use super::{Answer, DATA_BYTES_MAX};

/// `FUSE_KERNEL_VERSION`.
const MAJOR: u32 = 7;

/// The oldest minor version whose layouts are the ones here (Linux 5.4).
const MINOR_MIN: u32 = 31;

/// The newest minor version that was looked at: everything until then that is not asked for stays off.
const MINOR: u32 = 41;

/// From this minor version on (seen on Linux 6.18) the kernel forgets what it holds of a place also *after* a direct write to it (commit
/// b359af8275a9): before, who read meanwhile could leave there what had been.
const WRITES_PASS: u32 = 45;

/// How many requests the kernel sends ahead of answers: read-ahead, and releases.
const BACKGROUND_MAX: u16 = 64;

/// From how many on the kernel calls us congested; three quarters, as it does itself.
const CONGESTED: u16 = 48;

/// Linux cuts requests into pages.
const PAGE_BYTES: usize = 4096;

/// What is wanted of the kernel (`FUSE_*` of `fuse_init_in.flags`).
///
/// Not wanted, and never asked for: the write-back cache, which grows files unasked; locks, which the kernel keeps right
/// by itself while it is the only one; attribute-driven invalidation, which would throw away the page cache after each
/// write of our own; `O_TRUNC` with the open, which the kernel does without its lock of the inode: who appends meanwhile goes on at the old end;
/// export, with which the kernel asks for inodes by the numbers in file handles; and direct I/O that is split and sent at once, of which several could be under way (`Passed`).
mod flag {
    /// Several reads at once.
    pub(super) const ASYNC_READ: u32 = 1;
    /// Writes of more than a page.
    pub(super) const BIG_WRITES: u32 = 1 << 5;
    /// Look-ups and listings in one directory at once.
    pub(super) const PARALLEL_DIROPS: u32 = 1 << 18;
    /// The number of pages of a request is agreed upon.
    pub(super) const MAX_PAGES: u32 = 1 << 22;
    /// The target of a link may be remembered.
    pub(super) const CACHE_SYMLINKS: u32 = 1 << 23;
    /// There are no set-id bits to strip at each write, so the kernel need not look for them.
    pub(super) const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
}

const WANTED: u32 = flag::ASYNC_READ
    | flag::BIG_WRITES
    | flag::PARALLEL_DIROPS
    | flag::MAX_PAGES
    | flag::CACHE_SYMLINKS
    | flag::HANDLE_KILLPRIV_V2;

/// Why there is no agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitError {
    /// The kernel is too old, or speaks something else.
    Version,
}

/// What comes after a first word with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// Requests.
    Yes {
        /// A write may pass the kernel's copy of a file by, and the copy stays right.
        writes_pass: bool,
    },
    /// Another first word, of our major version.
    AskAgain,
}

/// Answers `FUSE_INIT` (`struct fuse_init_out`).
pub(crate) fn agree(
    answer: &mut Answer,
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u32,
) -> Result<Agreed, InitError> {
    if major > MAJOR {
        answer.u32(MAJOR);
        answer.u32(MINOR);
        return Ok(Agreed::AskAgain);
    }
    if major < MAJOR || minor < MINOR_MIN {
        return Err(InitError::Version);
    }
    answer.u32(MAJOR);
    answer.u32(MINOR.min(minor));
    answer.u32(max_readahead);
    answer.u32(flags & WANTED);
    answer.u16(BACKGROUND_MAX);
    answer.u16(CONGESTED);
    let data = u32::try_from(DATA_BYTES_MAX).unwrap_or(u32::MAX);
    answer.u32(data);
    // Times are as fine as the host's.
    answer.u32(1);
    let pages = DATA_BYTES_MAX.checked_div(PAGE_BYTES).unwrap_or_default();
    answer.u16(u16::try_from(pages).unwrap_or(u16::MAX));
    answer.u16(0);
    answer.bytes(&[0; 32]);
    Ok(Agreed::Yes {
        writes_pass: minor >= WRITES_PASS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_kernel_is_served_and_the_one_before_is_not() {
        let mut answer = Answer::new();
        let old = Agreed::Yes { writes_pass: false };
        assert_eq!(agree(&mut answer, 7, MINOR_MIN, 0, u32::MAX), Ok(old));
        assert_eq!(answer.body_len(), 64);
        assert_eq!(agree(&mut answer, 7, MINOR_MIN - 1, 0, 0), Err(InitError::Version));
        assert_eq!(agree(&mut answer, 8, 0, 0, 0), Ok(Agreed::AskAgain));
    }

    #[test]
    fn writes_pass_the_cache_from_the_first_kernel_on_that_keeps_it_right() {
        let agreed = |minor| agree(&mut Answer::new(), 7, minor, 0, u32::MAX);
        assert_eq!(agreed(WRITES_PASS - 1), Ok(Agreed::Yes { writes_pass: false }));
        assert_eq!(agreed(WRITES_PASS), Ok(Agreed::Yes { writes_pass: true }));
    }

    #[test]
    fn no_inode_is_asked_for_by_a_number_that_a_program_made_up() {
        const EXPORT_SUPPORT: u32 = 1 << 4;
        assert_eq!(WANTED & EXPORT_SUPPORT, 0);
    }

    #[test]
    fn what_would_grow_files_unasked_is_never_wanted() {
        const WRITEBACK_CACHE: u32 = 1 << 16;
        const AUTO_INVAL_DATA: u32 = 1 << 12;
        assert_eq!(WANTED & (WRITEBACK_CACHE | AUTO_INVAL_DATA), 0);
    }
}
