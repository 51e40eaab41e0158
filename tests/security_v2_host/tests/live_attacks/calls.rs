//! Calls that no policy opens, and a flood of them.

use std::time::{Duration, Instant};

use security_v2_host::{Output, Tree, User, users};

use crate::kit::Attack;

#[test]
fn no_foreign_call_and_no_call_that_undoes_the_sandbox_succeeds() {
    for user in users() {
        let (answers, done) = Attack::new(user).run(&["calls"]);
        assert_eq!(done.code(), Some(0), "{done}");
        answers.assert_only(&[], 100);
        for name in [
            "int80-socket",
            "int80-socketcall",
            "x32-socket",
            "io_uring_setup",
            "clone3-user",
            "negative",
        ] {
            assert_eq!(answers.get(name), "ENOSYS", "{name}");
        }
        for name in [
            "clone-user",
            "clone-net-dirty",
            "unshare-user",
            "setns-net",
            "ptrace-me",
            "mount-bind",
            "bpf",
        ] {
            assert_eq!(answers.get(name), "EPERM", "{name}");
        }
    }
}

#[test]
fn the_same_calls_are_refused_under_a_policy_that_allows_every_call() {
    for user in users() {
        let mut attack = Attack::new(user);
        attack.tree = Tree::wide_open()
            .append("nexus.policy.toml", "[subject.attack]\ndomain = \"tools\"\n")
            .edit("abi.toml", "[subject.demo]", "[subject.attack]");
        let (answers, done) = attack.run(&["calls"]);
        assert_eq!(done.code(), Some(0), "{done}");
        answers.assert_refused(&[
            "int80-socket",
            "x32-socket",
            "io_uring_setup",
            "io_uring_enter",
            "clone3-user",
            "clone-user",
            "clone-net-dirty",
            "unshare-user",
            "unshare-net",
            "setns-net",
            "ptrace-me",
            "ptrace-seize-init",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd-own",
            "perf_event_open",
            "bpf",
            "userfaultfd",
            "keyctl-session",
            "add_key",
            "open_by_handle_at",
            "mount-tmpfs",
            "mount-bind",
            "umount",
            "open_tree",
            "fsopen",
            "move_mount",
            "pivot_root",
            "chroot",
            "seccomp-listener",
            "seccomp-listener-dirty",
        ]);
    }
}

#[test]
fn without_a_session_the_same_calls_work() {
    for user in users().into_iter().take(1) {
        let answers = Attack::new(user).bare(&["calls"]);
        answers.assert_ok(&[
            "int80-getpid",
            "int80-socket",
            "clone-user",
            "clone-net",
            "clone3-user",
            "unshare-user",
            "unshare-net",
            "ptrace-me",
            "process_vm_writev",
            "pidfd_getfd-own",
            "add_key",
            "keyctl-session",
            "name_to_handle_at",
        ]);
    }
}

fn denies(done: &Output, reason: &str) -> Option<u64> {
    let err = done.err();
    let (_, rest) = err.split_once(&format!("\"{reason}\":"))?;
    rest.split(|one: char| !one.is_ascii_digit()).next()?.parse().ok()
}

/// How many records of one reason the shipped policy has at once, and in a second (`audit` in sandbox.toml).
const BURST: u64 = 100;
const RATE: u64 = 20;

fn flood(user: User, count: u64) {
    let attack = Attack::new(user);
    let run = attack
        .prepare(&["flood", &count.to_string()])
        .option("--json")
        .deadline(Duration::from_secs(300));
    let began = Instant::now();
    let done = run.run();
    let answers = crate::kit::Answers::of(&done.out());
    assert_eq!(answers.value("refused"), i64::try_from(count).unwrap(), "{done}");
    assert_eq!(denies(&done, "abi.deny_rule"), Some(count), "{}", done.err());
    let files = std::fs::read_dir(attack.home.journal()).unwrap().flatten();
    let bytes: u64 = files
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "jsonl"))
        .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
        .sum();
    // A journal that grew with the flood would have hundreds of bytes for each; this one grows with the time that it takes.
    let admitted = BURST + RATE * (began.elapsed().as_secs() + 1);
    assert!(bytes < 64 * 1024 + 1000 * admitted, "{bytes} bytes for {count} denies");
}

#[test]
fn ten_thousand_denies_are_counted_exactly_and_cost_bounded_disk() {
    for user in users() {
        flood(user, 10_000);
    }
}

#[test]
fn a_million_denies_are_counted_exactly_and_cost_bounded_disk() {
    for user in users().into_iter().rev().take(1) {
        flood(user, 1_000_000);
    }
}
