use crate::JournalError;
use crate::directory::Directory;
use nexus_audit::{LINE_BYTES_MAX, Mac, read_line};
use rustix::io::pread;
use std::os::fd::BorrowedFd;

/// How much of a file's end is looked at, at first: the longest line and a torn one after it.
const FIRST_LOOK_BYTES: u64 = 2 * LINE_BYTES_MAX as u64;

/// The end of a journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The last record's sequence number and chain value; `None` where the file has none.
    pub(crate) last: Option<(u64, Mac)>,
    /// Where that record ends; what follows it is torn.
    pub(crate) good_bytes: u64,
}

/// Finds the last record of a file of `size` bytes. What follows it, be it half a line, zeros that a power cut left, or
/// text that somebody added, is no record.
pub(crate) fn find(directory: &Directory, name: &str, file: BorrowedFd<'_>, size: u64) -> Result<Tail, JournalError> {
    let mut look = FIRST_LOOK_BYTES;
    loop {
        let start = size.saturating_sub(look);
        let bytes = read_range(directory, name, file, start, size)?;
        if let Some(tail) = last_record(&bytes, start) {
            return Ok(tail);
        }
        if start == 0 {
            return Ok(Tail {
                last: None,
                good_bytes: 0,
            });
        }
        // Twice as much each time: the whole file at most, whose length the journal bounds.
        look = look.saturating_mul(2);
    }
}

/// The last record that lies whole in `bytes`, which start at `start` in the file.
fn last_record(bytes: &[u8], start: u64) -> Option<Tail> {
    let mut end = bytes.len();
    loop {
        let newline = bytes.get(..end)?.iter().rposition(|byte| *byte == b'\n')?;
        let line_start = match bytes.get(..newline)?.iter().rposition(|byte| *byte == b'\n') {
            Some(before) => before.checked_add(1)?,
            // The first line of what was read may be half of one: then it is no record, and more is read.
            None => 0,
        };
        if let Ok((seq, _, mac)) = read_line(bytes.get(line_start..newline)?) {
            let good_bytes = start.checked_add(u64::try_from(newline).ok()?)?.checked_add(1)?;
            return Some(Tail {
                last: Some((seq, mac)),
                good_bytes,
            });
        }
        end = line_start;
        if end == 0 {
            return None;
        }
    }
}

/// The bytes from `start` to `end`, fewer where the file has become shorter.
pub(crate) fn read_range(
    directory: &Directory,
    name: &str,
    file: BorrowedFd<'_>,
    start: u64,
    end: u64,
) -> Result<Vec<u8>, JournalError> {
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let mut bytes = vec![0_u8; length];
    let mut filled = 0_usize;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = start.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match pread(file, rest, at) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(directory.failed("read", name)(errno)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
