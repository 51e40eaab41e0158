//! Denies without a kernel: a probe's calls, judged, recorded and counted by the same code as in a session.

use nexus_abi::{Errno, Reason};
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

#[test]
fn each_denied_call_has_its_errno_its_reason_its_record_and_its_step_of_the_counter() {
    let mut host = Host::new(&policy(), "fetch");
    for (attempt, expected) in cases() {
        let (before, records) = (host.denies(), host.records.len());
        let seen = host.attempt(&attempt);
        let (errno, reason) = expected.unzip();
        assert_eq!(seen, Outcome { errno, reason }, "{attempt:?}");
        let step = u64::from(expected.is_some());
        assert_eq!(host.denies(), before + step, "{attempt:?}");
        assert_eq!(host.records.len() as u64, records as u64 + step, "{attempt:?}");
        if let (Some(reason), Some(record)) = (reason, host.records.last()) {
            assert_eq!((record.reason, &*record.object), (reason, attempt.call));
        }
    }
}

#[test]
fn another_subject_of_the_same_policy_is_denied_what_only_one_is_given() {
    let (mut fetch, mut build) = (Host::new(&policy(), "fetch"), Host::new(&policy(), "build"));
    let socket = call("socket", [2, 1, 0, 0, 0, 0]);
    assert_eq!(fetch.attempt(&socket).errno, None);
    assert_eq!(build.attempt(&socket).errno, Some(Errno::EPERM));
}

#[test]
fn the_same_calls_in_another_order_give_the_same_codes_and_records() {
    let policy = policy();
    let run = |cases: &[(Attempt, Option<(Errno, Reason)>)]| {
        let mut host = Host::new(&policy, "fetch");
        let mut seen: Vec<(String, Outcome)> = cases
            .iter()
            .map(|(attempt, _)| (format!("{attempt:?}"), host.attempt(attempt)))
            .collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        let mut records: Vec<String> = host.records.iter().map(|record| format!("{record:?}")).collect();
        records.sort();
        (seen, records)
    };
    let mut shuffled = cases();
    shuffled.reverse();
    shuffled.rotate_left(3);
    assert_eq!(run(&cases()), run(&shuffled));
}
