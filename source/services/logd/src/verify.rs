use crate::directory::Directory;
use crate::key::read_key;
use crate::read::{Lines, Problem, Unreadable};
use crate::{Anchor, JournalError};
use nexus_audit::{Broken, Verified, Verifier};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// A journal whose chain holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// From where to where it holds.
    pub verified: Verified,
    /// Over how many files.
    pub files: usize,
    /// Whether the last line is torn: its writer was killed, or is in the middle of it.
    pub torn: bool,
    /// What the anchor says.
    pub anchor: AnchorState,
}

/// What an anchor says of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorState {
    /// None was given: a cut tail and a rewrite by who has the key stay unseen.
    None,
    /// The journal holds the anchor's record.
    Holds,
    /// The anchor's record was rotated away: the anchor says nothing any more.
    TooOld,
}

/// The first thing that does not hold.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is a journal and no key.
    #[error("the journal's key is gone, so its chain cannot be checked")]
    NoKey,
    /// A line cannot be read.
    #[error("{unreadable}")]
    Unreadable {
        /// The last record before it that holds; 0 where there is none.
        after: u64,
        /// Which line, and why.
        #[source]
        unreadable: Unreadable,
    },
    /// A record does not hold.
    #[error("`{file}` line {line} does not hold: {}", .broken.flaw)]
    Broken {
        /// The file's name.
        file: Arc<str>,
        /// The line in that file, from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        broken: Broken,
    },
    /// The anchor names a later record than the journal has: its tail was cut off.
    #[error("the anchor names record {anchor}, and the journal ends with record {last}: its tail was cut off")]
    Cut {
        /// The anchor's sequence number.
        anchor: u64,
        /// The journal's last one.
        last: u64,
    },
    /// The anchor's record is another one than the journal's: it was rewritten.
    #[error("record {seq} is not the one that the anchor names: the journal was rewritten")]
    Rewritten {
        /// The anchor's sequence number.
        seq: u64,
    },
}

/// Checks the whole journal in this directory: every line, from the oldest that is kept, and the anchor if there is one.
/// In constant memory, while writers go on.
///
/// # Errors
/// The first record that does not hold, with its file and line; or why the journal cannot be read.
pub fn verify(directory: &Path, anchor: Option<&Anchor>) -> Result<VerifyReport, VerifyError> {
    let directory = Directory::open(directory)?;
    let lines = Lines::open(&directory)?;
    verify_lines(&directory, lines, anchor)
}

/// Checks the file that is written alone, from what it says that it continues: 8 MiB at most, where no limit was changed.
///
/// # Errors
/// As [`verify`].
pub fn verify_newest(directory: &Path) -> Result<VerifyReport, VerifyError> {
    let directory = Directory::open(directory)?;
    let mut lines = Lines::open(&directory)?;
    lines.newest_only();
    verify_lines(&directory, lines, None)
}

fn verify_lines(directory: &Directory, mut lines: Lines, anchor: Option<&Anchor>) -> Result<VerifyReport, VerifyError> {
    let files = lines.files();
    let Some(key) = read_key(directory)? else {
        return Err(VerifyError::NoKey);
    };
    let mut verifier = Verifier::from_stated_start(key);
    let (mut torn, mut held) = (None, false);
    while let Some(line) = lines.next() {
        // Only the last line of all may be.
        if let Some(unreadable) = torn {
            let after = verifier.verified().last_seq;
            return Err(VerifyError::Unreadable { after, unreadable });
        }
        let line = match line {
            Err(
                unreadable @ Unreadable {
                    problem: Problem::Torn, ..
                },
            ) => {
                torn = Some(unreadable);
                continue;
            }
            Err(unreadable) => {
                let after = verifier.verified().last_seq;
                return Err(VerifyError::Unreadable { after, unreadable });
            }
            Ok(line) => line,
        };
        let (file, number) = (Arc::clone(&line.file), line.number);
        verifier.line(line.bytes).map_err(|broken| VerifyError::Broken {
            file,
            line: number,
            broken,
        })?;
        if let Some(anchor) = anchor
            && anchor.seq == verifier.verified().last_seq
        {
            if anchor.mac != verifier.verified().head {
                return Err(VerifyError::Rewritten { seq: anchor.seq });
            }
            held = true;
        }
    }
    let verified = verifier.verified();
    let anchor = match anchor {
        None => AnchorState::None,
        Some(_) if held => AnchorState::Holds,
        Some(anchor) if anchor.seq > verified.last_seq => {
            return Err(VerifyError::Cut {
                anchor: anchor.seq,
                last: verified.last_seq,
            });
        }
        Some(_) => AnchorState::TooOld,
    };
    Ok(VerifyReport {
        verified,
        files,
        torn: torn.is_some(),
        anchor,
    })
}
