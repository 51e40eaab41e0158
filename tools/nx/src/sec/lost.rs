//! Whether counters were lost: of each deny that is written down, a counter was stepped before.

use logd::{Filter, JournalError};
use nexus_audit::{Counter, Record};
use nexus_sys::counters::CounterRow;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// By subject, how many denies the journal has, in the order of [`Counter::ALL`].
pub(super) type Recorded = BTreeMap<String, [u64; Counter::ALL.len()]>;

/// Counts what the journal has. What is no record counts as nothing: more was counted than this, never less. To be read before
/// the counters are, which go on meanwhile.
///
/// # Errors
/// The journal cannot be read.
pub(super) fn recorded(journal: &Path) -> Result<Recorded, JournalError> {
    let mut all = Recorded::new();
    for entry in logd::read(journal, Filter::default())?.flatten() {
        add(&mut all, &entry.record);
    }
    Ok(all)
}

/// Counts one more record.
pub(super) fn add(all: &mut Recorded, record: &Record) {
    let Some(counter) = Counter::of_record(record.verdict, record.reason) else {
        return;
    };
    if !all.contains_key(&*record.subject) {
        all.insert(record.subject.to_string(), [0; _]);
    }
    if let Some(count) = all
        .get_mut(&*record.subject)
        .and_then(|row| row.get_mut(counter.index()))
    {
        // Those that were held back before it were counted too.
        *count = count.saturating_add(record.suppressed).saturating_add(1);
    }
}

/// A counter that says less than the journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) subject: String,
    counter: Counter,
    counted: Option<u64>,
    recorded: u64,
}

/// Which counters say less than the journal, by subject.
pub(super) fn lost(rows: &[CounterRow], recorded: &Recorded) -> Vec<Lost> {
    let mut out = Vec::new();
    for (subject, values) in recorded {
        let row = rows.iter().find(|(name, _)| name == subject).map(|(_, row)| row);
        for counter in Counter::ALL {
            let at = counter.index();
            let recorded = values.get(at).copied().unwrap_or(0);
            let counted = row.map(|row| row.get(at).copied().unwrap_or(0));
            if counted.unwrap_or(0) < recorded {
                out.push(Lost {
                    subject: subject.clone(),
                    counter,
                    counted,
                    recorded,
                });
            }
        }
    }
    out
}

impl Lost {
    /// In words, of a name that may hold anything.
    pub(super) fn text(&self) -> String {
        let counted = self.counted.map_or_else(
            || "has none of the subject".to_owned(),
            |counted| format!("says {counted}"),
        );
        format!(
            "`{}` {}: unknown: the journal has {} and the counter file {counted}: it was removed or emptied, or steps were lost \
             in a power cut",
            self.subject,
            self.counter.name(),
            self.recorded,
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "subject": self.subject, "counter": self.counter.name(), "counted": self.counted, "recorded": self.recorded,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_says_less_than_the_journal_is_lost_and_one_that_says_as_much_is_not() {
        let mut rows: Vec<CounterRow> = vec![("demo".to_owned(), [0; _])];
        let recorded = Recorded::from([("demo".to_owned(), [2, 0, 0, 0]), ("other".to_owned(), [0, 0, 0, 1])]);
        rows[0].1[0] = 2;
        let found = lost(&rows, &recorded);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].text().contains("`other`") && found[0].text().contains("has none of the subject"));
        rows[0].1[0] = 1;
        let found = lost(&rows, &recorded);
        assert!(
            found[0]
                .text()
                .contains("the journal has 2 and the counter file says 1"),
            "{found:?}"
        );
        assert_eq!(lost(&rows, &Recorded::new()), []);
    }
}
