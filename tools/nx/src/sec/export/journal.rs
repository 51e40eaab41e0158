//! The journal's tail, and the proof of its chain.

use super::journal_of;
use super::scrub::Scrub;
use crate::run::Places;
use crate::sec::audit::{broken_json, holds_json};
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
        Err(error) if journal_of::is_absent(&error) => return json!({"there_is": false}),
        Err(error) => return json!({"unknown": scrub.text(&journal_of::whole(&error))}),
    };
    let mut tail = Tail::default();
    let mut unreadable = 0_u64;
    let mut half_a_line = false;
    for entry in records.by_ref() {
        match entry {
            Ok(entry) => tail.push(record(&entry, objects)),
            Err(Unreadable {
                problem: Problem::Torn, ..
            }) => half_a_line = true,
            Err(_) => unreadable = unreadable.saturating_add(1),
        }
    }
    let chain = match logd::verify(&directory, None) {
        Ok(report) => holds_json(&report),
        Err(error) => broken_json(&error),
    };
    json!({
        "there_is": true,
        "chain": chain,
        "records": tail.records.iter().map(|(value, _)| value).collect::<Vec<_>>(),
        "earlier_records_left_out": tail.left_out,
        "lines_that_are_no_records": unreadable,
        "half_a_line": half_a_line,
        "objects": if objects { "as they stand in the journal" } else { "only addresses, calls' names and areas" },
    })
}

/// The last records within both bounds.
#[derive(Default)]
struct Tail {
    records: VecDeque<(Value, usize)>,
    bytes: usize,
    left_out: u64,
}

impl Tail {
    fn push(&mut self, value: Value) {
        let length = value.to_string().len();
        self.bytes = self.bytes.saturating_add(length);
        self.records.push_back((value, length));
        while self.records.len() > RECORDS_MAX || self.bytes > TAIL_BYTES_MAX {
            let Some((_, gone)) = self.records.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(gone);
            self.left_out = self.left_out.saturating_add(1);
        }
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
            tail.push(json!(n));
        }
        assert_eq!((tail.records.len(), tail.left_out), (RECORDS_MAX, 500));
        assert_eq!(tail.records[0].0, json!(500));
        for _ in 0..10 {
            tail.push(json!("x".repeat(TAIL_BYTES_MAX / 4)));
        }
        assert!(tail.bytes <= TAIL_BYTES_MAX && tail.records.len() < 5);
    }
}
