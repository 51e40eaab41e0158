//! `nx sec audit`: what is there now.

use super::args::AuditArgs;
use super::held::Written;
use super::line::{self, Bad, say};
use super::{Ended, journal};
use crate::run::Exit;
use crate::sec::known;
use logd::{Filter, Problem, Unreadable};
use std::io::{BufWriter, Write};
use std::path::Path;

pub(super) fn list(args: &AuditArgs, directory: &Path) -> Result<u8, Ended> {
    let wanted = args.filter();
    // All are read, whatever is wanted: a hole is one between any two.
    let records = match logd::read(directory, Filter::default()) {
        Ok(records) => records,
        Err(error) if journal::is_absent(&error) => {
            journal::never_was()?;
            if let Some(subject) = &args.subject {
                known::without_record(subject)?;
            }
            if !args.json {
                say("nx: there is no journal yet: nothing ran here under nx as this user");
            }
            return Ok(0);
        }
        Err(error) => return Err(journal::unreadable(&error).into()),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut bad, mut found, mut torn) = (Bad::default(), 0_u64, None);
    let (mut holes, mut known) = (Holes::default(), args.subject.is_none());
    let mut written = Written::default();
    for entry in records {
        // Only the last line of all may be torn: somebody may be in the middle of writing it.
        if let Some(unreadable) = torn.take() {
            holes.unreadable();
            bad.one(&mut out, &unreadable, args.json)?;
        }
        match entry {
            Ok(entry) => {
                bad.good(args.json);
                if let Some(after) = holes.before(entry.seq) {
                    line::gap(&mut out, after, entry.seq, args.json)?;
                }
                written.count(&entry.record);
                known |= args.subject.as_deref() == Some(&*entry.record.subject);
                if wanted.wants(entry.seq, &entry.record) && args.wants(entry.record.reason) {
                    found = found.saturating_add(1);
                    line::write(&mut out, &entry, args.json)?;
                }
            }
            Err(
                unreadable @ Unreadable {
                    problem: Problem::Torn, ..
                },
            ) => torn = Some(unreadable),
            Err(unreadable) => {
                holes.unreadable();
                bad.one(&mut out, &unreadable, args.json)?;
            }
        }
    }
    let whole = bad.count == 0 && !holes.found;
    if whole && holes.first.is_none() && torn.is_none() {
        // Its directory alone says nothing.
        journal::never_was()?;
    }
    if whole && holes.first == Some(1) {
        written.tell(&mut out, args.subject.as_deref(), args.json)?;
    }
    out.flush()?;
    bad.end(args.json);
    if let (false, Some(subject)) = (known, &args.subject) {
        known::without_record(subject)?;
    }
    if !args.json {
        if let Some(Unreadable { file, line, .. }) = torn {
            say(&format!(
                "nx: `{file}` line {line} is half a line: it is being written, or its writer was killed and the next one mends it"
            ));
        }
        if bad.count > 0 {
            say(&format!(
                "nx: {} lines are no records, so this is not all; `nx sec audit --verify` names the first",
                bad.count
            ));
        } else if holes.found {
            say("nx: records are missing in between, so this is not all; `nx sec audit --verify` names the first");
        } else if found == 0 {
            say("nx: no record matches");
        }
        if let Some(first) = holes
            .first
            .filter(|first| *first > 1 && (found == 0 || args.asks_before(*first)))
        {
            say(&format!(
                "nx: the oldest record that is kept is {first}: those before it were rotated away or removed"
            ));
        }
    }
    Ok(if whole { 0 } else { Exit::Rejected.code() })
}

/// Where numbers are missing.
#[derive(Debug, Default)]
struct Holes {
    first: Option<u64>,
    last: Option<u64>,
    /// How many lines that are no records stand after the last one: each may be one.
    lines: u64,
    found: bool,
}

impl Holes {
    fn unreadable(&mut self) {
        self.lines = self.lines.saturating_add(1);
    }

    /// The number before this one, where it is not the one before it, and what stands in between does not account for it.
    fn before(&mut self, seq: u64) -> Option<u64> {
        self.first.get_or_insert(seq);
        let lines = std::mem::take(&mut self.lines);
        let last = self.last.replace(seq)?;
        // From the last to this one, as many steps as there are lines: at least one.
        if seq
            .checked_sub(last)
            .is_some_and(|steps| steps > 0 && steps.saturating_sub(1) <= lines)
        {
            return None;
        }
        self.found = true;
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_what_no_line_accounts_for_also_backwards() {
        let mut holes = Holes::default();
        let mut seen = |seq, lines| {
            (0..lines).for_each(|_| holes.unreadable());
            holes.before(seq)
        };
        assert_eq!(seen(7, 0), None, "what was rotated away is no hole");
        assert_eq!(seen(8, 0), None);
        assert_eq!(seen(10, 1), None, "the line that is none was it");
        assert_eq!(seen(12, 0), Some(10));
        assert_eq!(seen(15, 1), Some(12), "one line was not two records");
        assert_eq!(seen(15, 0), Some(15));
        assert_eq!(seen(3, 0), Some(15));
        assert_eq!(seen(u64::MAX, 0), Some(3));
        assert_eq!(seen(u64::MAX, 0), Some(u64::MAX));
    }
}
