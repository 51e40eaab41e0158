use crate::text::{AT_BYTES_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX, POLICY_BYTES_MAX, RULE_BYTES_MAX, clip};
use crate::time::UnixMillis;
use alloc::sync::Arc;
use nexus_abi::{Errno, Operation, Reason};

/// The version of the record's shape, its `v`.
pub const RECORD_VERSION: u32 = 1;

/// The longest line, in bytes, with its newline. Every text at its bound and every character of it an escape (six bytes
/// for one) make 6144; the rest is numbers, names and the chain.
pub const LINE_BYTES_MAX: usize = 8192;

/// What a record says of what it records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judgement {
    /// It was refused with this errno.
    Deny(Errno),
    /// It went through, and somebody should know.
    Warn,
    /// It is about the journal itself.
    Note,
}

impl Judgement {
    /// The stable text, the record's `verdict`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny(_) => "deny",
            Self::Warn => "warn",
            Self::Note => "note",
        }
    }
}

/// One line of the journal, but for its place in it: sequence number and chain are the journal's.
///
/// Texts have the bounds named in this crate; [`Record::bounded`] cuts longer ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, by the monotonic clock of this boot, in nanoseconds.
    pub mono_ns: u64,
    /// When, for the reader.
    pub time: UnixMillis,
    /// Whose program.
    pub subject: Arc<str>,
    /// Which running one of it.
    pub session: Arc<str>,
    /// What it asked for.
    pub op: Operation,
    /// Of what: a destination, a path's last part, a syscall with its arguments. Text that a program may have chosen.
    pub object: Arc<str>,
    /// What was said to it.
    pub verdict: Judgement,
    /// Why.
    pub reason: Reason,
    /// The stable id of the rule that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// The rule's `file:line`, for the reader.
    pub at: Option<Arc<str>>,
    /// The version of the policy that judged, in hex.
    pub policy: Arc<str>,
    /// How many records of the same subject and reason came before this one and were not written.
    pub suppressed: u64,
}

impl Record {
    /// The record with every text cut to its bound.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        bound(&mut self.subject, NAME_BYTES_MAX);
        bound(&mut self.session, NAME_BYTES_MAX);
        bound(&mut self.object, OBJECT_BYTES_MAX);
        bound(&mut self.policy, POLICY_BYTES_MAX);
        if let Some(rule) = &mut self.rule {
            bound(rule, RULE_BYTES_MAX);
        }
        if let Some(at) = &mut self.at {
            bound(at, AT_BYTES_MAX);
        }
        self
    }
}

fn bound(text: &mut Arc<str>, bytes_max: usize) {
    if text.len() > bytes_max {
        *text = Arc::from(clip(text, bytes_max));
    }
}
