use nexus_audit::Record;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Somebody who wants to see each record as it is admitted, written or not: `--watch`, or a test.
///
/// Called by the writer's thread, one record after the other; a slow one delays the journal: one that may wait for somebody hands
/// the record on and returns.
pub trait Sink: Send {
    /// A record that the rate limit let through.
    fn admitted(&mut self, record: &Record);
}

impl<F: FnMut(&Record) + Send> Sink for F {
    fn admitted(&mut self, record: &Record) {
        self(record);
    }
}

/// Keeps the newest records, up to a bound, and counts the others.
#[derive(Clone, Debug)]
pub struct BoundedSink {
    records_max: usize,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Record>,
    dropped: u64,
}

impl BoundedSink {
    /// A sink for `records_max` records. Its clones are the same sink.
    #[must_use]
    pub fn new(records_max: usize) -> Self {
        Self {
            records_max,
            kept: Arc::default(),
        }
    }

    /// Takes out what it holds, oldest first, and how many were dropped before.
    #[must_use]
    pub fn take(&self) -> (Vec<Record>, u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = std::mem::take(&mut kept.dropped);
        (std::mem::take(&mut kept.records).into(), dropped)
    }
}

impl Sink for BoundedSink {
    fn admitted(&mut self, record: &Record) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.records.len() >= self.records_max {
            if kept.records.pop_front().is_none() {
                kept.dropped = kept.dropped.saturating_add(1);
                return;
            }
            kept.dropped = kept.dropped.saturating_add(1);
        }
        kept.records.push_back(record.clone());
    }
}
