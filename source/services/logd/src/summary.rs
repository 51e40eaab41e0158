use nexus_abi::Reason;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most different denies that a session's summary tells apart; a reader looks at ten. Denies of others are counted
/// together.
pub const TOP_KEYS_MAX: usize = 256;

/// What a session's recorder saw and wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many denies, by reason, in the order of [`Reason::ALL`]. Exact.
    pub denies: Vec<(Reason, u64)>,
    /// How many warnings, by reason. Exact.
    pub warnings: Vec<(Reason, u64)>,
    /// How many requests that were told of went through. Exact.
    pub allows: u64,
    /// The most frequent denies, most frequent first; at most [`TOP_KEYS_MAX`].
    pub top: Vec<TopDeny>,
    /// Denies that are in none of `top`.
    pub other_denies: u64,
    /// How many records were written.
    pub written: u64,
    /// How many were held back by the rate limit, a full queue or a journal that failed; the journal tells of each of
    /// them as a number, unless it failed to the end.
    pub suppressed: u64,
    /// How many of those because the queue was full.
    pub queue_full: u64,
    /// How often the journal could not be written.
    pub journal_errors: u64,
    /// What it said first.
    pub first_journal_error: Option<String>,
    /// Steps that the shared counters could not take, because they have no room for another subject.
    pub uncounted: u64,
}

/// One kind of deny and how often there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopDeny {
    /// Why.
    pub reason: Reason,
    /// By which rule.
    pub rule: Option<Arc<str>>,
    /// Where that rule stands.
    pub at: Option<Arc<str>>,
    /// What was asked for.
    pub object: Arc<str>,
    /// How often.
    pub count: u64,
}

/// A deny's kind.
type Key = (Reason, Option<Arc<str>>, Arc<str>);

/// Counts as events come.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    denies: BTreeMap<Reason, u64>,
    warnings: BTreeMap<Reason, u64>,
    pub(crate) allows: u64,
    top: BTreeMap<Key, (u64, Option<Arc<str>>)>,
    other_denies: u64,
    pub(crate) suppressed: u64,
    pub(crate) queue_full: u64,
    pub(crate) uncounted: u64,
}

impl Tally {
    pub(crate) fn deny(&mut self, reason: Reason, rule: Option<&Arc<str>>, at: Option<&Arc<str>>, object: &Arc<str>) {
        step(self.denies.entry(reason).or_default());
        let key = (reason, rule.cloned(), Arc::clone(object));
        if let Some((count, _)) = self.top.get_mut(&key) {
            step(count);
        } else if self.top.len() < TOP_KEYS_MAX {
            self.top.insert(key, (1, at.cloned()));
        } else {
            step(&mut self.other_denies);
        }
    }

    pub(crate) fn warn(&mut self, reason: Reason) {
        step(self.warnings.entry(reason).or_default());
    }

    /// The summary of what was tallied; what the writer knows is its to fill in.
    pub(crate) fn summary(&self) -> Summary {
        let mut top: Vec<TopDeny> = Vec::with_capacity(self.top.len());
        for ((reason, rule, object), (count, at)) in &self.top {
            let (rule, object) = (rule.clone(), Arc::clone(object));
            top.push(TopDeny {
                reason: *reason,
                rule,
                at: at.clone(),
                object,
                count: *count,
            });
        }
        // Stable: those that are equally frequent stay in the order of their names.
        top.sort_by_key(|deny| std::cmp::Reverse(deny.count));
        Summary {
            denies: self.denies.iter().map(|(reason, count)| (*reason, *count)).collect(),
            warnings: self.warnings.iter().map(|(reason, count)| (*reason, *count)).collect(),
            allows: self.allows,
            top,
            other_denies: self.other_denies,
            suppressed: self.suppressed,
            queue_full: self.queue_full,
            uncounted: self.uncounted,
            ..Summary::default()
        }
    }
}

pub(crate) fn step(count: &mut u64) {
    *count = count.saturating_add(1);
}
