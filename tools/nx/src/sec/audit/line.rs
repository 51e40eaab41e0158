//! A record as a reader gets it.

use crate::run::{json_line, plain};
use crate::sec::output::VERSION;
use logd::{Entry, Unreadable};
use nexus_audit::{Judgement, line_of};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, Write};

/// One record, one line: what is always there stands in columns, what a program chose comes last.
pub(super) fn text(entry: &Entry) -> String {
    let record = &entry.record;
    let name = |name: &str| if name.is_empty() { "-".to_owned() } else { plain(name) };
    let verdict = match record.verdict {
        Judgement::Deny(errno) => format!("deny {errno}"),
        other => other.as_str().to_owned(),
    };
    let mut line = format!(
        "{:>6} {} {:<10} {} {:<12} {:<22} {} {}",
        entry.seq,
        record.time,
        name(&record.subject),
        name(&record.session),
        verdict,
        record.reason.as_str(),
        record.op,
        plain(&record.object),
    );
    if let Some(at) = &record.at {
        let _ = write!(line, " ({})", plain(at));
    }
    if record.suppressed > 0 {
        let _ = write!(line, " +{} not written", record.suppressed);
    }
    line
}

/// The journal's own line, with what every answer has: `ok`, the version of the shape, and fields sorted by name.
fn json(entry: &Entry) -> io::Result<String> {
    let mut fields: Map<String, Value> = serde_json::from_str(&line_of(entry.seq, &entry.record, entry.mac))?;
    fields.insert("ok".to_owned(), true.into());
    fields.insert("version".to_owned(), VERSION.into());
    Ok(json_line(&Value::Object(fields)))
}

/// The record, as a person or a program wants it.
pub(super) fn write(out: &mut impl Write, entry: &Entry, as_json: bool) -> io::Result<()> {
    if as_json {
        writeln!(out, "{}", json(entry)?)
    } else {
        writeln!(out, "{}", text(entry))
    }
}

/// How many lines in a row that are no records are told of one by one; a journal of another version has nothing else.
const TOLD_MAX: u64 = 5;

/// Lines that are no records.
#[derive(Debug, Default)]
pub(super) struct Bad {
    pub(super) count: u64,
    in_a_row: u64,
}

impl Bad {
    /// After a record.
    pub(super) fn good(&mut self, as_json: bool) {
        self.end(as_json);
        self.in_a_row = 0;
    }

    /// At the end: what was not told.
    pub(super) fn end(&mut self, as_json: bool) {
        let untold = self.in_a_row.saturating_sub(TOLD_MAX);
        if untold > 0 && !as_json {
            say(&format!("nx: and {untold} more lines that are no records"));
        }
        self.in_a_row = 0;
    }

    /// One that is none.
    pub(super) fn one(&mut self, out: &mut impl Write, unreadable: &Unreadable, as_json: bool) -> io::Result<()> {
        self.count = self.count.saturating_add(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if as_json {
            let value = json!({
                "version": VERSION, "ok": false, "event": "unreadable", "file": &*unreadable.file, "line": unreadable.line,
                "problem": unreadable.problem.to_string(),
            });
            return writeln!(out, "{}", json_line(&value));
        }
        if self.in_a_row <= TOLD_MAX {
            say(&format!("nx: {unreadable}"));
        }
        Ok(())
    }
}

/// Between two records is a hole.
pub(super) fn gap(out: &mut impl Write, after: u64, next: u64, as_json: bool) -> io::Result<()> {
    if as_json {
        let value = json!({"version": VERSION, "ok": false, "event": "gap", "after": after, "next": next});
        return writeln!(out, "{}", json_line(&value));
    }
    out.flush()?;
    say(&format!(
        "nx: record {next} comes after record {after}: what is between them was rotated away before it was read, or is gone"
    ));
    Ok(())
}

/// Says it on stderr, for a person.
pub(super) fn say(text: &str) {
    // Who closed stderr does not want to know.
    let _ = writeln!(io::stderr(), "{}", plain(text));
}
