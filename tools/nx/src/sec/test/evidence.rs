//! What a proof's session wrote down: its journal, whose chain must hold, and its counters.

use crate::run::Failure;
use nexus_audit::{Counter, Judgement, Record};
use nexus_sys::counters::SharedCounters;
use std::path::Path;
use std::sync::Arc;

/// What was written down of one session.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Its records in the journal's order, and whether a claim has been matched with each.
    records: Vec<(Record, bool)>,
    counters: [u64; Counter::ALL.len()],
    /// What is wrong with the journal itself.
    pub(super) flaw: Option<String>,
    /// The status that the program ended with, which its session passes on; `None` where a signal ended the session itself.
    pub(super) status: Option<i32>,
}

impl Evidence {
    pub(super) fn read(journal: &Path, subject: &str, session: &str) -> Result<Self, Failure> {
        let failed = |what: &str, error: &dyn std::error::Error| {
            Failure::internal(format!("the proof's {what} cannot be read: {error}"))
        };
        let mut flaw = logd::verify(journal, None)
            .err()
            .map(|error| format!("the chain does not hold: {error}"));
        let filter = logd::Filter {
            session: Some(Arc::from(session)),
            ..logd::Filter::default()
        };
        let mut records = Vec::new();
        for entry in logd::read(journal, filter).map_err(|error| failed("journal", &error))? {
            match entry {
                Ok(entry) => records.push((entry.record, false)),
                Err(unreadable) => {
                    flaw.get_or_insert_with(|| unreadable.to_string());
                }
            }
        }
        let counters = SharedCounters::open(&journal.join("counters")).map_err(|error| failed("counters", &error))?;
        let rows = counters.read_all().map_err(|error| failed("counters", &error))?;
        let row = rows.into_iter().find(|(name, _)| name == subject).map(|(_, row)| row);
        let row = row.unwrap_or_default();
        Ok(Self {
            records,
            counters: Counter::ALL.map(|counter| row.get(counter.index()).copied().unwrap_or_default()),
            flaw,
            status: None,
        })
    }

    /// As if this had been written down.
    #[cfg(test)]
    pub(super) fn of(records: Vec<Record>, steps: impl IntoIterator<Item = (Counter, u64)>) -> Self {
        let mut evidence = Self {
            records: records.into_iter().map(|record| (record, false)).collect(),
            ..Self::default()
        };
        for (counter, count) in steps {
            if let Some(slot) = evidence.counters.get_mut(counter.index()) {
                *slot = count;
            }
        }
        evidence
    }

    /// A counter at the end; it began at 0.
    pub(super) fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter.index()).copied().unwrap_or_default()
    }

    /// Takes the first record that fits and was not taken.
    pub(super) fn take(&mut self, fits: impl Fn(&Record) -> bool) -> Option<Record> {
        let found = self.records.iter_mut().find(|(record, taken)| !taken && fits(record));
        found.map(|(record, taken)| {
            *taken = true;
            record.clone()
        })
    }

    /// Denies and warnings that nothing explains.
    pub(super) fn rest(&self) -> impl Iterator<Item = &Record> {
        let rest = self.records.iter().filter(|(_, taken)| !taken);
        rest.map(|(record, _)| record)
            .filter(|record| record.verdict != Judgement::Note)
    }
}
