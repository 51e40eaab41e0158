use crate::JournalError;
use crate::directory::{Directory, LOCK};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How often a writer asks for a lock before it counts as held: with [`PAUSE`] two seconds, many times what an append
/// takes.
const ATTEMPTS: u32 = 1000;
/// How often a reader does: who looks at a journal has an answer within two seconds, other work of its own included.
const ATTEMPTS_TO_READ: u32 = 600;
const PAUSE: Duration = Duration::from_millis(2);

/// The journal's lock, one for each opener. It lies beside the files because those are renamed.
#[derive(Debug)]
pub(crate) struct LockFile(OwnedFd);

impl LockFile {
    /// For a writer: makes it where it is missing.
    pub(crate) fn open_or_make(directory: &Directory) -> Result<Self, JournalError> {
        match directory.file(LOCK, OFlags::RDWR | OFlags::CREATE)? {
            Some((fd, _)) => Ok(Self(fd)),
            None => Err(directory.failed("open", LOCK)(Errno::NOENT)),
        }
    }

    /// For a reader: `None` where no writer ever was.
    pub(crate) fn open(directory: &Directory) -> Result<Option<Self>, JournalError> {
        Ok(directory.file(LOCK, OFlags::RDONLY)?.map(|(fd, _)| Self(fd)))
    }

    pub(crate) fn exclusive(&self, directory: &Directory) -> Result<Locked<'_>, JournalError> {
        self.take(directory, FlockOperation::NonBlockingLockExclusive, ATTEMPTS)
    }

    pub(crate) fn shared(&self, directory: &Directory) -> Result<Locked<'_>, JournalError> {
        self.take(directory, FlockOperation::NonBlockingLockShared, ATTEMPTS_TO_READ)
    }

    /// Asks again and again and not for ever: a stopped process that holds the lock must not stop all others.
    fn take(&self, directory: &Directory, how: FlockOperation, attempts: u32) -> Result<Locked<'_>, JournalError> {
        for _ in 0..attempts {
            match flock(&self.0, how) {
                Ok(()) => return Ok(Locked(self)),
                Err(Errno::AGAIN) => std::thread::sleep(PAUSE),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(directory.failed("lock", LOCK)(errno)),
            }
        }
        Err(JournalError::Busy {
            path: directory.path_of(LOCK),
        })
    }
}

/// Held until dropped, or until the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Locked<'a>(&'a LockFile);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Cannot fail for an open file; and closing the file unlocks it too.
        let _ = flock(self.0.0.as_fd(), FlockOperation::Unlock);
    }
}
