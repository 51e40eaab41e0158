//! Denies without a kernel: a probe's calls, judged, recorded and counted by the same code as in a session.

use nexus_abi::{Errno, Reason};
use nexus_audit::{Counter, Judgement, Record, UnixMillis};
use nexus_policy::{MemoryTree, Policy};
use nx_sec_host::{Attempt, Host, Outcome};
use std::path::Path;

/// The fixture, from the bytes of its snapshot.
fn policy() -> Policy {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policy");
    let files = std::fs::read_dir(fixture).unwrap().map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        (name, std::fs::read(file.path()).unwrap())
    });
    let tree = Policy::load(&MemoryTree::new(files.collect::<Vec<_>>())).unwrap();
    let snapshot = tree.snapshot().unwrap();
    let policy = Policy::from_snapshot(&snapshot).unwrap();
    assert_eq!(policy.version(), tree.version());
    policy
}

fn call(call: &'static str, args: [u64; 6]) -> Attempt {
    Attempt { call, args }
}

const NOTHING: [u64; 6] = [0; 6];

/// Each with its nearest neighbour: what is allowed beside what is denied.
fn cases() -> Vec<(Attempt, Option<(Errno, Reason)>)> {
    let no_rule = Some((Errno::EPERM, Reason::AbiNoRule));
    vec![
        (call("read", NOTHING), None),
        (call("ptrace", NOTHING), no_rule),
        (call("clone", [0x11, 0, 0, 0, 0, 0]), None),
        (
            call("clone", [0x1000_0011, 0, 0, 0, 0, 0]),
            Some((Errno::EPERM, Reason::AbiDenyRule)),
        ),
        (call("ioctl", [0, 0x5401, 0, 0, 0, 0]), None),
        (
            call("ioctl", [0, 0x5402, 0, 0, 0, 0]),
            Some((Errno::EPERM, Reason::AbiArgMismatch)),
        ),
        (call("clone3", NOTHING), Some((Errno::ENOSYS, Reason::AbiUnknown))),
        (call("socket", [2, 1, 0, 0, 0, 0]), None),
        (
            call("socket", [2, 2, 0, 0, 0, 0]),
            Some((Errno::EPERM, Reason::EgressFamily)),
        ),
        (
            call("socket", [10, 1, 0, 0, 0, 0]),
            Some((Errno::EPERM, Reason::EgressFamily)),
        ),
    ]
}

/// Which counter a denied call steps, and what its rule's place begins with: said here, and not taken from what counts.
fn counted_as(reason: Reason) -> (Counter, &'static str) {
    match reason {
        Reason::EgressFamily => (Counter::EgressDenies, ""),
        _ => (Counter::AbiDenies, "abi.toml:"),
    }
}

#[test]
fn each_denied_call_has_its_errno_its_reason_its_record_and_its_step_of_the_counter() {
    let host = Host::new(&policy(), "fetch");
    let mut denied = Vec::new();
    for (attempt, expected) in cases() {
        let before = host.counted();
        let seen = host.attempt(&attempt);
        let (errno, reason) = expected.unzip();
        assert_eq!(seen, Outcome { errno, reason }, "{attempt:?}");
        let steps: Vec<u64> = host
            .counted()
            .iter()
            .zip(before)
            .map(|(now, before)| now - before)
            .collect();
        let stepped = reason.map(|reason| counted_as(reason).0);
        let expected_steps = Counter::ALL.map(|counter| u64::from(Some(counter) == stepped));
        assert_eq!(steps, expected_steps, "{attempt:?}");
        denied.extend(expected.map(|(errno, reason)| (attempt.call, errno, reason)));
    }
    let records = host.records();
    assert_eq!(records.len(), denied.len(), "{records:#?}");
    for (record, (call, errno, reason)) in records.iter().zip(denied) {
        assert_eq!(
            (&*record.object, record.verdict, record.reason),
            (call, Judgement::Deny(errno), reason)
        );
        let (at, begins) = (record.at.as_deref().unwrap_or_default(), counted_as(reason).1);
        assert!(at.starts_with(begins), "{record:?}");
        assert_eq!((&*record.subject, record.suppressed), ("fetch", 0));
    }
}

#[test]
fn another_subject_of_the_same_policy_is_denied_what_only_one_is_given() {
    let (fetch, build) = (Host::new(&policy(), "fetch"), Host::new(&policy(), "build"));
    let socket = call("socket", [2, 1, 0, 0, 0, 0]);
    assert_eq!(fetch.attempt(&socket).errno, None);
    assert_eq!(build.attempt(&socket).errno, Some(Errno::EPERM));
}

#[test]
fn the_same_calls_in_another_order_give_the_same_codes_and_records() {
    let policy = policy();
    let run = |cases: &[(Attempt, Option<(Errno, Reason)>)]| {
        let host = Host::new(&policy, "fetch");
        let mut seen: Vec<(String, Outcome)> = cases
            .iter()
            .map(|(attempt, _)| (format!("{attempt:?}"), host.attempt(attempt)))
            .collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        // When is another matter.
        let settled = |mut record: Record| {
            (record.mono_ns, record.time) = (0, UnixMillis::new(0));
            format!("{record:?}")
        };
        let mut records: Vec<String> = host.records().into_iter().map(settled).collect();
        records.sort();
        (seen, records)
    };
    let mut shuffled = cases();
    shuffled.reverse();
    shuffled.rotate_left(3);
    assert_eq!(run(&cases()), run(&shuffled));
}
