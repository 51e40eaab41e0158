use crate::JournalError;
use crate::directory::{Directory, file_name};
use crate::lock::LockFile;
use nexus_abi::Reason;
use nexus_audit::{LINE_BYTES_MAX, Mac, ReadError, Record, UnixMillis, read_line};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// Which records a reader wants; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this subject.
    pub subject: Option<Arc<str>>,
    /// Of this session.
    pub session: Option<Arc<str>>,
    /// For this reason.
    pub reason: Option<Reason>,
    /// Not before this time.
    pub since: Option<UnixMillis>,
    /// Not after this time.
    pub until: Option<UnixMillis>,
    /// With this sequence number or a later one.
    pub first_seq: Option<u64>,
    /// With this sequence number or an earlier one.
    pub last_seq: Option<u64>,
}

impl Filter {
    /// Whether the record is wanted.
    #[must_use]
    pub fn wants(&self, seq: u64, record: &Record) -> bool {
        self.subject.as_ref().is_none_or(|subject| *subject == record.subject)
            && self.session.as_ref().is_none_or(|session| *session == record.session)
            && self.reason.is_none_or(|reason| reason == record.reason)
            && self.since.is_none_or(|since| since <= record.time)
            && self.until.is_none_or(|until| record.time <= until)
            && self.first_seq.is_none_or(|first| first <= seq)
            && self.last_seq.is_none_or(|last| seq <= last)
    }
}

/// A record and where it stands. Whether its chain holds is [`crate::verify`]'s to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence number.
    pub seq: u64,
    /// What it says.
    pub record: Record,
    /// Its chain value.
    pub mac: Mac,
    /// The file's name.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u64,
}

/// A line that is no record.
#[derive(Debug, Error)]
#[error("`{file}` line {line}: {problem}")]
pub struct Unreadable {
    /// The file's name.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// Why a line is no record.
#[derive(Debug, Error)]
pub enum Problem {
    /// It is something else.
    #[error(transparent)]
    Line(#[from] ReadError),
    /// The file ends in the middle of it: its writer was killed. The next writer mends it.
    #[error("the line is torn")]
    Torn,
    /// The file cannot be read.
    #[error("cannot read on: {0}")]
    Io(#[source] std::io::Error),
}

/// The journal in this directory, oldest record first, as it is at this moment: writers go on meanwhile, and what they
/// rotate away is still read. Nothing for a directory without a journal.
///
/// # Errors
/// [`JournalError`]; no answer within two seconds where a stopped process holds the lock.
pub fn read(directory: &Path, filter: Filter) -> Result<Records, JournalError> {
    Ok(Records {
        lines: Lines::open(&Directory::open(directory)?)?,
        filter,
    })
}

/// The records of a journal, and between them what is none.
#[derive(Debug)]
pub struct Records {
    lines: Lines,
    filter: Filter,
}

impl Iterator for Records {
    type Item = Result<Entry, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(unreadable) => return Some(Err(unreadable)),
            };
            let (file, number) = (Arc::clone(&line.file), line.number);
            match read_line(line.bytes) {
                Ok((seq, record, mac)) if self.filter.wants(seq, &record) => {
                    return Some(Ok(Entry {
                        seq,
                        record,
                        mac,
                        file,
                        line: number,
                    }));
                }
                Ok(_) => {}
                Err(error) => {
                    return Some(Err(Unreadable {
                        file,
                        line: number,
                        problem: error.into(),
                    }));
                }
            }
        }
    }
}

/// The lines of all files, oldest first, in bounded memory.
#[derive(Debug)]
pub(crate) struct Lines {
    files: VecDeque<(Arc<str>, BufReader<std::io::Take<File>>)>,
    number: u64,
    buffer: Vec<u8>,
}

/// One line without its newline.
pub(crate) struct Line<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) file: Arc<str>,
    pub(crate) number: u64,
}

impl Lines {
    pub(crate) fn open(directory: &Directory) -> Result<Self, JournalError> {
        let lock = LockFile::open(directory)?;
        // While they are opened nobody renames them; an open file stays what it is.
        let locked = lock.as_ref().map(|lock| lock.shared(directory)).transpose()?;
        let mut files = VecDeque::new();
        for index in directory.indices()? {
            let name = file_name(index);
            if let Some((fd, stat)) = directory.file(&name, OFlags::RDONLY)? {
                let bytes = u64::try_from(stat.st_size).unwrap_or(0);
                files.push_front((Arc::from(name), BufReader::new(File::from(fd).take(bytes))));
            }
        }
        drop(locked);
        Ok(Self {
            files,
            number: 0,
            buffer: Vec::with_capacity(LINE_BYTES_MAX),
        })
    }

    /// Only the file that is written: for a look that must not take long.
    pub(crate) fn newest_only(&mut self) {
        self.files = self.files.pop_back().into_iter().collect();
    }

    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn next(&mut self) -> Option<Result<Line<'_>, Unreadable>> {
        loop {
            let (file, reader) = self.files.front_mut()?;
            self.buffer.clear();
            let file = Arc::clone(file);
            let most = LINE_BYTES_MAX as u64;
            let read = reader.by_ref().take(most).read_until(b'\n', &mut self.buffer);
            let problem = match read {
                Ok(0) => {
                    self.files.pop_front();
                    self.number = 0;
                    continue;
                }
                Ok(_) if self.buffer.last() == Some(&b'\n') => None,
                Ok(bytes) if bytes < LINE_BYTES_MAX => Some(Problem::Torn),
                Ok(_) => Some(match skip_line(reader) {
                    Ok(()) => Problem::Line(ReadError::TooLong),
                    Err(error) => Problem::Io(error),
                }),
                Err(error) => Some(Problem::Io(error)),
            };
            self.number = self.number.saturating_add(1);
            let number = self.number;
            return Some(match problem {
                None => {
                    let bytes = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
                    Ok(Line { bytes, file, number })
                }
                Some(problem) => {
                    if matches!(problem, Problem::Io(_)) {
                        // It would be said again and again.
                        self.files.clear();
                    }
                    Err(Unreadable {
                        file,
                        line: number,
                        problem,
                    })
                }
            });
        }
    }
}

/// To the next line's start, without keeping what is passed over.
fn skip_line(reader: &mut impl BufRead) -> Result<(), std::io::Error> {
    loop {
        let bytes = reader.fill_buf()?;
        let (length, found) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(newline) => (newline.saturating_add(1), true),
            None => (bytes.len(), bytes.is_empty()),
        };
        reader.consume(length);
        if found {
            return Ok(());
        }
    }
}
