use crate::LimitsError;
use rustix::io::Errno;
use std::path::PathBuf;
use thiserror::Error;

/// Why the journal cannot be opened, written or read. The policy says whether a session stops for it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Limits that make no journal.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The kernel refused: no permission, a read-only or full disk.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Something is there that is not this user's own file or directory, or that others may write.
    #[error("`{path}` is {wrong}; move it away")]
    NotOurs {
        /// What.
        path: PathBuf,
        /// Why not.
        wrong: &'static str,
    },
    /// Only a part of the bytes could be written; they were taken back.
    #[error("the disk under `{path}` took only {written} of {bytes} bytes")]
    Short {
        /// Which file.
        path: PathBuf,
        /// How many bytes were taken.
        written: usize,
        /// Of how many.
        bytes: usize,
    },
    /// The key file is not a key.
    #[error("`{path}` has {bytes} bytes and is no key; move it away, and the journal with it")]
    Key {
        /// Which file.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
    },
    /// Another process held the journal's lock for too long.
    #[error("another process holds `{path}` locked")]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
}

impl JournalError {
    /// What the kernel said, where it was the kernel.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { errno, .. } => Some(*errno),
            Self::Short { .. } => Some(Errno::NOSPC),
            _ => None,
        }
    }
}

/// An append that failed: what stands in the journal all the same, and why the rest does not.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct AppendError {
    /// How many of the batch's records were written, from its start.
    pub records: usize,
    /// Why no more.
    #[source]
    pub error: JournalError,
}
