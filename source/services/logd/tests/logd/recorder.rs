//! What a session tells, and what comes of it.

use crate::support::{Place, SMALL, clock};
use logd::{BoundedSink, Event, Handle, JournalLimits, Outcome, Recorder, Settings, Sink, TOP_KEYS_MAX, verify};
use nexus_abi::{Errno, Operation, Reason, RuleRef, Verdict};
use nexus_audit::{Counter, Judgement, RateLimit, Record};
use nexus_sys::counters::SharedCounters;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

const UNLIMITED: RateLimit = RateLimit {
    burst: 1,
    interval_ns: 0,
};

fn start(place: &Place, rate: RateLimit, sink: Option<Box<dyn Sink>>) -> (Recorder, Arc<SharedCounters>) {
    start_with(place, SMALL, rate, sink)
}

fn start_with(
    place: &Place,
    limits: JournalLimits,
    rate: RateLimit,
    sink: Option<Box<dyn Sink>>,
) -> (Recorder, Arc<SharedCounters>) {
    let journal = place.open_with(limits);
    let counters = Arc::new(SharedCounters::open(&place.beside("counters")).unwrap());
    let settings = Settings {
        subject: Arc::from("demo"),
        rate,
    };
    (
        Recorder::start(settings, journal, Arc::clone(&counters), clock(), sink).unwrap(),
        counters,
    )
}

fn event(outcome: Outcome, object: &str) -> Event {
    Event {
        subject: Arc::from("demo"),
        session: Arc::from("demo-7"),
        op: Operation::Connect,
        object: object.to_owned(),
        outcome,
        rule: None,
        at: None,
        policy: Arc::from("ab12"),
    }
}

fn deny(reason: Reason) -> Outcome {
    Outcome::Deny {
        reason,
        errno: Errno::EPERM,
    }
}

fn count(counters: &SharedCounters, counter: Counter) -> u64 {
    counters.slot("demo").unwrap().get(counter.index())
}

/// Every deny of a journal: those that are there and those that are told of.
fn accounted(records: &[Record]) -> u64 {
    let one = |record: &Record| match record.verdict {
        Judgement::Deny(_) => record.suppressed + 1,
        _ if record.reason == Reason::JournalSuppressed => record.suppressed,
        _ => 0,
    };
    records.iter().map(one).sum()
}

#[test]
fn a_deny_is_counted_recorded_shown_and_summed_up_and_an_allow_only_counted() {
    let place = Place::new();
    let seen = BoundedSink::new(10);
    let (recorder, counters) = start(&place, RateLimit::DEFAULT, Some(Box::new(seen.clone())));
    let handle = recorder.handle();
    let verdict = Verdict::Deny {
        reason: Reason::EgressDenyRule,
        errno: Errno::EPERM,
        rule: Some(RuleRef(3)),
    };
    let (rule, at): (Arc<str>, Arc<str>) = (Arc::from("egress/demo/3"), Arc::from("egress.toml:14"));
    let denied = Event {
        rule: Some(Arc::clone(&rule)),
        at: Some(Arc::clone(&at)),
        ..event(verdict.into(), "tcp 203.0.113.7:443")
    };
    handle.record(denied.clone());
    assert_eq!(
        count(&counters, Counter::EgressDenies),
        1,
        "at once, whatever the journal does"
    );
    handle.record(denied);
    handle.record(event(Verdict::Allow { rule: None }.into(), "tcp 198.51.100.1:443"));
    handle.record(event(
        Outcome::Warn {
            reason: Reason::QuotaSoftBytes,
        },
        "tmp",
    ));
    let summary = recorder.finish();

    assert_eq!(count(&counters, Counter::EgressDenies), 2);
    assert_eq!(count(&counters, Counter::EgressAllows), 1);
    assert_eq!(count(&counters, Counter::QuotaDenies), 0, "a warning is no deny");
    let records = place.records();
    assert_eq!(records.len(), 4);
    let written = &records[1];
    assert_eq!(
        (written.verdict, written.reason),
        (Judgement::Deny(Errno::EPERM), Reason::EgressDenyRule)
    );
    assert_eq!((written.rule.clone(), written.at.clone()), (Some(rule), Some(at)));
    assert_eq!(records[3].verdict, Judgement::Warn);
    assert_eq!(seen.take(), (records[1..].to_vec(), 0));
    assert_eq!(summary.denies, [(Reason::EgressDenyRule, 2)]);
    assert_eq!(summary.warnings, [(Reason::QuotaSoftBytes, 1)]);
    assert_eq!(
        (
            summary.allows,
            summary.written,
            summary.suppressed,
            summary.journal_errors
        ),
        (1, 3, 0, 0)
    );
    assert_eq!(
        (summary.top[0].count, &*summary.top[0].object),
        (2, "tcp 203.0.113.7:443")
    );
    assert_eq!(summary.top[0].at.as_deref(), Some("egress.toml:14"));
    verify(&place.path(), None).unwrap();
}

#[test]
fn a_million_denies_cost_bounded_disk_and_leave_the_counters_exact() {
    let place = Place::new();
    let (recorder, counters) = start(&place, RateLimit::DEFAULT, None);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let handle = recorder.handle();
            scope.spawn(move || {
                let reason = if thread % 2 == 0 {
                    Reason::AbiNoRule
                } else {
                    Reason::EgressNoRule
                };
                for n in 0..250_000 {
                    handle.record(event(
                        deny(reason),
                        if n % 1000 == 0 { "now and then" } else { "often" },
                    ));
                }
            });
        }
    });
    let summary = recorder.finish();
    assert_eq!(count(&counters, Counter::AbiDenies), 500_000);
    assert_eq!(count(&counters, Counter::EgressDenies), 500_000);
    assert_eq!(
        summary.denies,
        [(Reason::AbiNoRule, 500_000), (Reason::EgressNoRule, 500_000)]
    );
    assert_eq!(
        summary.top.iter().map(|deny| deny.count).collect::<Vec<_>>(),
        [499_500, 499_500, 500, 500]
    );
    assert_eq!(summary.written + summary.suppressed, 1_000_000);
    assert!(place.bytes() <= SMALL.file_bytes_max * u64::from(SMALL.files_max));
    assert_eq!(accounted(&place.records()), 1_000_000);
    verify(&place.path(), None).unwrap();
}

#[test]
fn a_flood_without_a_rate_limit_is_bounded_by_rotation_and_by_the_queue() {
    let place = Place::new();
    let (recorder, counters) = start(&place, UNLIMITED, None);
    let handle = recorder.handle();
    for n in 0..100_000 {
        handle.record(event(
            deny(Reason::EgressNoRule),
            &format!("tcp 203.0.113.7:{}", n % 65_536),
        ));
    }
    let summary = recorder.finish();
    assert_eq!(count(&counters, Counter::EgressDenies), 100_000);
    assert_eq!(summary.written + summary.suppressed, 100_000);
    assert_eq!(summary.suppressed, summary.queue_full);
    assert_eq!(summary.top.len(), TOP_KEYS_MAX);
    assert_eq!(
        summary.top.iter().map(|deny| deny.count).sum::<u64>() + summary.other_denies,
        100_000
    );
    assert!(place.bytes() <= SMALL.file_bytes_max * u64::from(SMALL.files_max));
    verify(&place.path(), None).unwrap();
}

/// Holds the writer until the other end says otherwise.
struct Gate(Receiver<()>);

impl Sink for Gate {
    fn admitted(&mut self, _: &Record) {
        let _ = self.0.recv();
    }
}

#[test]
fn a_writer_that_hangs_holds_up_nobody_and_what_did_not_fit_is_told_of() {
    let place = Place::new();
    let (open, gate) = sync_channel::<()>(0);
    let (recorder, counters) = start_with(&place, JournalLimits::DEFAULT, UNLIMITED, Some(Box::new(Gate(gate))));
    let handle = recorder.handle();
    for _ in 0..5000 {
        handle.record(event(deny(Reason::EgressNoRule), "x"));
    }
    // All were taken while the writer could write none.
    assert_eq!(count(&counters, Counter::EgressDenies), 5000);
    drop(open);
    let summary = recorder.finish();
    assert!(summary.queue_full >= 5000 - 1024 - 128 - 1, "{summary:?}");
    assert_eq!(summary.written + summary.queue_full, 5000);
    assert_eq!(accounted(&place.records()), 5000);
}

#[test]
fn a_journal_that_cannot_be_written_is_seen_at_once_and_told_at_the_end() {
    let place = Place::new();
    let (seen, done) = sync_channel(100);
    let sink = move |record: &Record| drop(seen.send(record.object.to_string()));
    let (recorder, counters) = start(&place, UNLIMITED, Some(Box::new(sink)));
    let handle = recorder.handle();
    // In the file's place stands a directory: nothing can be written any more.
    std::fs::rename(place.file("journal.jsonl"), place.beside("kept")).unwrap();
    std::fs::create_dir(place.file("journal.jsonl")).unwrap();
    handle.record(event(deny(Reason::EgressNoRule), "lost"));
    assert_eq!(done.recv().unwrap(), "lost");
    wait_until(|| handle.journal_failing());
    std::fs::remove_dir(place.file("journal.jsonl")).unwrap();
    std::fs::rename(place.beside("kept"), place.file("journal.jsonl")).unwrap();
    handle.record(event(deny(Reason::EgressNoRule), "written"));
    assert_eq!(done.recv().unwrap(), "written");
    wait_until(|| !handle.journal_failing());
    let summary = recorder.finish();
    assert_eq!((summary.written, summary.suppressed, summary.journal_errors), (1, 1, 1));
    assert!(
        summary
            .first_journal_error
            .as_deref()
            .is_some_and(|error| error.contains("journal.jsonl")),
        "{summary:?}"
    );
    assert_eq!(count(&counters, Counter::EgressDenies), 2);
    let records = place.records();
    assert_eq!(
        (&*records[1].object, records[1].suppressed),
        ("written", 1),
        "the next record tells of the lost one"
    );
}

/// Asks until it is so; a test that never sees it hangs and is not told otherwise by a clock.
fn wait_until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_told_after_the_end_is_counted_and_not_recorded() {
    let place = Place::new();
    let (recorder, counters) = start(&place, UNLIMITED, None);
    let handle: Handle = recorder.handle();
    drop(recorder);
    handle.record(event(deny(Reason::EgressNoRule), "late"));
    assert_eq!(count(&counters, Counter::EgressDenies), 1);
    assert_eq!(place.records().len(), 1);
}

#[test]
fn sessions_of_one_subject_sum_their_counters_and_share_the_journal() {
    let place = Place::new();
    let (a, counters) = start(&place, UNLIMITED, None);
    let (b, _) = start(&place, UNLIMITED, None);
    for _ in 0..50 {
        a.handle().record(event(deny(Reason::AbiNoRule), "a"));
        b.handle().record(event(deny(Reason::AbiNoRule), "b"));
    }
    let (a, b) = (a.finish(), b.finish());
    assert_eq!((a.written, b.written), (50, 50));
    assert_eq!(count(&counters, Counter::AbiDenies), 100);
    assert_eq!(accounted(&place.records()), 100);
    verify(&place.path(), None).unwrap();
}

#[test]
fn a_bounded_sink_keeps_the_newest_and_counts_the_rest() {
    let mut sink = BoundedSink::new(2);
    for object in ["a", "b", "c"] {
        sink.admitted(&crate::support::record(object));
    }
    let (records, dropped) = sink.take();
    assert_eq!((records.len(), &*records[0].object, dropped), (2, "b", 1));
    let mut none = BoundedSink::new(0);
    none.admitted(&crate::support::record("a"));
    assert_eq!(none.take().1, 1);
}
