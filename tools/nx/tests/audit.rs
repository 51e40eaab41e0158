//! `nx sec audit` and `nx sec counters` from the command line, over journals that are made here.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

use logd::{Clock, Journal, JournalLimits, load_key};
use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Counter, Judgement, Record, UnixMillis};
use nexus_sys::counters::SharedCounters;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

struct Still;

/// 2026-11-21T22:59:51.000Z.
const NOON: u64 = 1_795_301_991_000;

impl Clock for Still {
    fn mono_ns(&self) -> u64 {
        7
    }
    fn time(&self) -> UnixMillis {
        UnixMillis::new(NOON)
    }
}

/// A state directory of a test's own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(place.0.path().join("nexus"))
            .unwrap();
        place
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("nexus/journal")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.journal().join(name)
    }

    fn open(&self, limits: JournalLimits) -> Journal {
        let key = load_key(&self.journal()).unwrap();
        Journal::open(&self.journal(), limits, key, Arc::new(Still)).unwrap()
    }

    fn append(&self, records: &[Record]) {
        self.open(JournalLimits::DEFAULT).append(records).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nx"));
        command
            .arg("sec")
            .args(args)
            .env_clear()
            .env("HOME", self.0.path())
            .env("XDG_STATE_HOME", self.0.path());
        command
    }

    fn nx(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn record(subject: &str, reason: Reason, object: &str) -> Record {
    Record {
        mono_ns: 1,
        time: UnixMillis::new(NOON),
        subject: Arc::from(subject),
        session: Arc::from("0123456789ab"),
        op: Operation::Connect,
        object: Arc::from(object),
        verdict: Judgement::Deny(Errno::EPERM),
        reason,
        rule: Some(Arc::from("egress:1")),
        at: Some(Arc::from("egress.toml:17")),
        policy: Arc::from("ab12"),
        suppressed: 0,
    }
}

/// Which records' objects are listed with these words.
fn listed(place: &Place, args: &[&str]) -> String {
    let done = place.nx(&[&["audit", "--json"], args].concat());
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let text = out(&done);
    let objects = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        value["object"].as_str().unwrap().to_owned()
    });
    objects
        .filter(|object| !object.starts_with("after "))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_record_is_one_line_and_says_who_what_why_and_by_which_rule() {
    let place = Place::new();
    let held_back = Record {
        suppressed: 12,
        ..record("demo", Reason::EgressNoRule, "tcp 192.0.2.1:443")
    };
    place.append(&[held_back]);
    let done = place.nx(&["audit", "--subject", "demo"]);
    assert_eq!(
        out(&done),
        "     2 2026-11-21T22:59:51.000Z demo       0123456789ab deny EPERM   egress.no_rule         connect \
         tcp 192.0.2.1:443 (egress.toml:17) +12 not written\n"
    );
    assert_eq!((err(&done).as_str(), done.status.code()), ("", Some(0)));
}

#[test]
fn json_is_the_journals_own_line_and_what_every_answer_has() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "a\u{1b}\u{202e}\"é")]);
    let done = out(&place.nx(&["audit", "--json"]));
    let journal = std::fs::read_to_string(place.file("journal.jsonl")).unwrap();
    assert_eq!(done.lines().count(), journal.lines().count());
    for (said, line) in done.lines().zip(journal.lines()) {
        let mut value: Value = serde_json::from_str(said).unwrap();
        // Sorted by name, as a value without an order of its own writes it; what would speak to a terminal is not in it raw.
        assert!(
            said.starts_with("{\"") && !said.contains(['\u{1b}', '\u{202e}']),
            "{said}"
        );
        let names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert!(names.is_sorted(), "{names:?}");
        let object = value.as_object_mut().unwrap();
        assert_eq!(
            (object.remove("ok"), object.remove("version")),
            (Some(true.into()), Some(1.into()))
        );
        assert_eq!(value, serde_json::from_str::<Value>(line).unwrap());
    }
}

#[test]
fn each_word_chooses_its_records_and_not_the_nearest_others() {
    let place = Place::new();
    let at = |millis, one: Record| Record {
        time: UnixMillis::new(millis),
        ..one
    };
    place.append(&[
        at(NOON - 1, record("demo", Reason::EgressNoRule, "early")),
        at(NOON, record("demo2", Reason::EgressDenyRule, "other")),
        at(NOON, record("demo", Reason::AbiNoRule, "call")),
        at(NOON + 1, record("demo", Reason::EgressNoRule, "late")),
    ]);
    assert_eq!(listed(&place, &[]), "early other call late");
    assert_eq!(listed(&place, &["--subject", "demo2"]), "other");
    assert_eq!(listed(&place, &["--reason", "egress.no_rule"]), "early late");
    assert_eq!(listed(&place, &["--reason", "egress"]), "early other late");
    assert_eq!(listed(&place, &["--since", "2026-11-21T22:59:51"]), "other call late");
    assert_eq!(
        listed(&place, &["--until", "2026-11-22T00:59:51+02:00"]),
        "early other call"
    );
    assert_eq!(listed(&place, &["--seq", "3..4"]), "other call");
    assert_eq!(listed(&place, &["--seq", "5.."]), "late");
    assert_eq!(listed(&place, &["--session", "0123456789ab", "--seq", "..2"]), "early");
    let none = place.nx(&["audit", "--subject", "demo", "--session", "0123456789a"]);
    assert_eq!((out(&none).as_str(), none.status.code()), ("", Some(0)));
    assert_eq!(err(&none), "nx: no record matches\n");
    for wrong in [
        ["--reason", "egres"],
        ["--since", "yesterday"],
        ["--seq", "4..3"],
        ["--anchor", "1:ab"],
    ] {
        assert_eq!(
            place.nx(&["audit", wrong[0], wrong[1]]).status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_name_with_control_characters_speaks_to_no_terminal() {
    let place = Place::new();
    let object = "unix /tmp/\u{1b}]0;x\u{7}\nnx: fine\u{9b}\u{202e}";
    place.append(&[record("de\u{1b}mo", Reason::IpcNoRule, object)]);
    for args in [vec!["audit"], vec!["audit", "--json"]] {
        let done = place.nx(&args);
        let text = out(&done);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(
            !text
                .chars()
                .any(|one| one.is_control() && one != '\n' || one == '\u{202e}'),
            "{text:?}"
        );
    }
}

#[test]
fn where_nothing_ever_ran_it_says_so_and_makes_nothing() {
    let place = Place::new();
    let done = place.nx(&["audit"]);
    assert_eq!((out(&done).as_str(), done.status.code()), ("", Some(0)));
    assert!(err(&done).contains("no journal yet"));
    assert_eq!(place.nx(&["audit", "--follow"]).status.code(), Some(4));
    assert_eq!(place.nx(&["audit", "--verify"]).status.code(), Some(4));
    assert_eq!(out(&place.nx(&["counters"])), "nothing was counted yet\n");
    let refused = place.nx(&["audit", "--verify", "--json"]);
    let value: Value = serde_json::from_str(&out(&refused)).unwrap();
    assert_eq!(
        (&value["ok"], &value["exit"], &value["version"]),
        (&false.into(), &4.into(), &1.into())
    );
    assert!(!place.journal().exists());
}

#[test]
fn what_cannot_be_written_is_a_failure_and_a_reader_that_left_is_none() {
    let place = Place::new();
    for words in [&["counters"][..], &["counters", "--json"], &["ps"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = place.command(words).stdout(full).output().unwrap();
        assert_eq!(done.status.code(), Some(4), "{words:?}: {done:?}");
        assert!(err(&done).contains("cannot write what was found"), "{done:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = place.command(words).stdout(writer).output().unwrap();
        assert_eq!((done.status.code(), &*err(&done)), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn a_journal_whose_files_were_removed_is_no_chain_that_holds() {
    let place = Place::new();
    place.append(&[record("a", Reason::EgressNoRule, "x")]);
    assert_eq!(place.nx(&["audit", "--verify"]).status.code(), Some(0));
    std::fs::write(place.file("journal.jsonl"), "").unwrap();
    let emptied = place.nx(&["audit", "--verify"]);
    assert!(out(&emptied).contains("whether somebody removed them"), "{emptied:?}");
    std::fs::remove_file(place.file("journal.jsonl")).unwrap();
    let gone = place.nx(&["audit", "--verify"]);
    assert_eq!(gone.status.code(), Some(4), "{gone:?}");
    assert!(err(&gone).contains("its key is there"), "{gone:?}");
}

#[test]
fn a_destination_with_an_interface_is_refused_as_such() {
    let refused = Place::new().nx(&["test", "egress", "--subject", "demo", "--to", "[fe80::1%1]:80"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(err(&refused).contains("names an interface"), "{refused:?}");
}

#[test]
fn half_a_line_at_the_end_is_told_and_one_before_the_end_is_a_failure() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "whole")]);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(place.file("journal.jsonl"))
        .unwrap();
    file.write_all(b"{\"v\":1,\"seq\":3").unwrap();
    let done = place.nx(&["audit"]);
    assert_eq!((out(&done).lines().count(), done.status.code()), (2, Some(0)));
    assert!(
        err(&done).contains("`journal.jsonl` line 3 is half a line"),
        "{}",
        err(&done)
    );
    let verified = place.nx(&["audit", "--verify"]);
    assert_eq!(verified.status.code(), Some(0));
    assert!(out(&verified).contains("half a line"));
    file.write_all(b"\n").unwrap();
    let done = place.nx(&["audit"]);
    assert_eq!((out(&done).lines().count(), done.status.code()), (2, Some(3)));
    assert!(err(&done).contains("line 3: the line is not a record") && err(&done).contains("not all"));
}

#[test]
fn a_journal_of_another_version_is_named_once_and_not_a_thousand_times() {
    let place = Place::new();
    place.append(&vec![record("demo", Reason::EgressNoRule, "x"); 1000]);
    let text = std::fs::read_to_string(place.file("journal.jsonl")).unwrap();
    std::fs::write(place.file("journal.jsonl"), text.replace("{\"v\":1,", "{\"v\":2,")).unwrap();
    let done = place.nx(&["audit"]);
    assert_eq!((out(&done).as_str(), done.status.code()), ("", Some(3)));
    let said = err(&done);
    assert!(said.lines().count() < 10, "{said}");
    assert!(said.contains("version `2`, this program reads version `1`"), "{said}");
    assert!(
        said.contains("996 more lines") && said.contains("1001 lines are no records"),
        "{said}"
    );
}

#[test]
fn the_first_record_that_does_not_hold_is_named_with_its_file_number_and_why() {
    let place = Place::new();
    let all: Vec<_> = (0..500)
        .map(|n| record("demo", Reason::EgressNoRule, &format!("tcp 192.0.2.1:{n}")))
        .collect();
    let limits = JournalLimits {
        file_bytes_max: 64 * 1024,
        files_max: 5,
    };
    place.open(limits).append(&all).unwrap();
    let good = place.nx(&["audit", "--verify"]);
    let text = out(&good);
    assert_eq!(good.status.code(), Some(0), "{text}");
    assert!(text.contains("not seen  a tail that was cut off"), "{text}");
    let older = std::fs::read_to_string(place.file("journal.1.jsonl")).unwrap();
    let line: Value = serde_json::from_str(older.lines().nth(4).unwrap()).unwrap();
    let seq = line["seq"].as_u64().unwrap();
    let object = line["object"].as_str().unwrap();
    std::fs::write(place.file("journal.1.jsonl"), older.replace(object, "tcp 192.0.2.7:1")).unwrap();
    let broken = place.nx(&["audit", "--verify"]);
    assert_eq!(broken.status.code(), Some(3));
    let said = out(&broken);
    assert!(
        said.contains(&format!("`journal.1.jsonl` line 5, where record {seq} should be")),
        "{said}"
    );
    assert!(said.contains("its chain value does not fit"), "{said}");
    let json: Value = serde_json::from_str(&out(&place.nx(&["audit", "--verify", "--json"]))).unwrap();
    assert_eq!(
        (&json["ok"], &json["seq"], &json["line"]),
        (&false.into(), &seq.into(), &5.into())
    );
    assert_eq!(json["file"], "journal.1.jsonl");
    assert!(said.contains("what stands before it holds"), "{said}");
    // Without its key nothing is walked, and nothing claimed.
    std::fs::remove_file(place.file("journal.key")).unwrap();
    let unknown = place.nx(&["audit", "--verify"]);
    assert_eq!(unknown.status.code(), Some(3));
    let said = out(&unknown);
    assert!(
        said.contains("key is gone") && said.contains("of no record is known whether it holds"),
        "{said}"
    );
    assert!(!said.contains("what stands before"), "{said}");
}

#[test]
fn an_anchor_finds_the_tail_that_a_chain_alone_does_not_miss() {
    let place = Place::new();
    place.append(&vec![record("demo", Reason::EgressNoRule, "x"); 5]);
    let text = out(&place.nx(&["audit", "--verify"]));
    let anchor = text.lines().find_map(|line| line.strip_prefix("anchor    ")).unwrap();
    assert!(anchor.starts_with("6:"));
    let held = place.nx(&["audit", "--verify", "--anchor", anchor]);
    assert!(
        held.status.success() && out(&held).contains("anchor    holds"),
        "{held:?}"
    );
    let whole = std::fs::read_to_string(place.file("journal.jsonl")).unwrap();
    let cut: Vec<&str> = whole.lines().take(4).collect();
    std::fs::write(place.file("journal.jsonl"), cut.join("\n") + "\n").unwrap();
    assert!(place.nx(&["audit", "--verify"]).status.success());
    let file = place.0.path().join("anchor");
    std::fs::write(&file, format!("{anchor}\n")).unwrap();
    let found = place.nx(&["audit", "--verify", "--anchor", file.to_str().unwrap()]);
    assert_eq!(found.status.code(), Some(3));
    assert!(
        out(&found).contains("record 6") && out(&found).contains("its tail was cut off"),
        "{found:?}"
    );
}

/// A process that is killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn started(mut command: Command) -> (Running, impl Iterator<Item = String>) {
    // Who starts the tests in the background may have had Ctrl-C ignored, and what is ignored is inherited.
    nexus_sys::signal::set_default(rustix::process::Signal::INT.as_raw());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (Running(child), lines)
}

#[test]
fn follow_begins_with_the_last_ten_goes_on_over_rotations_and_ends_with_ctrl_c() {
    let place = Place::new();
    let limits = JournalLimits {
        file_bytes_max: 64 * 1024,
        files_max: 100,
    };
    let mut journal = place.open(limits);
    let numbered = |from: usize, to: usize| -> Vec<_> {
        (from..to)
            .map(|n| record("demo", Reason::EgressNoRule, &format!("<{n}>")))
            .collect()
    };
    journal.append(&numbered(0, 25)).unwrap();
    let (mut running, mut lines) = started(place.command(&["audit", "--follow", "--subject", "demo"]));
    for n in 15..25 {
        assert!(lines.next().unwrap().contains(&format!("<{n}>")));
    }
    for round in 0..5 {
        let from = 25 + round * 500;
        journal
            .append(&[record("other", Reason::EgressNoRule, "not this one")])
            .unwrap();
        journal.append(&numbered(from, from + 500)).unwrap();
        for n in from..from + 500 {
            let line = lines.next().unwrap();
            assert!(line.contains(&format!("<{n}>")), "{line}");
        }
    }
    assert!(place.file("journal.3.jsonl").exists(), "it was rotated meanwhile");
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = running.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
}

#[test]
fn follow_ends_when_nobody_reads_any_more_although_nothing_is_written() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "x")]);
    let (mut running, mut lines) = started(place.command(&["audit", "--follow"]));
    lines.next().unwrap();
    drop(lines);
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn follow_that_waits_uses_no_processor() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "x")]);
    let (running, mut lines) = started(place.command(&["audit", "--follow"]));
    lines.next().unwrap();
    lines.next().unwrap();
    let waits = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('S')
    };
    // It sleeps in poll(2) without a time, which its wait channel and syscall show where they may be read.
    while !waits(running.0.id()) {
        std::thread::yield_now();
    }
    if let Ok(call) = std::fs::read_to_string(format!("/proc/{}/syscall", running.0.id()))
        && call.starts_with("7 ")
    {
        let timeout = call.split(' ').nth(3).unwrap();
        assert_eq!(timeout, "0xffffffff", "{call}");
    }
}

#[test]
fn a_stopped_process_that_holds_the_lock_is_not_waited_for_longer_than_two_seconds() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "x")]);
    let lock = std::fs::File::open(place.file("journal.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for args in [vec!["audit"], vec!["audit", "--verify"], vec!["audit", "--follow"]] {
        let done = place.nx(&args);
        assert_eq!(done.status.code(), Some(4), "{args:?}");
        assert!(
            err(&done).contains("journal.lock` locked") && err(&done).contains("help:"),
            "{done:?}"
        );
    }
    // Where no counters are, only the journal says whether some were.
    let done = place.nx(&["counters"]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(
        err(&done).contains("no counters are there, and the journal"),
        "{done:?}"
    );
    // Those that are there are what they are.
    let counters = SharedCounters::open(&place.file("counters")).unwrap();
    counters.slot("demo").unwrap().add(Counter::EgressDenies.index(), 3);
    let done = place.nx(&["counters"]);
    assert!(done.status.success() && out(&done).contains("demo"), "{done:?}");
    assert!(err(&done).contains("not held to the journal"), "{done:?}");
}

#[test]
fn counters_that_say_less_than_the_journal_are_told_as_lost_in_every_shape() {
    let place = Place::new();
    let mut some = record("demo", Reason::EgressNoRule, "x");
    some.suppressed = 4;
    let note = Record {
        verdict: Judgement::Note,
        ..record("other", Reason::JournalSuppressed, "y")
    };
    place.append(&[record("demo", Reason::EgressNoRule, "x"), some, note]);
    let path = place.file("counters");
    let fill = |denies: u64| {
        let counters = SharedCounters::open(&path).unwrap();
        counters
            .slot("demo")
            .unwrap()
            .add(Counter::EgressDenies.index(), denies);
        counters.slot("build").unwrap();
    };
    let remove = || std::fs::remove_file(&path).unwrap();
    // As many as are written down, and were held back before: nothing is lost.
    fill(6);
    for words in [
        &["counters"][..],
        &["counters", "--json"],
        &["counters", "--prometheus"],
    ] {
        let done = place.nx(words);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
    }
    type Break<'a> = &'a dyn Fn();
    let breaks: [(&str, Break<'_>, &str); 4] = [
        ("removed", &remove, "has none of the subject"),
        ("emptied", &|| fill(6), "has none of the subject"),
        ("made anew", &|| fill(0), "says 0"),
        ("short by one", &|| fill(5), "says 5"),
    ];
    for (what, breaks, says) in breaks {
        let _ = std::fs::remove_file(&path);
        fill(6);
        if what != "removed" {
            remove();
        }
        breaks();
        if what == "emptied" {
            std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(0)
                .unwrap();
        }
        let text = place.nx(&["counters"]);
        assert_eq!(text.status.code(), Some(4), "{what}: {text:?}");
        let line = "`demo` egress_denies_total: unknown: the journal has 6 and the counter file ";
        assert!(out(&text).contains(&format!("{line}{says}")), "{what}: {text:?}");
        assert!(!out(&text).contains("nothing was counted"), "{what}: {text:?}");
        let object = place.nx(&["counters", "--subject", "demo", "--json"]);
        let value: Value = serde_json::from_str(&out(&object)).unwrap();
        assert_eq!((object.status.code(), &value["ok"]), (Some(4), &false.into()), "{what}");
        assert_eq!(value["lost"][0]["recorded"], 6, "{what}: {value}");
        let exposed = place.nx(&["counters", "--prometheus"]);
        assert_eq!(exposed.status.code(), Some(4), "{what}");
        assert!(out(&exposed).contains(&format!("\n# {line}")), "{what}: {exposed:?}");
        // What concerns somebody else is somebody else's.
        let other = place.nx(&["counters", "--subject", "build"]);
        let there = if ["removed", "emptied"].contains(&what) { 3 } else { 0 };
        assert_eq!(other.status.code(), Some(there), "{what}: {other:?}");
    }
}

#[test]
fn a_subject_that_nobody_knows_is_told_by_the_list_and_one_that_policy_or_counters_know_is_not() {
    let place = Place::new();
    let unknown = |done: Output| {
        assert_eq!((done.status.code(), out(&done).as_str()), (Some(3), ""), "{done:?}");
        assert!(
            err(&done).contains("no record of `nobody`") && err(&done).contains("has no such subject"),
            "{done:?}"
        );
    };
    unknown(place.nx(&["audit", "--subject", "nobody"]));
    assert_eq!(place.nx(&["audit", "--subject", "demo"]).status.code(), Some(0));
    place.append(&[record("gone", Reason::EgressNoRule, "x")]);
    unknown(place.nx(&["audit", "--subject", "nobody"]));
    let value = place.nx(&["audit", "--subject", "nobody", "--json"]);
    assert_eq!(value.status.code(), Some(3));
    assert_eq!(serde_json::from_str::<Value>(&out(&value)).unwrap()["ok"], false);
    for (subject, words) in [("demo", &[][..]), ("gone", &["--reason", "abi"])] {
        let done = place.nx(&[&["audit", "--subject", subject], words].concat());
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        assert!(err(&done).contains("no record matches"), "{done:?}");
    }
    // It ran once under a policy that named it, and was denied nothing.
    SharedCounters::open(&place.file("counters"))
        .unwrap()
        .slot("nobody")
        .unwrap();
    assert_eq!(place.nx(&["audit", "--subject", "nobody"]).status.code(), Some(0));
}

#[test]
fn a_hole_in_the_numbers_is_told_by_the_list_whatever_is_listed() {
    let place = Place::new();
    let objects = ["a", "b", "c", "d"];
    place.append(&objects.map(|object| record("demo", Reason::EgressNoRule, object)));
    let whole = std::fs::read_to_string(place.file("journal.jsonl")).unwrap();
    assert_eq!(place.nx(&["audit"]).status.code(), Some(0));
    let lines: Vec<&str> = whole.lines().collect();
    let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
    let at = lines.iter().position(|line| line.contains("\"object\":\"b\"")).unwrap();
    let without: String = lines
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != at)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    std::fs::write(place.file("journal.jsonl"), &without).unwrap();
    let (after, next) = (number(lines[at - 1]), number(lines[at + 1]));
    for words in [
        &["audit"][..],
        &["audit", "--reason", "abi"],
        &["audit", "--subject", "build"],
    ] {
        let done = place.nx(words);
        assert_eq!(done.status.code(), Some(3), "{words:?}: {done:?}");
        let says = format!("record {next} comes after record {after}");
        assert!(err(&done).contains(&says), "{words:?}: {done:?}");
        assert!(!err(&done).contains("no record matches"), "{words:?}: {done:?}");
    }
    let done = place.nx(&["audit", "--json"]);
    assert_eq!(done.status.code(), Some(3));
    let gap = format!("{{\"after\":{after},\"event\":\"gap\",\"next\":{next},\"ok\":false,\"version\":1}}");
    assert!(out(&done).lines().any(|line| line == gap), "{}", out(&done));
    // The oldest that is kept comes after nothing: that is rotation's work, and told where older ones are asked for.
    let later: String = lines[at..].iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(place.file("journal.jsonl"), later).unwrap();
    let done = place.nx(&["audit"]);
    assert_eq!((done.status.code(), err(&done).as_str()), (Some(0), ""), "{done:?}");
    let done = place.nx(&["audit", "--seq", "1..2"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let oldest = format!("the oldest record that is kept is {}", number(lines[at]));
    assert!(err(&done).contains(&oldest), "{done:?}");
}

#[test]
fn a_closed_standard_output_is_a_failure_of_every_command_that_says_something() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "x")]);
    for words in [
        "sec ps",
        "sec ps --json",
        "sec audit",
        "sec audit --verify",
        "sec audit --follow",
        "sec counters",
        "sec export",
        "sec doctor",
        "sec policy show",
        "sec syscalls --subject demo",
        "sec egress --subject nobody --json",
        "policy",
        "policy show demo",
        "policy validate --json",
        "man nx",
        "completions bash",
        "sec ps --help",
        "--version",
    ] {
        let nx = env!("CARGO_BIN_EXE_nx");
        let ends = |to: &str| {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", &format!("exec {nx} {words} {to}")])
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("HOME", place.0.path())
                .env("XDG_STATE_HOME", place.0.path());
            command.output().unwrap()
        };
        let done = ends(">&-");
        assert_eq!(done.status.code(), Some(4), "{words}: {done:?}");
        assert!(err(&done).contains("standard output is closed"), "{words}: {done:?}");
        // Who wants to see nothing says so.
        if !words.contains("follow") {
            let done = ends(">/dev/null");
            assert!(!err(&done).contains("standard output"), "{words}: {done:?}");
            assert_eq!(ends("1<>/dev/null").status.code(), done.status.code(), "{words}");
            assert_eq!(ends(">/dev/full").status.code(), Some(4), "{words}");
        }
    }
}

#[test]
fn what_is_not_this_users_own_file_is_refused_with_a_word_on_it() {
    let place = Place::new();
    place.append(&[record("demo", Reason::EgressNoRule, "x")]);
    std::fs::remove_file(place.file("journal.jsonl")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.file("journal.jsonl"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let done = place.nx(&["audit"]);
    assert_eq!(done.status.code(), Some(4));
    assert!(err(&done).contains("is no regular file"), "{done:?}");
}

#[test]
fn counters_are_sorted_by_bytes_whatever_the_order_they_came_in() {
    let place = Place::new();
    place.append(&[]);
    let counters = SharedCounters::open(&place.file("counters")).unwrap();
    for name in ["b", "é", "a\u{1b}[2J", "B", "a-b", "a"] {
        counters.slot(name).unwrap().add(Counter::EgressDenies.index(), 3);
    }
    let text = out(&place.nx(&["counters"]));
    let names: Vec<&str> = text
        .lines()
        .skip(1)
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(names, ["B", "a", "a\\u{1b}[2J", "a-b", "b", "é"]);
    let value: Value = serde_json::from_str(&out(&place.nx(&["counters", "--json"]))).unwrap();
    assert_eq!(value["version"], 1);
    assert_eq!(value["subjects"]["a\u{1b}[2J"]["egress_denies_total"], 3);
    let one = out(&place.nx(&["counters", "--subject", "a", "--prometheus"]));
    assert_eq!(one.lines().filter(|line| !line.starts_with('#')).count(), 4);
    // A subject of the policy that never ran has zeros; a word that nobody knows has an answer of its own.
    assert!(out(&place.nx(&["counters", "--subject", "demo"])).contains("demo"));
    let unknown = place.nx(&["counters", "--subject", "dem"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(err(&unknown).contains("nothing was ever counted for `dem`"));
}

#[test]
fn ten_thousand_subjects_are_counted_in_every_shape() {
    let place = Place::new();
    place.append(&[]);
    let path = place.file("counters");
    // Written as nx lays it out: taking ten thousand slots one by one is another test's work.
    drop(SharedCounters::open(&path).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    for n in 0..10_000_usize {
        let name = format!("subject-{n:05}");
        let slot = 4096 + n * 192;
        bytes[slot + 8..slot + 8 + name.len()].copy_from_slice(name.as_bytes());
        bytes[slot..slot + 8].copy_from_slice(&name.len().to_ne_bytes());
        bytes[slot + 72..slot + 80].copy_from_slice(&(n as u64).to_ne_bytes());
    }
    let mut file = std::fs::OpenOptions::new().write(true).mode(0o600).open(&path).unwrap();
    file.write_all(&bytes).unwrap();
    assert_eq!(out(&place.nx(&["counters"])).lines().count(), 10_001);
    let text = out(&place.nx(&["counters", "--prometheus"]));
    assert!(text.contains("\nquota_denies_total{subject=\"subject-09999\"} 9999\n"));
    assert_eq!(text.lines().count(), 8 + 40_000);
}

/// The most memory that a process had at once, in KiB: asked, after its end, of the process that waited for it.
fn peak_kib(place: &Place, args: &str) -> u64 {
    // getrusage(RUSAGE_CHILDREN) is syscall 98 on x86-64, and ru_maxrss the fifth word of what it fills in.
    let mut command = Command::new("perl");
    let program = format!(
        "my $pid = fork; if (!$pid) {{ open(STDOUT, '>', '/dev/null'); exec('{}', 'sec', {args}) }} \
         waitpid($pid, 0); my $r = pack('x144'); syscall(98, -1, $r); print unpack('x32 q', $r);",
        env!("CARGO_BIN_EXE_nx")
    );
    command
        .args(["-e", &program])
        .env("XDG_STATE_HOME", place.0.path())
        .env("HOME", place.0.path());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    said.trim().parse().unwrap()
}

/// With `NEXUS_SOAK=1` a million records, 400 MB; else forty thousand, in as many files as that takes.
#[test]
fn a_long_journal_is_listed_and_verified_in_the_memory_of_a_short_one() {
    let count = if std::env::var_os("NEXUS_SOAK").is_some() {
        1_000_000
    } else {
        40_000
    };
    let (short, long) = (Place::new(), Place::new());
    short.append(&[record("demo", Reason::EgressNoRule, "x")]);
    let limits = JournalLimits {
        file_bytes_max: 8 << 20,
        files_max: 100,
    };
    let mut journal = long.open(limits);
    let batch = vec![record("demo", Reason::EgressNoRule, "tcp 192.0.2.1:443"); 1000];
    for _ in 0..count / batch.len() {
        journal.append(&batch).unwrap();
    }
    for args in [
        "'audit'",
        "'audit', '--verify'",
        "'audit', '--json', '--reason', 'egress'",
    ] {
        let (small, large) = (peak_kib(&short, args), peak_kib(&long, args));
        println!("{args}: {large} KiB for {count} records, {small} KiB for one");
        assert!(large < small + 4096, "{args}: {large} KiB against {small}");
    }
}
