//! Denies that were counted and are not written: of a flood the journal has the first, and at the session's end how many more there were.

use super::line::say;
use crate::run::{json_line, plain};
use crate::sec::counters;
use crate::sec::output::VERSION;
use nexus_abi::Reason;
use nexus_audit::{Counter, Record};
use nexus_sys::counters::CounterRow;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// How many denies of each subject the journal accounts for, of those that are counted.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<String, u64>);

impl Written {
    pub(super) fn count(&mut self, record: &Record) {
        let denies = if Counter::of_record(record.verdict, record.reason).is_some() {
            record.suppressed.saturating_add(1)
        } else if record.reason == Reason::JournalSuppressed {
            record.suppressed
        } else {
            return;
        };
        let subject = &*record.subject;
        let written = match self.0.get_mut(subject) {
            Some(written) => written,
            None => self.0.entry(subject.to_owned()).or_default(),
        };
        *written = written.saturating_add(denies);
    }

    /// How many more are counted, of each subject of which some are.
    fn more(&self, rows: &[CounterRow]) -> Vec<(String, u64)> {
        let denies = |row: &CounterRow| {
            let all = Counter::ALL
                .into_iter()
                .filter(|counter| *counter != Counter::EgressAllows);
            let count = |counter: Counter| row.1.get(counter.index()).copied().unwrap_or(0);
            all.fold(0, |sum: u64, counter| sum.saturating_add(count(counter)))
        };
        let more = rows.iter().map(|row| {
            let written = self.0.get(&row.0).copied().unwrap_or(0);
            (row.0.clone(), denies(row).saturating_sub(written))
        });
        more.filter(|(_, more)| *more > 0).collect()
    }

    /// Tells of them; of a journal from its first record on, since what was rotated away is not written any more either. To be called after the
    /// journal was read: what is written down is counted by then.
    pub(super) fn tell(&self, out: &mut impl Write, subject: Option<&str>, as_json: bool) -> io::Result<()> {
        // Counters that cannot be read are told of by `nx sec counters`; the records are what they are.
        let Ok(rows) = counters::all() else { return Ok(()) };
        for (name, more) in self.more(&rows) {
            if subject.is_some_and(|subject| subject != name) {
                continue;
            }
            if as_json {
                let value = json!({
                    "version": VERSION, "ok": true, "event": "not_written", "subject": name, "count": more,
                });
                writeln!(out, "{}", json_line(&value))?;
            } else {
                out.flush()?;
                say(&format!(
                    "nx: {more} more denies of `{}` are counted and not in the journal: of a flood the first are written, and how many more \
                     there were when its session ends, if it is not killed; `nx sec counters` has all",
                    plain(&name)
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_and_not_written_is_told_and_what_was_allowed_is_not() {
        let written = Written(BTreeMap::from([("demo".to_owned(), 3), ("other".to_owned(), 5)]));
        let row = |name: &str, abi, denies, allows| {
            let mut row: CounterRow = (name.to_owned(), [0; _]);
            row.1[Counter::AbiDenies.index()] = abi;
            row.1[Counter::EgressDenies.index()] = denies;
            row.1[Counter::EgressAllows.index()] = allows;
            row
        };
        let rows = [row("demo", 1, 2, 9), row("other", 0, 7, 0), row("third", 4, 0, 0)];
        assert_eq!(written.more(&rows), [("other".to_owned(), 2), ("third".to_owned(), 4)]);
    }
}
