use crate::directory::{CURRENT, Directory, TORN, file_name, write_all};
use crate::tail::{find, read_range};
use crate::{Anchor, Clock, JournalError, JournalLimits};
use nexus_abi::{Operation, Reason};
use nexus_audit::{Chain, Judgement, Key, Mac, Record};
use rustix::fs::{OFlags, Stat, fdatasync, ftruncate};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most bytes of one write(2). Half of the smallest file, so that a batch never needs more than one rotation a write.
const WRITE_BYTES_MAX: usize = 32 * 1024;

/// How much of what was cut off is kept aside: many times a torn batch.
const TORN_BYTES_MAX: u64 = 1024 * 1024;

/// The files of a journal. Whoever calls holds the journal's lock.
pub(crate) struct Files {
    directory: Directory,
    limits: JournalLimits,
    key: Key,
    clock: Arc<dyn Clock>,
    /// The file that is written, as our last append left it; `None` where it has to be looked at again.
    current: Option<Current>,
    /// The end of the chain when we last knew it, to notice what has gone since.
    known: Anchor,
}

struct Current {
    file: OwnedFd,
    identity: (u64, u64),
    bytes: u64,
    chain: Chain,
}

/// Device and inode: the same file, whatever its name is.
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("directory", &self.directory)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Files {
    pub(crate) fn new(directory: Directory, limits: JournalLimits, key: Key, clock: Arc<dyn Clock>) -> Self {
        let known = Anchor {
            seq: 0,
            mac: Mac::genesis(),
        };
        Self {
            directory,
            limits,
            key,
            clock,
            current: None,
            known,
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.known.seq
    }

    pub(crate) fn anchor(&self) -> Anchor {
        self.known
    }

    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        match &self.current {
            Some(current) => fdatasync(&current.file).map_err(self.directory.failed("sync", CURRENT)),
            None => Ok(()),
        }
    }

    /// Makes sure that we know the file's end: another process may have written, rotated, or died in the middle of it.
    pub(crate) fn look(&mut self) -> Result<(), JournalError> {
        let stat = self.directory.stat(CURRENT)?;
        if let (Some(current), Some(stat)) = (&self.current, &stat)
            && current.identity == identity(stat)
            && current.bytes == size(stat)
        {
            return Ok(());
        }
        self.current = None;
        let known_seq = self.known.seq;
        let opened = self.directory.file(CURRENT, OFlags::RDWR | OFlags::APPEND)?;
        let found_seq = match opened {
            Some((file, stat)) => self.resume(file, &stat)?,
            None => {
                let (seq, mac) = self.last_of_older()?;
                self.begin(Chain::resume(self.key.clone(), seq, mac))?;
                seq
            }
        };
        if found_seq < known_seq {
            let first = found_seq.saturating_add(1);
            self.note(
                Reason::JournalTorn,
                &format!("records {first} to {known_seq} were written and are gone"),
            )?;
        }
        Ok(())
    }

    /// Takes up a file that is there, at its last record; what follows that is cut off. Gives the record's sequence
    /// number.
    fn resume(&mut self, file: OwnedFd, stat: &Stat) -> Result<u64, JournalError> {
        let bytes = size(stat);
        let tail = find(&self.directory, CURRENT, file.as_fd(), bytes)?;
        let torn = bytes.saturating_sub(tail.good_bytes);
        let mut kept = "";
        if torn > 0 {
            if self.keep_torn(file.as_fd(), tail.good_bytes, bytes)? {
                kept = ", now in journal.torn";
            }
            ftruncate(&file, tail.good_bytes).map_err(self.directory.failed("mend", CURRENT))?;
        }
        let (seq, mac) = match tail.last {
            Some(last) => last,
            None => self.last_of_older()?,
        };
        let chain = Chain::resume(self.key.clone(), seq, mac);
        self.known = Anchor { seq, mac };
        self.current = Some(Current {
            file,
            identity: identity(stat),
            bytes: tail.good_bytes,
            chain,
        });
        if tail.last.is_none() {
            self.write_start()?;
        }
        if torn > 0 {
            self.note(
                Reason::JournalTorn,
                &format!("{torn} bytes after record {seq} were no record{kept}"),
            )?;
        }
        Ok(seq)
    }

    /// The end of the chain in the files that are not written any more.
    fn last_of_older(&self) -> Result<(u64, Mac), JournalError> {
        // A rotation that was killed leaves a gap in the names.
        for index in self.directory.indices()?.into_iter().filter(|index| *index != 0) {
            let name = file_name(index);
            let Some((file, stat)) = self.directory.file(&name, OFlags::RDONLY)? else {
                continue;
            };
            if let Some(last) = find(&self.directory, &name, file.as_fd(), size(&stat))?.last {
                return Ok(last);
            }
        }
        Ok((0, Mac::genesis()))
    }

    /// Copies what is cut off to a file of its own, in place of an earlier one. Whether it could: on a full disk mending
    /// is worth more than keeping.
    fn keep_torn(&self, file: BorrowedFd<'_>, start: u64, end: u64) -> Result<bool, JournalError> {
        let end = end.min(start.saturating_add(TORN_BYTES_MAX));
        let bytes = read_range(&self.directory, CURRENT, file, start, end)?;
        self.directory.remove(TORN)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let kept = match self.directory.file(TORN, flags) {
            Ok(Some((torn, _))) => write_all(torn.as_fd(), &bytes),
            Ok(None) => Err(Errno::NOENT),
            Err(error) => Err(error.errno().unwrap_or(Errno::IO)),
        };
        match kept {
            Ok(()) => Ok(true),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Ok(false),
            Err(errno) => Err(self.directory.failed("keep the torn tail in", TORN)(errno)),
        }
    }

    fn current(&self) -> Result<&Current, JournalError> {
        self.current.as_ref().ok_or_else(|| self.lost())
    }

    /// The file was there a moment ago, under the lock.
    fn lost(&self) -> JournalError {
        self.directory.failed("find", CURRENT)(Errno::NOENT)
    }

    /// Appends records, rotating where the file would grow past its limit; steps `done` for each that is written. Gives
    /// the first one's sequence number.
    pub(crate) fn write(&mut self, batch: &[Record], done: &mut usize) -> Result<Option<u64>, JournalError> {
        let mut first_seq = None;
        let mut rest = batch;
        while !rest.is_empty() {
            let current = self.current()?;
            let mut chain = current.chain.clone();
            let room = self.limits.file_bytes_max.saturating_sub(current.bytes);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (mut lines, mut taken, mut full) = (String::new(), 0_usize, false);
            for record in rest {
                let mut next = chain.clone();
                let line = next.seal(record);
                let length = lines.len().saturating_add(line.len());
                full = length > room;
                if full || (taken > 0 && length > WRITE_BYTES_MAX) {
                    break;
                }
                first_seq = first_seq.or(Some(next.last_seq()));
                lines.push_str(&line);
                (chain, taken) = (next, taken.saturating_add(1));
            }
            if taken > 0 {
                self.write_lines(&lines, chain)?;
                *done = done.saturating_add(taken);
                rest = rest.get(taken..).unwrap_or(&[]);
            }
            if full {
                self.rotate()?;
            }
        }
        Ok(first_seq)
    }

    /// One write(2) to the file's end; all of it or nothing.
    fn write_lines(&mut self, lines: &str, chain: Chain) -> Result<(), JournalError> {
        // Until it has succeeded nobody knows what the file's end is.
        let Some(mut current) = self.current.take() else {
            return Err(self.lost());
        };
        let written = loop {
            match rustix::io::write(&current.file, lines.as_bytes()) {
                Err(Errno::INTR) => {}
                other => break other.map_err(self.directory.failed("write", CURRENT))?,
            }
        };
        if written < lines.len() {
            // A half line would be mended by the next opener; better there is none.
            ftruncate(&current.file, current.bytes).map_err(self.directory.failed("mend", CURRENT))?;
            let path = self.directory.path_of(CURRENT);
            return Err(JournalError::Short {
                path,
                written,
                bytes: lines.len(),
            });
        }
        current.bytes = current.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        self.known = Anchor {
            seq: chain.last_seq(),
            mac: chain.head(),
        };
        current.chain = chain;
        self.current = Some(current);
        Ok(())
    }

    /// Renames every file to the next older name, the oldest over the edge, and begins a new one. Killed in between, the
    /// next opener finds the chain's end in the newest file there is.
    fn rotate(&mut self) -> Result<(), JournalError> {
        let chain = self.current()?.chain.clone();
        self.sync()?;
        self.current = None;
        let oldest = self.limits.files_max.saturating_sub(1);
        for index in (0..oldest).rev() {
            self.directory
                .rename(&file_name(index), &file_name(index.saturating_add(1)))?;
        }
        // What an earlier, larger limit left.
        for index in self.directory.indices()?.into_iter().filter(|index| *index > oldest) {
            self.directory.remove(&file_name(index))?;
        }
        self.begin(chain)
    }

    /// Makes the file that is written, which is not there, and writes its first line.
    fn begin(&mut self, chain: Chain) -> Result<(), JournalError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let Some((file, stat)) = self.directory.file(CURRENT, flags)? else {
            return Err(self.lost());
        };
        self.current = Some(Current {
            file,
            identity: identity(&stat),
            bytes: 0,
            chain,
        });
        self.write_start()
    }

    /// The first line of a file: what it continues. So what was rotated away is no gap in the chain.
    fn write_start(&mut self) -> Result<(), JournalError> {
        let chain = &self.current()?.chain;
        let after = format!("after {} {}", chain.last_seq(), chain.head());
        self.note(Reason::JournalStart, &after)
    }

    fn note(&mut self, reason: Reason, object: &str) -> Result<(), JournalError> {
        let nobody: Arc<str> = Arc::from("");
        let record = Record {
            mono_ns: self.clock.mono_ns(),
            time: self.clock.time(),
            subject: Arc::clone(&nobody),
            session: Arc::clone(&nobody),
            op: Operation::Journal,
            object: Arc::from(object),
            verdict: Judgement::Note,
            reason,
            rule: None,
            at: None,
            policy: nobody,
            suppressed: 0,
        };
        let mut done = 0;
        self.write(std::slice::from_ref(&record), &mut done).map(|_| ())
    }
}
