//! A file that was handed in for reading, closed against everything else.
//!
//! A descriptor keeps the mount that its file was opened on: the host's, which may be written. Through it a program can
//! change the mode and the times of a file of its user's, and open it again for writing where Landlock does not stop it.
//! So the file is opened once more, on a read-only mount of nothing but itself.

use crate::landlock_fence::landlock_holds_descriptors;
use nexus_sys::mount::{Attributes, restrict};
use rustix::fs::{CWD, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The caller's own descriptor behind a stdin that was replaced.
#[derive(Debug)]
pub(crate) struct Input {
    given: OwnedFd,
}

/// Replaces stdin, if it is a file that was opened for reading only. `None` if it is not, or if there is no other way to it
/// and Landlock holds it.
///
/// # Errors
/// Why it cannot be opened once more, where nothing else would hold it.
pub(crate) fn close_in() -> Result<Option<Input>, Errno> {
    let stdin = std::io::stdin();
    match close_in_file(stdin.as_fd()) {
        Err(_) if landlock_holds_descriptors() => Ok(None),
        other => other,
    }
}

fn close_in_file(stdin: BorrowedFd<'_>) -> Result<Option<Input>, Errno> {
    // A stdin that is closed is nothing to hold.
    let Ok(given) = rustix::fs::fstat(stdin) else {
        return Ok(None);
    };
    let flags = rustix::fs::fcntl_getfl(stdin)?;
    if FileType::from_raw_mode(given.st_mode) != FileType::RegularFile
        || flags.intersects(OFlags::WRONLY | OFlags::RDWR)
    {
        return Ok(None);
    }
    // By its name: what is reached by the descriptor is on the host's mount again. A file without one is not found, or is
    // another.
    let name = rustix::fs::readlink("/proc/self/fd/0", Vec::new())?;
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let alone = rustix::mount::open_tree(CWD, &name, tree)?;
    let sealed = Attributes {
        read_only: true,
        no_suid: true,
        no_dev: true,
        no_exec: true,
    };
    restrict(&alone, sealed, false)
        .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    let path = format!("/proc/self/fd/{}", alone.as_raw_fd());
    let again = rustix::fs::open(
        path,
        flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = rustix::fs::fstat(&again)?;
    if (found.st_dev, found.st_ino) != (given.st_dev, given.st_ino) {
        return Err(Errno::STALE);
    }
    copy_position(stdin, again.as_fd())?;
    let kept = rustix::io::fcntl_dupfd_cloexec(stdin, FIRST_FREE)?;
    rustix::stdio::dup2_stdin(&again)?;
    Ok(Some(Input { given: kept }))
}

// Above the standard three.
const FIRST_FREE: i32 = 3;

fn copy_position(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let position = rustix::fs::seek(from, SeekFrom::Current(0))?;
    rustix::fs::seek(to, SeekFrom::Start(position)).map(drop)
}

impl Input {
    /// Leaves the caller's descriptor where the program stopped to read, for whoever reads on: the next command of a
    /// script.
    pub(crate) fn hand_back(&self) {
        // One that cannot be moved was not moved either.
        let _ = copy_position(std::io::stdin().as_fd(), self.given.as_fd());
    }
}
