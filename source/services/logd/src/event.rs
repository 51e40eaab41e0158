use nexus_abi::{Errno, Operation, Reason, Verdict};
use std::sync::Arc;

/// What was said to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went through: counted where that is counted, never recorded.
    Allow,
    /// It was refused: counted and recorded.
    Deny {
        /// Why.
        reason: Reason,
        /// What the program was told.
        errno: Errno,
    },
    /// It went through and is recorded, such as a soft limit that was crossed.
    Warn {
        /// Why.
        reason: Reason,
    },
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow { .. } => Self::Allow,
            Verdict::Deny { reason, errno, .. } => Self::Deny { reason, errno },
        }
    }
}

/// One judgement, as those who judge tell it to the recorder. Longer texts than a record holds are cut.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whose program.
    pub subject: Arc<str>,
    /// Which running one of it.
    pub session: Arc<str>,
    /// What it asked for.
    pub op: Operation,
    /// Of what; text that a program may have chosen ([`nexus_audit::object_text`] makes it of bytes).
    pub object: String,
    /// What was said to it.
    pub outcome: Outcome,
    /// The stable id of the rule that decided.
    pub rule: Option<Arc<str>>,
    /// That rule's `file:line`.
    pub at: Option<Arc<str>>,
    /// The policy version that judged, in hex.
    pub policy: Arc<str>,
}
