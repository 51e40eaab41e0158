use crate::directory::Directory;
use crate::files::Files;
use crate::lock::LockFile;
use crate::{AppendError, Clock, JournalError, JournalLimits};
use nexus_audit::{Key, Mac, Record};
use std::path::Path;
use std::sync::Arc;

/// A journal, open for writing.
///
/// Several processes may have it open; each append is done alone, under a lock that is held no longer than that. The
/// next one to write goes on with the chain where it finds it.
#[derive(Debug)]
pub struct Journal {
    lock: LockFile,
    files: Files,
}

/// Where a batch stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first record's sequence number; where the journal notes something of its own in between, a batch is not
    /// without gaps.
    pub first_seq: u64,
    /// The last record's sequence number. For an empty batch: the journal's last one.
    pub last_seq: u64,
}

/// The end of a journal at some time. Kept out of reach of who writes the journal, it finds a cut tail and a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The last record's sequence number.
    pub seq: u64,
    /// Its chain value.
    pub mac: Mac,
}

impl Journal {
    /// Opens the journal in this directory, making both where they are missing, and mends a torn tail.
    ///
    /// # Errors
    /// [`JournalError`]: whatever keeps it from being written is found here, before a program starts.
    pub fn open(path: &Path, limits: JournalLimits, key: Key, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let limits = limits.check()?;
        let directory = Directory::open_or_make(path)?;
        let lock = LockFile::open_or_make(&directory)?;
        let mut journal = Self {
            lock,
            files: Files::new(directory, limits, key, clock),
        };
        match journal.append(&[]) {
            Ok(_) => Ok(journal),
            Err(failed) => Err(failed.error),
        }
    }

    /// Appends a batch. Each record goes into the chain in this order; up to 32 KiB of lines are one write(2), more are
    /// several. Bytes are safe from a killed process at once, from a power cut after [`Journal::sync`].
    ///
    /// # Errors
    /// [`AppendError`]: what was written before the failure stays, and it says how much of the batch that is; a write
    /// that the disk took only a part of is taken back.
    pub fn append(&mut self, batch: &[Record]) -> Result<Appended, AppendError> {
        let mut records = 0_usize;
        let result = self.append_counting(batch, &mut records);
        result.map_err(|error| AppendError { records, error })
    }

    fn append_counting(&mut self, batch: &[Record], records: &mut usize) -> Result<Appended, JournalError> {
        let _locked = self.lock.exclusive(self.files.directory())?;
        self.files.look()?;
        let before = self.files.last_seq();
        let first_seq = self.files.write(batch, records)?.unwrap_or(before);
        Ok(Appended {
            first_seq,
            last_seq: self.files.last_seq(),
        })
    }

    /// Waits until everything that was appended is on the disk (fdatasync(2)).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sync(&self) -> Result<(), JournalError> {
        self.files.sync()
    }

    /// The journal's end after this opener's last append.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        self.files.anchor()
    }
}
