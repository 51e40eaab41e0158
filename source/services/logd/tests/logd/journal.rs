//! Appending, rotating, and several writers.

use crate::support::{Place, Process, SMALL, append_beside, batch, child, clock, open_at, record};
use logd::{AnchorState, Journal, JournalLimits, LimitsError, load_key, verify};
use nexus_abi::Reason;
use nexus_audit::LINE_BYTES_MAX;
use std::os::unix::fs::PermissionsExt;

#[test]
fn what_is_appended_is_read_back_in_order_and_holds() {
    let place = Place::new();
    let mut journal = place.open();
    let appended = journal.append(&batch(0, 10)).unwrap();
    assert_eq!(
        (appended.first_seq, appended.last_seq),
        (2, 11),
        "the first line says where the journal starts"
    );
    drop(journal);
    let mut journal = place.open();
    assert_eq!(journal.append(&batch(10, 1)).unwrap().first_seq, 12);
    assert_eq!(journal.append(&[]).unwrap().last_seq, 12);
    let records = place.records();
    assert_eq!(records[0].reason, Reason::JournalStart);
    assert_eq!(records[1..], batch(0, 11));
    let report = verify(&place.path(), Some(&journal.anchor())).unwrap();
    assert_eq!(
        (report.verified.records, report.verified.first_seq, report.files),
        (12, 1, 1)
    );
    assert_eq!(report.anchor, AnchorState::Holds);
    for name in ["journal.jsonl", "journal.lock", "journal.key"] {
        let mode = std::fs::metadata(place.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn a_journal_that_was_replaced_by_one_of_the_same_length_is_seen() {
    let place = Place::new();
    let mut journal = place.open();
    journal.append(&batch(0, 3)).unwrap();
    // As a backup that is played back does: the same bytes in another file.
    let (current, copy) = (place.file("journal.jsonl"), place.file("copy"));
    std::fs::copy(&current, &copy).unwrap();
    std::fs::rename(&copy, &current).unwrap();
    journal.append(&batch(3, 1)).unwrap();
    assert_eq!(place.records()[1..], batch(0, 4));
    let report = verify(&place.path(), Some(&journal.anchor())).unwrap();
    assert_eq!(report.anchor, AnchorState::Holds);
}

#[test]
fn rotation_keeps_the_bound_and_the_chain_and_drops_the_oldest() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    let bound = SMALL.file_bytes_max * u64::from(SMALL.files_max);
    let mut first_seq = 1;
    for round in 0..60 {
        journal.append(&batch(round * 40, 40)).unwrap();
        assert!(place.bytes() <= bound, "{} in round {round}", place.bytes());
        let report = verify(&place.path(), Some(&journal.anchor())).unwrap();
        assert_eq!(report.anchor, AnchorState::Holds);
        assert!(report.files <= 3 && report.verified.first_seq >= first_seq);
        first_seq = report.verified.first_seq;
    }
    assert!(first_seq > 100, "{first_seq}");
    let records = place.records();
    assert_eq!(records.last(), batch(59 * 40, 40).last());
    assert_eq!(records[0].reason, Reason::JournalStart);
    assert!(!place.file("journal.3.jsonl").exists());
}

#[test]
fn a_batch_longer_than_a_file_is_written_over_several() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    let long = "\u{1}".repeat(512);
    let records: Vec<_> = (0..100).map(|_| record(&long)).collect();
    assert!(records.len() * 3000 > 2 * 64 * 1024 && 3600 < LINE_BYTES_MAX);
    journal.append(&records).unwrap();
    assert!(place.bytes() <= 3 * 64 * 1024);
    verify(&place.path(), None).unwrap();
}

#[test]
fn fewer_files_than_before_remove_the_oldest_at_the_next_rotation() {
    let place = Place::new();
    let mut journal = place.open_with(JournalLimits { files_max: 6, ..SMALL });
    journal.append(&batch(0, 2000)).unwrap();
    assert!(place.file("journal.5.jsonl").exists());
    let mut journal = place.open_with(JournalLimits { files_max: 2, ..SMALL });
    journal.append(&batch(0, 400)).unwrap();
    assert!(place.file("journal.1.jsonl").exists() && !place.file("journal.2.jsonl").exists());
    assert!(!place.file("journal.5.jsonl").exists());
    verify(&place.path(), None).unwrap();
}

#[test]
fn a_rotation_that_was_killed_between_two_renames_goes_on() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    journal.append(&batch(0, 300)).unwrap();
    let last = journal.anchor().seq;
    drop(journal);
    // The file was renamed and the new one not made; and a name is missing in the row.
    std::fs::rename(place.file("journal.1.jsonl"), place.file("journal.2.jsonl")).unwrap();
    std::fs::rename(place.file("journal.jsonl"), place.file("journal.1.jsonl")).unwrap();
    let mut journal = place.open_with(SMALL);
    assert_eq!(journal.anchor().seq, last + 1);
    journal.append(&batch(0, 1)).unwrap();
    assert_eq!(verify(&place.path(), None).unwrap().verified.last_seq, last + 2);
    // Made and not yet begun.
    let last = journal.anchor().seq;
    drop(journal);
    for index in [1, 0] {
        let name = if index == 0 {
            "journal.jsonl".to_owned()
        } else {
            format!("journal.{index}.jsonl")
        };
        std::fs::rename(place.file(&name), place.file(&format!("journal.{}.jsonl", index + 1))).unwrap();
    }
    std::fs::write(place.file("journal.jsonl"), "").unwrap();
    std::fs::set_permissions(place.file("journal.jsonl"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(place.open_with(SMALL).anchor().seq, last + 1);
    verify(&place.path(), None).unwrap();
}

#[test]
fn two_openers_of_one_process_append_in_turn_and_keep_one_chain() {
    let place = Place::new();
    let (mut a, mut b) = (place.open_with(SMALL), place.open_with(SMALL));
    for round in 0..200 {
        let (one, other) = if round % 3 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let first = one.append(&batch(round, 3)).unwrap();
        let second = other.append(&batch(round, 2)).unwrap();
        assert!(second.first_seq > first.last_seq);
    }
    verify(&place.path(), Some(&a.anchor())).unwrap();
}

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_appends_two_hundred_batches() {
    let Some((path, number)) = child() else { return };
    let mut journal = open_at(
        &path,
        JournalLimits {
            file_bytes_max: 64 * 1024,
            files_max: 100,
        },
    );
    for round in 0..200 {
        append_beside(&mut journal, &batch(number * 1000 + round, 1 + round % 5));
    }
    journal.sync().unwrap();
}

#[test]
fn processes_that_append_at_once_keep_one_chain_and_lose_nothing() {
    let place = Place::new();
    let test = "journal::child_that_appends_two_hundred_batches";
    let mut children: Vec<Process> = (0..3)
        .map(|number| Process::start(test, &place.path(), number))
        .collect();
    for child in &mut children {
        assert!(child.succeeded());
    }
    let report = verify(&place.path(), None).unwrap();
    assert!(report.files > 3);
    let written = place
        .records()
        .iter()
        .filter(|record| record.reason == Reason::EgressNoRule)
        .count();
    assert_eq!(written, 3 * 200 * 3);
    assert!(
        place
            .records()
            .iter()
            .all(|record| record.reason != Reason::JournalTorn)
    );
}

#[test]
fn limits_that_make_no_journal_are_refused() {
    let place = Place::new();
    let key = load_key(&place.path()).unwrap();
    let open = |limits| Journal::open(&place.path(), limits, key.clone(), clock());
    assert!(
        open(JournalLimits {
            file_bytes_max: 64 * 1024,
            files_max: 2
        })
        .is_ok()
    );
    let short = JournalLimits {
        file_bytes_max: 64 * 1024 - 1,
        files_max: 2,
    };
    assert_eq!(short.check(), Err(LimitsError::FileBytes(65535)));
    assert!(open(short).is_err());
    assert!(open(JournalLimits { files_max: 1, ..SMALL }).is_err());
    assert!(
        open(JournalLimits {
            files_max: 1001,
            ..SMALL
        })
        .is_err()
    );
}
