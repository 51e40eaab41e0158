//! What `nx sec doctor` finds of what sessions leave and keep: entries and journal.

use logd::{Journal, JournalLimits, KEY_FILE, SystemClock, load_key};
use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Judgement, Record, UnixMillis};
use nx::registry::{SESSIONS, publish};
use nx_sec_host::facts;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A finding of `nx sec doctor --json` with this state directory: its state, why, and its mends.
fn finding(state: &Path, what: &str) -> (String, String, String) {
    let mut command = Command::new(security_v2_host::nx());
    let done = command
        .args(["sec", "doctor", "--json"])
        .env("XDG_STATE_HOME", state)
        .output()
        .unwrap();
    let value: Value = serde_json::from_slice(&done.stdout).unwrap();
    let found = value["findings"].as_array().unwrap();
    let one = found
        .iter()
        .find(|one| one["what"] == what)
        .unwrap_or_else(|| panic!("{value}"));
    let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let said = if text("state") == "available" { "detail" } else { "why" };
    (text("state"), text(said), one["mend"].to_string())
}

#[test]
fn an_entry_that_the_kernel_does_not_vouch_for_is_found_and_one_that_it_does_is_not() {
    let place = tempfile::tempdir().unwrap();
    let runtime = place.path().join("nexus/run");
    let (state, why, _) = finding(place.path(), "sessions");
    assert_eq!(
        (&*state, &*why),
        ("available", "the kernel vouches for every entry that there is")
    );
    let held = publish(&runtime, &facts("a", "s")).unwrap();
    assert_eq!(finding(place.path(), "sessions").0, "available");
    // Its facts name another session.
    let forged = serde_json::to_string(&facts("b", "s")).unwrap();
    std::fs::write(runtime.join(SESSIONS).join("a.json"), forged).unwrap();
    let (state, why, mend) = finding(place.path(), "sessions");
    assert_eq!(state, "degraded");
    assert!(
        why.starts_with("1 entries of sessions cannot be vouched for, the first: "),
        "{why}"
    );
    assert!(mend.contains("nx sec ps"), "{mend}");
    drop(held);
    assert_eq!(
        finding(place.path(), "sessions").0,
        "available",
        "it is gone with its owner"
    );
}

fn record(number: u64) -> Record {
    Record {
        mono_ns: number,
        time: UnixMillis::new(number),
        subject: "demo".into(),
        session: "0123456789ab".into(),
        op: Operation::Syscall,
        object: "unshare(0x0)".into(),
        verdict: Judgement::Deny(Errno::EPERM),
        reason: Reason::AbiNoRule,
        rule: None,
        at: None,
        policy: "77".into(),
        suppressed: 0,
    }
}

#[test]
fn a_journal_whose_chain_does_not_hold_is_found_and_half_a_line_at_its_end_is_none() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("nexus/journal");
    let none = finding(place.path(), "journal");
    assert_eq!(
        (&*none.0, &*none.1),
        (
            "available",
            "it has no records: none was written yet, or somebody removed them"
        )
    );
    std::fs::create_dir(place.path().join("nexus")).unwrap();
    let key = load_key(&directory).unwrap();
    let mut journal = Journal::open(&directory, JournalLimits::DEFAULT, key, Arc::new(SystemClock)).unwrap();
    let batch: Vec<Record> = (0..20).map(record).collect();
    journal.append(&batch).unwrap();
    let (state, why, _) = finding(place.path(), "journal");
    assert_eq!(state, "available", "{why}");
    assert!(why.contains("the chain of its newest file holds"), "{why}");
    let file = directory.join("journal.jsonl");
    let whole = std::fs::read_to_string(&file).unwrap();
    // A writer that was killed in the middle of a line: the next one mends it.
    std::fs::write(&file, &whole[..whole.len() - 9]).unwrap();
    assert_eq!(finding(place.path(), "journal").0, "available");
    std::fs::write(&file, whole.replacen("\"op\":\"syscall\"", "\"op\":\"connect\"", 1)).unwrap();
    let (state, why, mend) = finding(place.path(), "journal");
    assert_eq!(state, "degraded", "{why}");
    assert!(why.contains("does not hold"), "{why}");
    assert!(mend.contains("nx sec audit --verify"), "{mend}");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(finding(place.path(), "journal").0, "available");
    std::fs::remove_file(directory.join(KEY_FILE)).unwrap();
    let (state, why, _) = finding(place.path(), "journal");
    assert_eq!(state, "degraded", "{why}");
    assert!(why.contains("key is gone"), "{why}");
}

#[test]
fn a_journal_whose_lock_a_stopped_process_holds_is_waited_for_two_seconds_and_no_longer() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("nexus/journal");
    std::fs::create_dir(place.path().join("nexus")).unwrap();
    let key = load_key(&directory).unwrap();
    let mut journal = Journal::open(&directory, JournalLimits::DEFAULT, key, Arc::new(SystemClock)).unwrap();
    journal.append(&[record(0)]).unwrap();
    let lock = std::fs::OpenOptions::new()
        .read(true)
        .open(directory.join("journal.lock"))
        .unwrap();
    let look = || {
        let began = Instant::now();
        (finding(place.path(), "journal"), began.elapsed())
    };
    // What the other findings take, with and without: the quickest of two says what is this one's.
    let (free, _) = look();
    assert_eq!(free.0, "available", "{free:?}");
    lock.lock().unwrap();
    let ((state, why, mend), held) = look();
    assert_eq!(state, "degraded", "{why}");
    assert!(why.contains("lock") && mend.len() > 4, "{why} {mend}");
    // It asked again and again before it gave up (the least that 600 pauses of two milliseconds take), and gave up.
    assert!(held >= Duration::from_millis(1200), "{held:?}");
    drop(lock);
    let ((state, why, _), free) = look();
    assert_eq!(state, "available", "{why}");
    assert!(
        held.saturating_sub(free) < Duration::from_secs(60),
        "two seconds, more where each of its pauses is longer for the machine's other work: {held:?} with the lock held, {free:?} without"
    );
}

/// What a user would see, and how the command ends.
fn doctor(state: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(security_v2_host::nx());
    let done = command
        .args(["sec", "doctor"])
        .env("XDG_STATE_HOME", state)
        .output()
        .unwrap();
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

#[test]
fn what_stands_in_the_journals_place_is_found_and_the_command_that_is_named_mends_it() {
    use rustix::fs::{CWD, Mode, mkfifoat};
    type Put = fn(&Path);
    let pipe: Put = |path| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
    let directory: Put = |path| std::fs::create_dir(path).unwrap();
    let link: Put = |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    let text: Put = |path| std::fs::write(path, "no counters").unwrap();
    for (name, put) in [
        ("", pipe),
        ("", link),
        ("", text),
        ("journal.jsonl", pipe),
        ("journal.jsonl", directory),
        ("journal.jsonl", link),
        ("journal.lock", directory),
        ("journal.key", pipe),
        ("counters", pipe),
        ("counters", directory),
        ("counters", text),
    ] {
        let place = tempfile::Builder::new().prefix("it's a ").tempdir().unwrap();
        std::fs::create_dir(place.path().join("nexus")).unwrap();
        let journal = place.path().join("nexus/journal");
        if !name.is_empty() {
            std::fs::DirBuilder::new().create(&journal).unwrap();
        }
        put(&if name.is_empty() {
            journal.clone()
        } else {
            journal.join(name)
        });
        let (state, why, mend) = finding(place.path(), "journal");
        assert_eq!(state, "missing", "{name}: {why}");
        let (code, said) = doctor(place.path());
        assert!(code == Some(4) && said.contains("\nnot ready: "), "{name}: {said}");
        let mend: Value = serde_json::from_str(&mend).unwrap();
        let command = mend[0]["command"].as_str().unwrap();
        assert!(said.contains(&format!("  mend: $ {command}\n")), "{said}");
        let mended = Command::new("/bin/sh").args(["-c", command]).status().unwrap();
        assert!(mended.success(), "{command}");
        let (state, why, _) = finding(place.path(), "journal");
        assert_eq!(state, "available", "{name}: {why}");
    }
}
