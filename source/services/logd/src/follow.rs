use crate::directory::{CURRENT, Directory, file_name};
use crate::lock::LockFile;
use crate::notices::Notices;
use crate::read::{Problem, Unreadable};
use crate::{Entry, Filter, JournalError};
use nexus_audit::{LINE_BYTES_MAX, ReadError, read_line};
use rustix::fs::{OFlags, Stat, fstat};
use rustix::io::{Errno, pread};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// How much of a file is read at once: several of the longest lines.
const CHUNK_BYTES: usize = 8 * LINE_BYTES_MAX;

/// What a follower comes to.
#[derive(Debug)]
pub enum Followed {
    /// A record that the filter wants.
    Entry(Box<Entry>),
    /// A line that is no record.
    Unreadable(Unreadable),
    /// Records that were rotated away before they could be read, or are missing: the one after `after` is not the one
    /// that follows it.
    Gap {
        /// The last sequence number that was read.
        after: u64,
        /// The next one that is there.
        next: u64,
    },
}

/// Follows a journal over all its rotations while others write it, in bounded memory. Between two looks it costs
/// nothing: its descriptor (inotify(7)) becomes readable when there is something to look at; where this user has as many of
/// those as it may, four times a second.
#[derive(Debug)]
pub struct Follower {
    directory: Directory,
    filter: Filter,
    notices: Notices,
    /// Oldest first; only the last one is written any more.
    files: VecDeque<Open>,
    last_seq: Option<u64>,
}

/// A file whose name may be another one by now.
#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    identity: (u64, u64),
    name: Arc<str>,
    /// Where the first line starts that was not given out. Half a line is never kept: its writer may be dead, and the
    /// next one puts another in its place.
    offset: u64,
    /// How many lines were given out.
    lines: u64,
    /// What was read from `offset` on, and how much of it was given out since.
    chunk: Vec<u8>,
    used: usize,
    /// Inside a line that is too long to be one.
    skipping: bool,
    /// Up to which record it was read before it was cut shorter.
    read_before: Option<u64>,
}

/// Follows the journal in this directory, from the oldest record that there is.
///
/// # Errors
/// [`JournalError`].
pub fn follow(path: &Path, filter: Filter) -> Result<Follower, JournalError> {
    let directory = Directory::open(path)?;
    let failed = || directory.failed("follow", ".");
    let own = fstat(&directory).map_err(failed())?;
    // Before the first look, so that nothing lies between it and the first notice.
    let notices = Notices::of(path, identity(&own)).map_err(failed())?;
    let mut follower = Follower {
        directory,
        filter,
        notices,
        files: VecDeque::new(),
        last_seq: None,
    };
    follower.look_for_files()?;
    Ok(follower)
}

impl AsFd for Follower {
    /// Readable when [`Follower::look`] has something to see. poll(2).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}

impl Follower {
    /// Whether the kernel does not tell of changes, because this user follows too much already
    /// (`fs.inotify.max_user_instances`, `fs.inotify.max_user_watches`), and it is looked four times a second instead.
    #[must_use]
    pub const fn is_timed(&self) -> bool {
        self.notices.is_timed()
    }

    /// Takes note of what happened to the directory. Afterwards [`Follower::read_next`] goes on.
    ///
    /// # Errors
    /// `ENOENT` once the directory itself is gone or has another name.
    pub fn look(&mut self) -> Result<(), JournalError> {
        let gone = self.directory.failed("follow", ".");
        self.notices.take().map_err(gone)?;
        self.look_for_files()
    }

    /// Puts what was begun since the last look behind what is open.
    fn look_for_files(&mut self) -> Result<(), JournalError> {
        let known = self.files.back().map(|last| last.identity);
        let now = self.directory.stat(CURRENT)?.map(|stat| identity(&stat));
        if known.is_some() && known == now {
            return self.look_for_cut();
        }
        let lock = LockFile::open(&self.directory)?;
        let locked = lock.as_ref().map(|lock| lock.shared(&self.directory)).transpose()?;
        let mut newer = VecDeque::new();
        for index in self.directory.indices()? {
            let name = file_name(index);
            let Some((fd, stat)) = self.directory.file(&name, OFlags::RDONLY)? else {
                continue;
            };
            if known == Some(identity(&stat)) {
                break;
            }
            newer.push_front(Open {
                fd,
                identity: identity(&stat),
                name: Arc::from(name),
                offset: 0,
                lines: 0,
                chunk: Vec::new(),
                used: 0,
                skipping: false,
                read_before: None,
            });
        }
        drop(locked);
        self.files.append(&mut newer);
        Ok(())
    }

    /// A file that is shorter than what was read of it was mended or edited: it is read again, without what was given
    /// out.
    fn look_for_cut(&mut self) -> Result<(), JournalError> {
        let Some(last) = self.files.back_mut() else {
            return Ok(());
        };
        let stat = fstat(&last.fd).map_err(self.directory.failed("look at", CURRENT))?;
        if u64::try_from(stat.st_size).unwrap_or(0) < last.offset {
            last.begin_again(self.last_seq);
        }
        Ok(())
    }

    /// The next thing there is now; `None` until [`Follower::look`] has seen more.
    ///
    /// # Errors
    /// What the kernel says to a read.
    pub fn read_next(&mut self) -> Result<Option<Followed>, JournalError> {
        loop {
            let is_written = self.files.len() == 1;
            let Some(file) = self.files.front_mut() else {
                return Ok(None);
            };
            let name = Arc::clone(&file.name);
            let found = match file.line() {
                Ok(found) => found,
                Err(errno) => return Err(self.directory.failed("read", &name)(errno)),
            };
            let unreadable = |line, problem| {
                Ok(Some(Followed::Unreadable(Unreadable {
                    file: Arc::clone(&name),
                    line,
                    problem,
                })))
            };
            let (number, line) = match found {
                Found::Line(number, line) => (number, line),
                Found::TooLong(number) => return unreadable(number, Problem::Line(ReadError::TooLong)),
                Found::Half(_) | Found::End if is_written => return Ok(None),
                Found::Half(number) => {
                    self.files.pop_front();
                    return unreadable(number, Problem::Torn);
                }
                Found::End => {
                    self.files.pop_front();
                    continue;
                }
            };
            let (seq, record, mac) = match read_line(line) {
                Ok(read) => read,
                Err(error) => return unreadable(number, error.into()),
            };
            if file.read_before.is_some_and(|before| seq <= before) {
                continue;
            }
            if let Some(after) = self.last_seq.filter(|last| last.checked_add(1) != Some(seq)) {
                // The record itself comes at the next call.
                file.give_back();
                self.last_seq = seq.checked_sub(1);
                return Ok(Some(Followed::Gap { after, next: seq }));
            }
            self.last_seq = Some(seq);
            if self.filter.wants(seq, &record) {
                return Ok(Some(Followed::Entry(Box::new(Entry {
                    seq,
                    record,
                    mac,
                    file: name,
                    line: number,
                }))));
            }
        }
    }
}

/// What stands at a file's next place.
enum Found<'a> {
    /// A whole line, without its newline.
    Line(u64, &'a [u8]),
    /// A line that is no record whatever comes; passed over.
    TooLong(u64),
    /// The beginning of a line.
    Half(u64),
    /// Nothing.
    End,
}

impl Open {
    fn begin_again(&mut self, read_before: Option<u64>) {
        (self.offset, self.lines, self.used, self.skipping) = (0, 0, 0, false);
        self.chunk.clear();
        self.read_before = read_before;
    }

    fn rest(&self) -> &[u8] {
        self.chunk.get(self.used..).unwrap_or(&[])
    }

    fn take(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
        self.offset = self.offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Has the last line that was given out given out again.
    fn give_back(&mut self) {
        let before = self.chunk.get(..self.used.saturating_sub(1)).unwrap_or(&[]);
        let start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline.saturating_add(1));
        let bytes = self.used.saturating_sub(start);
        self.used = start;
        self.offset = self.offset.saturating_sub(u64::try_from(bytes).unwrap_or(0));
        self.lines = self.lines.saturating_sub(1);
    }

    fn fill(&mut self) -> Result<(), Errno> {
        self.chunk.resize(CHUNK_BYTES, 0);
        self.used = 0;
        let read = loop {
            match pread(&self.fd, self.chunk.as_mut_slice(), self.offset) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        self.chunk.truncate(read);
        Ok(())
    }

    fn line(&mut self) -> Result<Found<'_>, Errno> {
        loop {
            if !self.rest().contains(&b'\n') {
                self.fill()?;
            }
            let (rest, number) = (self.rest(), self.lines.saturating_add(1));
            let newline = rest.iter().position(|byte| *byte == b'\n');
            match newline {
                Some(length) => {
                    let start = self.used;
                    self.take(length.saturating_add(1));
                    self.lines = number;
                    if std::mem::take(&mut self.skipping) {
                        return Ok(Found::TooLong(number));
                    }
                    let line = self.chunk.get(start..start.saturating_add(length)).unwrap_or(&[]);
                    return Ok(Found::Line(number, line));
                }
                None if rest.len() >= LINE_BYTES_MAX => {
                    let length = rest.len();
                    self.take(length);
                    self.skipping = true;
                }
                None if rest.is_empty() && !self.skipping => return Ok(Found::End),
                None => return Ok(Found::Half(number)),
            }
        }
    }
}

/// Device and inode: the same file, whatever its name is.
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
