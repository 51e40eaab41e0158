//! Whether somebody reads what is said.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set before `main`, by [`look`].
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when this program began (`command >&-`). Rust's runtime puts `/dev/null` in the place of
/// a closed one before `main`, and what is written there is lost without an error.
#[must_use]
pub fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

/// `int fcntl(1, F_GETFD)` fcntl(2)
extern "C" fn look() {
    // SAFETY: asks for a flag of a descriptor, which is a number like any other to it; `errno` is nobody's yet.
    let closed = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1;
    STDOUT_CLOSED.store(closed, Ordering::Relaxed);
}

// SAFETY: what stands in this section is called by the C library before `main`, with no more demand than that it is a function of
// C's convention; this one needs nothing of Rust's runtime. elf(5)
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
