//! Thousands of connects at once: each is answered, nobody waits for another, and the judge's memory, threads and descriptors
//! stay bounded.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use security_v2_host::{FullServer, User, closed_port, eventually, spawn, users};

use crate::kit::{Answers, Attack};

/// How many connects there are at once.
const CONNECTS: usize = 10_000;

/// How many calls of one session may wait at once (`WAITING_MAX` of netd).
const WAITING_MAX: usize = 4096;

/// What a judge of that many waiting calls may have of the machine's memory: a thread's stack and its part in the tables.
const JUDGE_KIB_MAX: u64 = 256 * 1024;

fn attack(user: User, ports: &[u16]) -> Attack {
    let open: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut attack = Attack::with_egress(user, &open);
    let limits = "[subject.attack]\nlimits = { memory = \"8GiB\", processes = 12000, open_files = 12000 }";
    attack.tree = attack.tree.edit("sandbox.toml", "[subject.attack]", limits);
    attack
}

/// Takes every connection on a free port and drops it at once; says how many there were.
fn taker() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Longer than `std` makes it; the kernel cuts it to `somaxconn`.
    rustix::net::listen(&listener, i32::from(u16::MAX)).unwrap();
    let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::AcqRel);
            drop(stream);
        }
    });
    (port, taken)
}

#[test]
fn ten_thousand_connects_at_once_are_each_answered_and_arrive() {
    for user in users() {
        let (port, taken) = taker();
        let attack = attack(user, &[port]);
        let run = attack.prepare(&["flock", &port.to_string(), &CONNECTS.to_string()]);
        // Ten thousand of anything take their time where others build.
        let done = run.option("--json").deadline(std::time::Duration::from_secs(300)).run();
        let answers = Answers::of(&done.out());
        assert_eq!(
            answers.value("connected"),
            i64::try_from(CONNECTS).unwrap(),
            "{answers}"
        );
        // The last ones may still be in the listener's queue.
        eventually("all arrive", || taken.load(Ordering::Acquire) >= CONNECTS);
        assert_eq!(taken.load(Ordering::Acquire), CONNECTS);
        let err = done.err();
        let summary = err.lines().rfind(|line| line.contains("\"summary\"")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(summary["egress_allows"], CONNECTS);
        done.assert_nothing_left();
    }
}

/// What the kernel says of a process, in its own unit.
fn status(pid: rustix::process::Pid, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_connects_at_once_to_where_no_rule_leads_are_each_refused_and_none_arrives() {
    for user in users() {
        let (port, taken) = taker();
        let mut attack = attack(user, &[closed_port()]);
        // One that names the host's loopback, where everything else would be the own one's.
        let rule = format!("deny = [\"127.0.0.1:{port}\"]\n");
        attack.tree = attack.tree.append("egress.toml", &rule);
        let words = ["flock", &port.to_string(), &CONNECTS.to_string()];
        let run = attack.prepare(&words).option("--json");
        let done = run.deadline(std::time::Duration::from_secs(300)).run();
        let answers = Answers::of(&done.out());
        answers.assert_only(&["EPERM"], 1);
        assert_eq!(answers.value("EPERM"), i64::try_from(CONNECTS).unwrap(), "{answers}");
        let err = done.err();
        let summary = err.lines().rfind(|line| line.contains("\"summary\"")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(summary["denies"]["egress.deny_rule"], CONNECTS, "{summary}");
        done.assert_nothing_left();
        // Whoever asks without a session is taken; whoever came before would have been taken before.
        assert_eq!(attack.bare(&["flock", &port.to_string(), "1"]).value("connected"), 1);
        eventually("somebody arrives", || taken.load(Ordering::Acquire) > 0);
        assert_eq!(taken.load(Ordering::Acquire), 1);
    }
}

#[test]
fn past_what_may_wait_a_connect_is_told_so_and_nobody_else_waits() {
    for user in users() {
        // Takes nobody: what its queue does not hold waits.
        let full = FullServer::start();
        let full_port = full.address.port();
        let (open_port, taken) = taker();
        let attack = attack(user, &[full_port, open_port]);
        let numbers = [full_port.into(), open_port.into(), CONNECTS, WAITING_MAX];
        let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let words: Vec<&str> = ["crowd"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let mut command = attack.prepare(&words).command();
        let mut child = spawn(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
        .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        for line in lines.by_ref() {
            let ready = line.starts_with("ready ");
            said.push_str(&line);
            said.push('\n');
            if ready {
                break;
            }
        }
        let answers = Answers::of(&said);
        let refused = i64::try_from(CONNECTS - WAITING_MAX).unwrap();
        assert_eq!(answers.value("EAGAIN"), refused, "{answers}");
        assert_eq!((answers.value("meanwhile"), answers.said.len()), (1, 3), "{answers}");
        eventually("it arrives", || taken.load(Ordering::Acquire) > 0);
        assert_eq!(taken.load(Ordering::Acquire), 1);
        let judge = crate::sockets::supervisor_of(child.id()).expect("a supervisor");
        let (threads, memory) = (status(judge, "Threads:"), status(judge, "VmHWM:"));
        let few = 32;
        assert!(
            threads <= u64::try_from(WAITING_MAX).unwrap() + few,
            "{threads} threads"
        );
        assert!(memory <= JUDGE_KIB_MAX, "{memory} KiB");
        if user == User::Root {
            // Another's descriptors are root's to see.
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", judge.as_raw_nonzero())).unwrap();
            assert!(descriptors.count() <= 2 * WAITING_MAX + 64);
        }
        drop(child.stdin.take());
        let done = child.wait_with_output().unwrap();
        let mut err = String::new();
        let _ = done.stderr.as_slice().read_to_string(&mut err);
        assert_eq!(done.status.code(), Some(0), "{err}");
        attack.home.assert_nothing_left();
    }
}
