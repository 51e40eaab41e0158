use crate::chain::Mac;
use crate::record::{Judgement, LINE_BYTES_MAX, RECORD_VERSION, Record};
use crate::write::body;
use alloc::borrow::Cow;
use alloc::sync::Arc;
use nexus_abi::{Errno, Operation, Reason};
use serde::Deserialize;
use thiserror::Error;

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not the JSON object of a record.
    #[error("the line is not a record")]
    NotARecord,
    /// A record of another version.
    #[error("the record is of version `{0}`, this program reads version `{RECORD_VERSION}`")]
    Version(u32),
    /// An operation, verdict, reason, errno or time that is none.
    #[error("the record's `{0}` is unknown")]
    Unknown(&'static str),
    /// A record, but not in the one form that is written.
    #[error("the record is not in its canonical form")]
    NotCanonical,
}

/// The line as it stands there; names that are checked afterwards are only borrowed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    v: u32,
    seq: u64,
    mono_ns: u64,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(borrow)]
    verdict: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    errno: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rule: Option<Cow<'a, str>>,
    #[serde(borrow)]
    at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    policy: Cow<'a, str>,
    suppressed: u64,
    #[serde(borrow)]
    prev: Cow<'a, str>,
}

/// A record that was read back, with its place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) seq: u64,
    pub(crate) record: Record,
    pub(crate) prev: Mac,
}

/// Reads one line, without its newline: the record, its sequence number and its chain value. Takes any bytes; accepts
/// only what this crate writes, byte for byte. Whether the chain holds is [`crate::verify`]'s to say.
///
/// # Errors
/// [`ReadError`].
pub fn read_line(line: &[u8]) -> Result<(u64, Record, Mac), ReadError> {
    placed(line).map(|placed| (placed.seq, placed.record, placed.prev))
}

pub(crate) fn placed(bytes: &[u8]) -> Result<Placed, ReadError> {
    if bytes.len() >= LINE_BYTES_MAX {
        return Err(ReadError::TooLong);
    }
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(|_| ReadError::NotARecord)?;
    if line.v != RECORD_VERSION {
        return Err(ReadError::Version(line.v));
    }
    let verdict = match (&*line.verdict, line.errno.as_deref()) {
        ("deny", Some(name)) => Judgement::Deny(errno(name).ok_or(ReadError::Unknown("errno"))?),
        ("warn", None) => Judgement::Warn,
        ("note", None) => Judgement::Note,
        ("deny" | "warn" | "note", _) => return Err(ReadError::Unknown("errno")),
        _ => return Err(ReadError::Unknown("verdict")),
    };
    let record = Record {
        mono_ns: line.mono_ns,
        time: line.time.parse().map_err(|_| ReadError::Unknown("time"))?,
        subject: Arc::from(line.subject),
        session: Arc::from(line.session),
        op: Operation::from_text(&line.op).ok_or(ReadError::Unknown("op"))?,
        object: Arc::from(line.object),
        verdict,
        reason: Reason::from_text(&line.reason).ok_or(ReadError::Unknown("reason"))?,
        rule: line.rule.map(Arc::from),
        at: line.at.map(Arc::from),
        policy: Arc::from(line.policy),
        suppressed: line.suppressed,
    };
    let prev = Mac::from_hex(&line.prev).ok_or(ReadError::Unknown("prev"))?;
    let canonical = body(line.seq, &record);
    let same = bytes
        .strip_prefix(canonical.as_bytes())
        .is_some_and(|rest| rest == prev.as_line_end().as_bytes());
    if same {
        Ok(Placed {
            seq: line.seq,
            record,
            prev,
        })
    } else {
        Err(ReadError::NotCanonical)
    }
}

/// The line of a record that was read, without its newline: byte for byte the one that it was read from.
#[must_use]
pub fn line_of(seq: u64, record: &Record, mac: Mac) -> alloc::string::String {
    let mut line = body(seq, record);
    line.push_str(&mac.as_line_end());
    line
}

fn errno(text: &str) -> Option<Errno> {
    Errno::from_name(text).or_else(|| text.parse().ok().and_then(Errno::from_raw))
}
