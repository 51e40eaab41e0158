//! Readers of a journal at the size that `nx run` lets it grow to, and of a million records, in bounded memory.

use logd::{Journal, JournalLimits, SystemClock, load_key};
use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Judgement, Record, UnixMillis};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;

/// What a reader may have of memory of its own, whatever the journal's length, in KiB: heap, stacks and what else it may write
/// (`RLIMIT_DATA`, getrlimit(2)). The shipped maximum of a journal is four times that.
const DATA_KIB_MAX: u32 = 16 * 1024;

/// With it, a journal of a million records, and not only one of the shipped maximum.
const LONG: &str = "NEXUS_LONG";

fn record(number: u64) -> Record {
    Record {
        mono_ns: number,
        time: UnixMillis::new(1_700_000_000_000 + number),
        subject: if number.is_multiple_of(2) {
            "demo".into()
        } else {
            "other".into()
        },
        session: "0123456789ab".into(),
        op: Operation::Connect,
        object: format!("tcp 192.0.2.{}:{}", number % 256, number % 65_536).into(),
        verdict: Judgement::Deny(Errno::EPERM),
        reason: Reason::EgressNoRule,
        rule: Some("egress:ba2ffd4fda1be482".into()),
        at: Some("egress.toml:17".into()),
        policy: "46e9800fa29fb67f32ff6cb313359373669b4402c79eb4993021f656b94fd3d1".into(),
        suppressed: 0,
    }
}

/// Writes so many records, and says how many of them are kept.
fn write(state: &Path, count: u64, limits: JournalLimits) -> u64 {
    const BATCH: u64 = 1000;
    std::fs::create_dir(state.join("nexus")).unwrap();
    let directory = state.join("nexus/journal");
    let key = load_key(&directory).unwrap();
    let mut journal = Journal::open(&directory, limits, key, Arc::new(SystemClock)).unwrap();
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap()) {
        let batch: Vec<Record> = (first..count.min(first + BATCH)).map(record).collect();
        journal.append(&batch).unwrap();
    }
    let report = logd::verify(&directory, None).unwrap();
    report.verified.records
}

/// `nx sec WORDS`, with no more memory than that.
fn bounded(state: &Path, words: &[&str], kib: u32) -> Output {
    let began = Instant::now();
    let script = format!("ulimit -d {kib} || exit 99; exec \"$@\"");
    let done = Command::new("/bin/bash")
        .args(["-c", &script, "bash"])
        .arg(security_v2_host::nx())
        .arg("sec")
        .args(words)
        .env("XDG_STATE_HOME", state)
        .output()
        .unwrap();
    eprintln!("nx sec {}: {:?}", words.join(" "), began.elapsed());
    done
}

#[test]
fn no_reader_holds_a_journal_in_memory_however_long_it_is() {
    let place = tempfile::tempdir().unwrap();
    let long = std::env::var_os(LONG).is_some();
    let (count, limits) = if long {
        let limits = JournalLimits {
            files_max: 100,
            ..JournalLimits::DEFAULT
        };
        (1_000_000, limits)
    } else {
        // More than fit: what is kept is the most that there can be, once rotated.
        (200_000, JournalLimits::DEFAULT)
    };
    let kept = write(place.path(), count, limits);
    let bytes: u64 = std::fs::read_dir(place.path().join("nexus/journal"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    eprintln!("{kept} records, {bytes} bytes");
    assert!(
        bytes > 3 * u64::from(DATA_KIB_MAX) * 1024,
        "{bytes} bytes are more than a reader may hold"
    );
    let fine = |words: &[&str]| {
        let done = bounded(place.path(), words, DATA_KIB_MAX);
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {:?} {err}", done.status);
        done.stdout
    };
    let lines = |out: &[u8]| out.iter().filter(|byte| **byte == b'\n').count() as u64;
    // What a reader of everything prints goes through a pipe to this test, which holds it.
    assert_eq!(lines(&fine(&["audit", "--json"])), kept);
    let some = lines(&fine(&["audit", "--subject", "demo"]));
    // What the journal says of itself, at each file's start, is of no subject.
    assert!(some <= kept / 2 && some > kept / 2 - 200, "{some} of {kept}");
    let verified: serde_json::Value = serde_json::from_slice(&fine(&["audit", "--verify", "--json"])).unwrap();
    assert_eq!((&verified["ok"], &verified["records"]), (&true.into(), &kept.into()));
    let document: serde_json::Value = serde_json::from_slice(&fine(&["export"])).unwrap();
    let journal = &document["journal"];
    assert_eq!(
        journal["records"].as_array().unwrap().len(),
        1000,
        "{}",
        journal["chain"]
    );
    assert_eq!(journal["earlier_records_left_out"], kept - 1000);
    assert_eq!(journal["chain"]["ok"], true);
    // Nobody counted them.
    let counted = bounded(place.path(), &["counters"], DATA_KIB_MAX);
    let said = String::from_utf8_lossy(&counted.stdout);
    assert_eq!(counted.status.code(), Some(4), "{said}");
    assert_eq!(
        said.lines()
            .filter(|line| line.contains("has none of the subject"))
            .count(),
        2,
        "{said}"
    );
    // The bound is one that counts: with next to nothing the same command does not even begin.
    assert!(!bounded(place.path(), &["audit", "--verify"], 64).status.success());
}
