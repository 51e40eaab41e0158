//! "quotas: write until limit exceeded → `EDQUOTA` and deny event recorded", on the kernel. Linux calls it `EDQUOT`.

use std::sync::Arc;

use nexus_audit::Counter;
use nexus_sys::counters::SharedCounters;
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Home, Run, Tree, User, can_be_metered, eventually, users};

/// Three subjects of one domain that has small budgets; the work directory of one is metered.
fn small() -> Tree {
    Tree::shipped()
        .append(
            "nexus.policy.toml",
            "[domain.small]\n\n[subject.one]\ndomain = \"small\"\n\n[subject.two]\ndomain = \"small\"\n\n[subject.metered]\ndomain = \"small\"\n",
        )
        .append(
            "quotas.toml",
            "[domain.small.tmp]\nsoft = \"32KiB\"\nhard = \"64KiB\"\ninodes = 4\n\
             [domain.small.state]\nhard = \"32KiB\"\ninodes = 8\n\
             [domain.small.work]\nhard = \"128KiB\"\ninodes = 3\n\
             [subject.two.tmp]\nhard = \"48KiB\"\n",
        )
        .append(
            "sandbox.toml",
            "[domain.small]\nread = [\"/usr\"]\nread_optional = [\"/bin\", \"/lib\", \"/lib64\"]\ndev = [\"null\", \"zero\", \"shm\"]\n\
             env_set = { PATH = \"/usr/bin:/bin\" }\nwork = \"ro\"\n\n[subject.metered]\nwork = \"metered\"\n",
        )
        .edit("abi.toml", "[domain.tools]", "[domain.small]\nallow = [\"@everything\"]\n\n[domain.tools]")
}

/// As [`small`], with every call allowed.
pub(crate) fn tree() -> Tree {
    let calls: Vec<String> = nexus_abi::syscall::all()
        .filter(|call| call.number().is_some())
        .map(|call| format!("\"{}\"", call.name()))
        .collect();
    small().edit("abi.toml", "\"@everything\"", &calls.join(", "))
}

fn run(home: &Arc<Home>, subject: &str) -> Run {
    Run::at(home).policy(&tree()).subject(subject)
}

/// As [`run`], under the tree that [`written`] wrote: sessions that begin at once must not write it at once.
fn run_too(home: &Arc<Home>, subject: &str) -> Run {
    Run::at(home).policy_directory(home.policy()).subject(subject)
}

fn written(user: User) -> Arc<Home> {
    let home = Home::new(user);
    drop(run(&home, "one"));
    home
}

/// What a home's runs have counted for a subject; `None` where they are another user's, whose counters nobody else may open.
fn denies(home: &Home, subject: &str) -> Option<u64> {
    if rustix::process::geteuid().as_raw() != home.user().id() {
        return None;
    }
    let counters = SharedCounters::open(&home.journal().join("counters")).expect("counters");
    let all = counters.read_all().expect("counters");
    let of_subject = all.iter().find(|(name, _)| name == subject);
    Some(of_subject.map_or(0, |(_, counts)| counts[Counter::QuotaDenies.index()]))
}

/// That so many were counted, where that can be known.
pub(crate) fn assert_denies(home: &Home, subject: &str, wanted: u64) {
    assert_eq!(
        denies(home, subject).unwrap_or(wanted),
        wanted,
        "quota_denies_total{{{subject}}}"
    );
}

#[test]
fn writing_until_the_limit_is_passed_gets_edquot_and_one_record_and_one_count() {
    for user in users() {
        for (subject, path, hard) in [
            ("one", "/tmp/file", 64 << 10),
            ("one", "/state/file", 32 << 10),
            ("metered", "file", 128 << 10),
        ] {
            let home = Home::new(user);
            if subject == "metered" && !can_be_metered(&home) {
                continue;
            }
            let more = (hard + 1).to_string();
            let done = run(&home, subject)
                .probe(["append", path, &more, ",", "append", path, "1"])
                .run();
            assert_eq!(done.code(), Some(0), "{done}");
            let wanted = [format!("errno 122 after {hard}"), "errno 122 after 0".to_owned()];
            assert_eq!(done.probed(), wanted, "{path}: {done}");
            let denied = done.records_for("quota.hard_bytes");
            assert_eq!(denied.len(), 2, "{done}");
            assert!(
                denied
                    .iter()
                    .all(|record| record.at.as_deref().is_some_and(|at| at.starts_with("quotas.toml:")))
            );
            assert_denies(&home, subject, 2);
            done.assert_nothing_left();
        }
    }
}

/// The calls that make a file grow.
const GROW: [&str; 12] = [
    "copy_file_range",
    "creat",
    "fallocate",
    "ftruncate",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "sendfile",
    "splice",
    "truncate",
    "write",
    "writev",
];

/// As [`tree`], where these calls are open by one rule, with these conditions, and by nothing else.
fn tree_that_asks(calls: &[&str], conditions: &str) -> Tree {
    let quoted = |names: Vec<&str>| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        names.join(", ")
    };
    let others = nexus_abi::syscall::all()
        .filter(|call| call.number().is_some() && !calls.contains(&call.name()))
        .map(|call| call.name());
    let known = calls
        .iter()
        .copied()
        .filter(|name| nexus_abi::syscall::number(name).is_some());
    let rule = format!(
        "[[domain.small.rule]]\nsyscall = [{}]\neffect = \"allow\"\nwhen = [{conditions}]\n",
        quoted(known.collect())
    );
    small()
        .edit("abi.toml", "\"@everything\"", &quoted(others.collect()))
        .append("abi.toml", &rule)
}

#[test]
fn a_rule_that_asks_for_a_budget_denies_the_write_that_does_not_fit_with_the_ledgers_reason_and_counts_it_once() {
    let asks = tree_that_asks(&GROW, "{ budget = \"tmp\" }, { budget = \"state\" }");
    for user in users() {
        let home = Home::new(user);
        let run = |probe: &[&str]| {
            let run = Run::at(&home).policy(&asks).subject("one");
            run.probe(probe.iter().copied()).run()
        };
        let done = run(&[
            "append", "/tmp/a", "65536", ",", "append", "/tmp/a", "1", ",", "append", "/state/a", "32769", ",",
            "append", "/state/a", "1",
        ]);
        let wanted = ["ok", "errno 122 after 0", "errno 122 after 32768", "errno 122 after 0"];
        assert_eq!(done.probed(), wanted, "{done}");
        let denied = done.records_for("quota.hard_bytes");
        assert_eq!(denied.len(), 3, "{done}");
        let at_budget = |at: &str| at.starts_with("quotas.toml:");
        assert!(
            denied.iter().all(|record| record.at.as_deref().is_some_and(at_budget)),
            "{done}"
        );
        for reason in ["abi.no_rule", "abi.arg_mismatch", "abi.deny_rule"] {
            assert!(
                done.records_for(reason).is_empty(),
                "the guard is no second authority: {done}"
            );
        }
        assert_denies(&home, "one", 3);
    }
}

#[test]
fn each_way_to_grow_that_a_rule_asks_a_budget_for_is_denied_where_it_does_not_fit_and_done_where_it_does() {
    let asks = tree_that_asks(&GROW, "{ budget = \"state\" }");
    for user in users() {
        let home = Home::new(user);
        let script = "cd /state; head -c 12000 /dev/zero > from
            truncate -s 16K a && echo done; truncate -s 1M a || echo denied
            rm a; fallocate -l 16K a && echo done; fallocate -l 1M a || echo denied
            rm a; cp from a && echo done; cp from b || echo denied; stat -c %s from";
        let done = Run::at(&home).policy(&asks).subject("one").bash(script).run();
        assert_eq!(
            done.out(),
            "done\ndenied\ndone\ndenied\ndone\ndenied\n12000\n",
            "{done}"
        );
        // Who copies may try in several ways.
        let denied = done.records_for("quota.hard_bytes").len();
        assert!(denied >= 3, "{done}");
        assert_denies(&home, "one", u64::try_from(denied).expect("a few"));
    }
}

#[test]
fn what_a_rule_asks_of_an_argument_beside_a_budget_is_asked_all_the_same() {
    // Standard output alone may be written to, by this rule.
    let asks = tree_that_asks(&["write"], "{ budget = \"tmp\" }, { arg = 0, range = [0, 2] }");
    for user in users() {
        let home = Home::new(user);
        let done = Run::at(&home)
            .policy(&asks)
            .subject("one")
            .probe(["append", "/tmp/a", "1", ",", "create", "/tmp/b"])
            .run();
        assert_eq!(done.probed(), ["errno 1 after 0", "ok"], "{done}");
        assert_eq!(done.records_for("abi.arg_mismatch").len(), 1, "{done}");
        assert_denies(&home, "one", 0);
    }
}

#[test]
fn the_last_file_is_made_and_the_next_is_not() {
    for user in users() {
        let home = Home::new(user);
        if !can_be_metered(&home) {
            continue;
        }
        let done = run(&home, "metered")
            .probe([
                "create", "a", ",", "create", "b", ",", "create", "c", ",", "create", "d", ",", "remove", "c", ",",
                "create", "d",
            ])
            .run();
        assert_eq!(done.probed(), ["ok", "ok", "ok", "errno 122", "ok", "ok"], "{done}");
        assert_eq!(done.records_for("quota.hard_inodes").len(), 1, "{done}");
        assert_denies(&home, "metered", 1);
        // What the file server serves for root's own user is root's on disk.
        let made = std::fs::metadata(home.work().join("d")).expect("it was made");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), user.id());
    }
}

#[test]
fn a_domains_budget_holds_for_each_of_its_subjects_and_a_subjects_own_key_for_itself() {
    for user in users() {
        let home = Home::new(user);
        for (subject, hard) in [("one", 64 << 10), ("two", 48 << 10)] {
            // What one has used is none of the other's.
            let done = run(&home, subject).probe(["append", "/tmp/file", "1000000"]).run();
            assert_eq!(done.probed(), [format!("errno 122 after {hard}")], "{done}");
        }
        for (subject, count) in [("one", 1), ("two", 1), ("demo", 0)] {
            assert_denies(&home, subject, count);
        }
    }
}

#[test]
fn df_tells_the_budget_and_what_is_left() {
    for user in users() {
        let home = Home::new(user);
        home.write_work("old", &"x".repeat(5000));
        let script = "head -c 5000 /dev/zero > /tmp/x; for at in /tmp /state; do stat -f -c '%b %a %c %d' $at; done";
        let done = run(&home, "one").bash(script).run();
        let lines: Vec<String> = done.out().lines().map(ToOwned::to_owned).collect();
        // 16 blocks of which 2 are used, and 4 inodes, of which the way to the work directory may use some; the state has a
        // home in it.
        assert!(lines[0].starts_with("16 14 4 "), "{done}");
        assert_eq!(lines[1], "8 8 8 7", "{done}");
        if !can_be_metered(&home) {
            continue;
        }
        let done = run(&home, "metered").bash("stat -f -c '%b %a %c %d' .").run();
        // What is there counts as there: `probe` and `old`, and 32 blocks and 3 inodes to grow by.
        let there = std::fs::metadata(home.work().join("probe"))
            .expect("it is there")
            .len()
            .div_ceil(4096)
            + 2;
        assert_eq!(done.out(), format!("{} 32 5 3\n", there + 32), "{done}");
    }
}

#[test]
fn soft_is_warned_of_once_for_each_crossing_and_denies_nothing() {
    for user in users() {
        let home = Home::new(user);
        let done = run(&home, "one")
            .probe([
                "append", "/tmp/a", "32768", ",", "append", "/tmp/a", "1", ",", "append", "/tmp/a", "8192", ",",
                "remove", "/tmp/a", ",", "append", "/tmp/a", "40000",
            ])
            .run();
        assert_eq!(done.probed(), ["ok", "ok", "ok", "ok", "ok"], "{done}");
        assert_eq!(done.records_for("quota.soft_bytes").len(), 2, "{done}");
        assert_denies(&home, "one", 0);
    }
}

#[test]
fn two_sessions_at_once_never_have_more_than_one_budget() {
    for user in users() {
        let home = written(user);
        // Each waits for the other before it writes.
        let script = |own: &str, other: &str| {
            format!(
                "touch /tmp/{own}; until [ -e /tmp/{other} ]; do sleep 0.02; done; \
                 while head -c 4096 /dev/zero >> /tmp/{own} 2>/dev/null; do :; done; stat -c %s /tmp/{own}"
            )
        };
        let written: u64 = std::thread::scope(|scope| {
            let sessions = [("a", "b"), ("b", "a")].map(|(own, other)| {
                let home = Arc::clone(&home);
                scope.spawn(move || run_too(&home, "one").bash(&script(own, other)).run())
            });
            let ended = sessions.map(|session| session.join().expect("a run"));
            ended
                .iter()
                .map(|done| done.out().trim().parse::<u64>().unwrap_or_else(|_| panic!("{done}")))
                .sum()
        });
        assert_eq!(written, 64 << 10, "all of it, and no more");
        home.assert_nothing_left();
    }
}

#[test]
fn a_budget_that_is_lowered_below_use_lets_only_shrink() {
    for user in users() {
        let home = Home::new(user);
        let done = run(&home, "one")
            .probe(["append", "/state/a", "20480", ",", "append", "/state/b", "4096"])
            .run();
        assert_eq!(done.probed(), ["ok", "ok"], "{done}");
        let less = tree().edit(
            "quotas.toml",
            "[domain.small.state]\nhard = \"32KiB\"",
            "[domain.small.state]\nhard = \"8KiB\"",
        );
        let done = Run::at(&home)
            .policy(&less)
            .subject("one")
            .probe([
                "read", "/state/a", ",", "append", "/state/b", "1", ",", "remove", "/state/a", ",", "append",
                "/state/b", "1",
            ])
            .run();
        assert_eq!(
            done.probed(),
            ["20480 bytes", "errno 122 after 0", "ok", "ok"],
            "{done}"
        );
    }
}

/// The markers that a run says, into a file of its user's.
fn markers(user: User, probe: &[&str]) -> String {
    let home = Home::new(user);
    let sink = home.home().join("markers");
    let done = run(&home, "one")
        .env("NEXUS_MARKERS", &sink)
        .probe(probe.iter().copied())
        .run();
    assert_eq!(done.code(), Some(0), "{done}");
    // They are the file server's, which may still be about to end.
    home.assert_nothing_left();
    std::fs::read_to_string(sink).unwrap_or_default()
}

#[test]
fn the_file_server_marks_the_first_quota_set_and_the_first_deny() {
    const SET: &str = "vfsd: quota set (subject=one tmp=65536 state=32768)\n";
    for user in users() {
        let twice = ["append", "/tmp/a", "70000", ",", "append", "/state/a", "70000"];
        let denied = "vfsd: quota deny (subject=one area=tmp reason=quota.hard_bytes)\n";
        assert_eq!(markers(user, &twice), format!("{SET}{denied}"));
        // Without a deny there is no marker of one; a warning is none.
        assert_eq!(markers(user, &["append", "/tmp/a", "40000"]), SET);
    }
}

#[test]
fn a_marker_sink_that_cannot_be_opened_starts_nothing() {
    for user in users() {
        let home = Home::new(user);
        let done = run(&home, "one")
            .env("NEXUS_MARKERS", "/nowhere/markers")
            .bash("echo ran")
            .run();
        assert_eq!((done.code(), done.out().as_str()), (Some(4), ""), "{done}");
    }
}

#[test]
fn a_file_server_that_is_killed_takes_every_session_of_its_subject_and_no_other() {
    for user in users() {
        let home = written(user);
        let waits = "echo x > /state/kept; echo x > /tmp/$1; until [ -e /tmp/never ]; do sleep 0.05; done";
        std::thread::scope(|scope| {
            let doomed = ["a", "b"].map(|name| {
                let home = Arc::clone(&home);
                scope.spawn(move || run_too(&home, "one").args(["bash", "-c", waits, "bash", name]).run())
            });
            let subjects = home.state().join("nexus/subjects");
            let scratch = |subject: &str, names: &[&str]| {
                let entries = std::fs::read_dir(subjects.join(subject))
                    .into_iter()
                    .flatten()
                    .flatten();
                let mut scratch = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp-"));
                scratch.any(|entry| names.iter().all(|name| entry.path().join("tmp").join(name).exists()))
            };
            eventually("both write", || scratch("one", &["a", "b"]));
            let servers = servers(&home);
            let [server] = servers[..] else {
                panic!("one subject, but the servers {servers:?}");
            };
            let other = {
                let home = Arc::clone(&home);
                scope.spawn(move || {
                    let script = "until [ -e go ]; do sleep 0.05; done; echo fine > /tmp/x && cat /tmp/x";
                    run_too(&home, "two").bash(script).run()
                })
            };
            eventually("the other runs", || scratch("two", &[]));
            kill_process(server, Signal::KILL).expect("it is there");
            for done in doomed.map(|session| session.join().expect("a run")) {
                assert_eq!(done.code(), Some(7), "{done}");
                assert!(done.err().contains("file server"), "{done}");
            }
            home.write_work("go", "");
            let done = other.join().expect("a run");
            assert_eq!((done.code(), done.out().as_str()), (Some(0), "fine\n"), "{done}");
        });
        home.assert_nothing_left();
        // The next finds what was written, measured, and a `tmp` of its own.
        let done = run_too(&home, "one")
            .bash("cat /state/kept; ls /tmp/a /tmp/b 2>/dev/null; stat -f -c %a /state")
            .run();
        assert_eq!(done.out(), "x\n7\n", "{done}");
    }
}

/// The file servers of a home. Whose they are, and what they hold, they keep from everybody but root.
fn servers(home: &Home) -> Vec<Pid> {
    let servers = home.processes().into_iter();
    let servers = servers.filter(|process| process.name == "nx-vfsd");
    servers.map(|process| process.pid).collect()
}
