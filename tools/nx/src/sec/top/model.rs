//! What the view shows, as a value.

use logd::Entry;
use std::collections::{BTreeMap, VecDeque};
use vfsd::VfsdUsage;

/// How many of the last records are kept: more than any screen has lines.
pub(super) const RECORDS_KEPT: usize = 500;

/// How many troubles are told at once.
pub(super) const TROUBLES_TOLD: usize = 3;

/// What is known of a subject's usage.
#[derive(Clone, Debug)]
pub(super) enum Usage {
    /// By its file server's ledger.
    Known(VfsdUsage),
    /// Nobody said; with why.
    Unknown(String),
}

/// One subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject {
    /// How many of its sessions are seen to run.
    pub(super) sessions: usize,
    /// What is not as it should be with one of them, in a word.
    pub(super) wrong: Option<&'static str>,
    pub(super) usage: Option<Usage>,
    /// Quota, egress and syscall denies, all that ever were; `None` where nobody can say.
    pub(super) denies: Option<[u64; 3]>,
}

/// What is known of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Journal {
    /// It was not looked at yet, or is being read for the first time.
    #[default]
    Reading,
    /// Nothing was ever written, nor should have been.
    Absent,
    /// What is shown is what it has.
    Read,
    /// What is shown is not all, and why.
    Partly(String),
    /// Nobody can say what it has, and why.
    Unknown(String),
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// By the bytes of its name.
    pub(super) subjects: BTreeMap<String, Subject>,
    /// Oldest first.
    pub(super) records: VecDeque<Entry>,
    pub(super) journal: Journal,
    /// Whether nobody can say who runs.
    pub(super) sessions_unknown: bool,
    /// How many entries of sessions nothing certain can be said of.
    pub(super) in_doubt: usize,
    /// What else cannot be told, and why.
    pub(super) troubles: Vec<String>,
    /// How far the list of subjects is moved up.
    pub(super) scroll: usize,
}

impl Model {
    pub(super) fn record(&mut self, entry: Entry) {
        if self.records.len() >= RECORDS_KEPT {
            self.records.pop_front();
        }
        self.records.push_back(entry);
    }

    /// Whether something of it is not known, or not as it should be.
    pub(super) fn is_partial(&self) -> bool {
        let unknown_usage =
            |subject: &Subject| subject.denies.is_none() || matches!(subject.usage, Some(Usage::Unknown(_)));
        !self.troubles.is_empty()
            || matches!(self.journal, Journal::Partly(_) | Journal::Unknown(_))
            || self.subjects.values().any(unknown_usage)
    }

    /// How many of its sessions run. None is seen of it where nobody can say who runs, nor where an entry is in doubt, whose subject
    /// nobody vouches for either.
    pub(super) fn sessions_of(&self, subject: &Subject) -> Option<usize> {
        let in_doubt = subject.sessions == 0 && self.in_doubt > 0;
        (!self.sessions_unknown && !in_doubt).then_some(subject.sessions)
    }

    /// Those that run first, each by the bytes of its name.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&String, &Subject)> {
        let running = self.subjects.iter().filter(|(_, subject)| subject.sessions > 0);
        let others = self.subjects.iter().filter(|(_, subject)| subject.sessions == 0);
        running.chain(others)
    }

    pub(super) fn scroll_by(&mut self, lines: isize) {
        let last = self.subjects.len().saturating_sub(1);
        self.scroll = self.scroll.saturating_add_signed(lines).min(last);
    }
}
