//! The journal's tail, and the proof of its chain.

use super::journal_of;
use super::scrub::Scrub;
use crate::run::Places;
use crate::sec::audit::{broken_json, holds_json};
use crate::sec::output::VERSION;
use logd::{Entry, Filter, Problem, Unreadable};
use nexus_abi::{Area, Operation};
use nexus_audit::{Judgement, line_of};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// How many records are in it: more than a reader reads, and what came last is what is asked about.
const RECORDS_MAX: usize = 1000;

/// The longest tail, in bytes: a thousand ordinary records, or some hundred of the longest.
const TAIL_BYTES_MAX: usize = 2 << 20;

pub(super) fn journal(places: &Places, scrub: &Scrub, objects: bool) -> Value {
    let directory = places.journal();
    let mut records = match logd::read(&directory, Filter::default()) {
        Ok(records) => records,
        Err(error) if journal_of::is_absent(&error) => {
            return match journal_of::never_was() {
                Ok(()) => json!({"there_is": false}),
                Err(removed) => json!({"unknown": scrub.text(&removed.message)}),
            };
        }
        Err(error) => return json!({"unknown": scrub.text(&journal_of::whole(&error))}),
    };
    let mut tail = Tail::default();
    let mut unreadable = 0_u64;
    let mut half_a_line = false;
    for entry in records.by_ref() {
        match entry {
            Ok(entry) => tail.push(entry),
            Err(Unreadable {
                problem: Problem::Torn, ..
            }) => half_a_line = true,
            Err(_) => unreadable = unreadable.saturating_add(1),
        }
    }
    let (records, left_out) = tail.values(|entry| record(entry, objects));
    let chain = match logd::verify(&directory, None) {
        // A key without a journal: what it held is gone, and nothing holds.
        Ok(report) if report.files == 0 => {
            json!({"version": VERSION, "ok": false, "why": "the journal's files are gone, though its key is there"})
        }
        Ok(report) => holds_json(&report),
        Err(error) => broken_json(&error),
    };
    json!({
        "there_is": true,
        "chain": chain,
        "records": records,
        "earlier_records_left_out": left_out,
        "lines_that_are_no_records": unreadable,
        "half_a_line": half_a_line,
        "objects": if objects { "as they stand in the journal" } else { "only addresses, calls' names and areas" },
    })
}

/// The last entries: a journal of a million is read through, and no more of them are held, or made into anything, than are told.
struct Tail<T> {
    entries: VecDeque<T>,
    left_out: u64,
}

impl<T> Default for Tail<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::with_capacity(RECORDS_MAX),
            left_out: 0,
        }
    }
}

impl<T> Tail<T> {
    fn push(&mut self, entry: T) {
        if self.entries.len() >= RECORDS_MAX {
            self.entries.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
        self.entries.push_back(entry);
    }

    /// As many of the last as are within both bounds, oldest first, and how many came before.
    fn values(self, value: impl Fn(&T) -> Value) -> (Vec<Value>, u64) {
        let mut out = VecDeque::new();
        let (mut bytes, mut left_out) = (0_usize, self.left_out);
        let mut entries = self.entries.iter().rev();
        for entry in entries.by_ref() {
            let value = value(entry);
            bytes = bytes.saturating_add(value.to_string().len());
            if bytes > TAIL_BYTES_MAX {
                left_out = left_out.saturating_add(1);
                break;
            }
            out.push_front(value);
        }
        left_out = left_out.saturating_add(entries.count() as u64);
        (out.into(), left_out)
    }
}

/// A record with its chain value. Without its object's names it is not the line that the value was made of: that it held
/// is said by `chain`, which was seen here.
fn record(entry: &Entry, objects: bool) -> Value {
    if objects {
        // The line itself: who has the key can check it.
        return Value::String(line_of(entry.seq, &entry.record, entry.mac));
    }
    let record = &entry.record;
    let errno = match record.verdict {
        Judgement::Deny(errno) => Some(errno.to_string()),
        _ => None,
    };
    json!({
        "seq": entry.seq, "time": record.time.to_string(), "mono_ns": record.mono_ns, "subject": &*record.subject,
        "session": &*record.session, "op": record.op.as_str(), "object": object(record.op, &record.object),
        "verdict": record.verdict.as_str(), "reason": record.reason.as_str(), "errno": errno, "rule": record.rule.as_deref(),
        "at": record.at.as_deref(), "policy": &*record.policy, "suppressed": record.suppressed,
        "prev": entry.mac.to_string(),
    })
}

/// What of an object no program can have put a secret into: an address and port, the name of a call that there is, an area,
/// and what the journal says of itself. `None` for everything else.
fn object(op: Operation, text: &str) -> Option<String> {
    let first = text.split(' ').next()?;
    match op {
        Operation::Journal => Some(text.to_owned()),
        Operation::Connect | Operation::Send | Operation::Bind => {
            let (protocol, address) = text.split_once(' ')?;
            let known = matches!(protocol, "tcp" | "udp");
            (known && address.parse::<SocketAddr>().is_ok()).then(|| text.to_owned())
        }
        Operation::Write | Operation::Create | Operation::Open => Area::ALL
            .into_iter()
            .find(|area| area.as_str() == first)
            .map(|area| area.to_string()),
        _ => {
            let name = text.split('(').next()?;
            nexus_abi::syscall::by_name(name).map(|_| name.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_object_stays_what_cannot_hold_a_secret_and_nothing_beside_it() {
        let same = |op, text: &str| assert_eq!(object(op, text).as_deref(), Some(text));
        same(Operation::Connect, "tcp 192.0.2.1:443");
        same(Operation::Send, "udp [2001:db8::1]:53");
        same(Operation::Journal, "after 7 ab");
        assert_eq!(object(Operation::Connect, "unix /tmp/hunter2"), None);
        assert_eq!(object(Operation::Connect, "tcp hunter2:443"), None);
        assert_eq!(object(Operation::Resolve, "hunter2.example"), None);
        assert_eq!(
            object(Operation::Write, "tmp hunter2 4096 bytes").as_deref(),
            Some("tmp")
        );
        assert_eq!(object(Operation::Write, "hunter2 tmp"), None);
        assert_eq!(
            object(Operation::Syscall, "mount(…, \"hunter2\")").as_deref(),
            Some("mount")
        );
        assert_eq!(object(Operation::Syscall, "hunter2()"), None);
    }

    #[test]
    fn the_tail_keeps_the_last_within_both_bounds_and_counts_the_rest() {
        let mut tail = Tail::default();
        for n in 0..1500 {
            tail.push(n);
        }
        let (values, left_out) = tail.values(|n| json!(n));
        assert_eq!((values.len(), left_out, &values[0]), (RECORDS_MAX, 500, &json!(500)));
        let mut tail = Tail::default();
        for n in 0..10 {
            tail.push(n);
        }
        let (values, left_out) = tail.values(|n| json!([n, "x".repeat(TAIL_BYTES_MAX / 4)]));
        let numbers: Vec<_> = values.iter().map(|value| value[0].clone()).collect();
        assert_eq!((numbers, left_out), (vec![json!(7), json!(8), json!(9)], 7));
    }
}
