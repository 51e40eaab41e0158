//! Any process of nx killed while the program writes: nothing is left, and the ledger is the disk.
//!
//! `NEXUS_SOAK=1` does it a thousand times; without it a few.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use security_v2_host::{Home, Run, as_everybody, eventually, spawn};
use serde_json::Value;

const SHORT: u64 = 6;
/// For each of the two kinds of user: a thousand in all.
const LONG: u64 = 500;

/// The same moments in every run: xorshift, Marsaglia 2003.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What everything below a directory costs.
fn measured(directory: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).expect("the state").flatten() {
            let found = entry.path().symlink_metadata().expect("nobody changes it");
            inodes += 1;
            if found.is_dir() {
                left.push(entry.path());
            } else {
                bytes += found.size().div_ceil(4096) * 4096;
            }
        }
    }
    (bytes, inodes)
}

/// What the file server says of the state after its start.
fn ledger(home: &Arc<Home>) -> (u64, u64) {
    let done = Run::at(home).option("--json").args(["true"]).run();
    assert_eq!(done.code(), Some(0), "{done}");
    let err = done.err();
    let summary = err.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let state = summary
        .filter_map(|line| line.get("usage").map(|usage| usage["state"].clone()))
        .next()
        .unwrap_or_else(|| panic!("no summary: {done}"));
    let number = |key: &str| state[key].as_u64().unwrap_or_else(|| panic!("no `{key}`: {done}"));
    (number("used_bytes"), number("used_inodes"))
}

/// How long the program makes the file of each turn.
fn length_of(turn: u64) -> u64 {
    turn * 700 % 90_000
}

/// What the program said that it had written is there, whole.
fn acknowledged(said: &str, state: &Path) {
    let turns: Vec<u64> = said.lines().map(|line| line.parse().expect("a number")).collect();
    for turn in &turns {
        let content = std::fs::read(state.join(format!("k{turn}"))).expect("it was acknowledged");
        assert_eq!(content.len() as u64, length_of(*turn), "turn {turn}");
        assert!(content.iter().all(|byte| *byte == b'k'), "turn {turn}");
    }
}

#[test]
fn whatever_is_killed_while_the_program_writes_what_was_acknowledged_is_there_and_charged_and_nothing_is_left() {
    // Each turn's own file is never touched again; beside it others come, go and change their names.
    const WRITES: &str = "set -o pipefail; rm -f /state/*; n=0; while :; do n=$((n+1)); \
        head -c $((n * 700 % 90000)) /dev/zero | tr '\\0' k > /state/k$n && echo $n; head -c $n /dev/zero > /state/$((n % 9)); \
        mv /state/$((n % 5)) /state/m$((n % 3)); rm -f /state/$((n % 7)); done 2>/dev/null";
    let soak = std::env::var_os("NEXUS_SOAK").is_some_and(|value| value == "1");
    as_everybody(|home| {
        let mut chance = Chance(0x6e65_7875_7300_0002);
        for round in 0..if soak { LONG } else { SHORT } {
            let mut command = home.command(home.nx());
            command.args(["run", "-q", "demo", "--", "bash", "-c", WRITES]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = spawn(&mut command).expect("nx starts");
            let mut stream = BufReader::new(child.stdout.take().expect("a pipe"));
            let state = home.state().join("nexus/subjects/demo/state");
            // Some turns of this round, and some way into another, however long one takes here.
            let mut said = String::new();
            for turn in 1..2 + chance.below(4) {
                stream.read_line(&mut said).expect("it writes");
                assert!(said.ends_with(&format!("{turn}\n")), "turn {turn}: {said}");
            }
            std::thread::sleep(Duration::from_micros(chance.below(10_000)));
            // Front, init, supervisor, file server: all of them carry the home's mark. So may a process that is about to
            // become something else, which nobody misses: then it is the next one's turn.
            eventually("it ends", || {
                let processes = home.processes();
                let victim = usize::try_from(chance.below(processes.len().max(1) as u64)).expect("few");
                if let Some(victim) = processes.get(victim) {
                    let _ = rustix::process::kill_process(victim.pid, rustix::process::Signal::KILL);
                }
                std::thread::sleep(Duration::from_millis(200));
                child.try_wait().expect("a child").is_some()
            });
            home.becomes_empty();
            home.assert_nothing_left();
            stream.read_to_string(&mut said).expect("what it said");
            acknowledged(&said, &state);
            let disk = measured(&state);
            assert_eq!(ledger(home), disk, "round {round}");
        }
    });
}

#[test]
fn a_supervisor_that_is_killed_leaves_nothing_of_its_session_for_the_next_reader_to_find() {
    as_everybody(|home| {
        let mut command = home.command(home.nx());
        command.args(["run", "-q", "demo", "--", "sleep", "60"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn(&mut command).expect("nx starts");
        let sessions = home.state().join("nexus/run/sessions");
        let entries = || std::fs::read_dir(&sessions).map_or(0, Iterator::count);
        // Whole: what it adds later is written beside it first.
        let facts = || {
            let paths = std::fs::read_dir(&sessions).ok()?.flatten().map(|entry| entry.path());
            let mut facts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
            let facts: Value = serde_json::from_slice(&std::fs::read(facts.next()?).ok()?).ok()?;
            (entries() == 2 && facts["profile_id"].is_string()).then_some(facts)
        };
        eventually("it is known", || facts().is_some());
        let facts = facts().expect("a moment ago");
        // What one leaves that is killed while it makes its session known.
        let name = facts["session"].as_str().expect("its name");
        std::fs::write(sessions.join(format!(".new-{name}.json")), "").expect("a file beside it");
        let number = facts["supervisor"]["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        let supervisor = number.and_then(rustix::process::Pid::from_raw).expect("its number");
        rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).expect("it is there");
        let status = child.wait().expect("a child");
        assert_eq!((status.code(), entries()), (Some(7), 0));
    });
}
