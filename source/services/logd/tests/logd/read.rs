//! What a reader gets.

use crate::support::{Place, SMALL, batch, record};
use logd::{Filter, Problem, read};
use nexus_abi::Reason;
use nexus_audit::{ReadError, Record, UnixMillis};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

#[test]
fn records_come_oldest_first_over_all_files_with_their_place() {
    let place = Place::new();
    place.open_with(SMALL).append(&batch(0, 500)).unwrap();
    let entries: Vec<_> = read(&place.path(), Filter::default())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(entries.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    assert_eq!((&*entries[0].file, entries[0].line), ("journal.2.jsonl", 1));
    assert_eq!(&*entries.last().unwrap().file, "journal.jsonl");
}

#[test]
fn each_part_of_a_filter_keeps_what_matches_and_drops_its_neighbour() {
    let place = Place::new();
    let time = UnixMillis::new;
    let one = |object: &str, millis| Record {
        time: time(millis),
        ..record(object)
    };
    let others = [
        Record {
            subject: Arc::from("other"),
            ..one("subject", 1000)
        },
        Record {
            session: Arc::from("demo-8"),
            ..one("session", 2000)
        },
        Record {
            reason: Reason::AbiNoRule,
            ..one("reason", 3000)
        },
        one("last", 4000),
    ];
    place.open().append(&others).unwrap();
    let objects = |filter: Filter| {
        let all = read(&place.path(), filter).unwrap().map(|entry| entry.unwrap().record);
        let denies = all.filter(|record| record.reason != Reason::JournalStart);
        denies
            .map(|record| record.object.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let any = Filter::default;
    assert_eq!(objects(any()), "subject session reason last");
    assert_eq!(
        objects(Filter {
            subject: Some(Arc::from("demo")),
            ..any()
        }),
        "session reason last"
    );
    assert_eq!(
        objects(Filter {
            session: Some(Arc::from("demo-8")),
            ..any()
        }),
        "session"
    );
    assert_eq!(
        objects(Filter {
            reason: Some(Reason::AbiNoRule),
            ..any()
        }),
        "reason"
    );
    assert_eq!(
        objects(Filter {
            since: Some(time(2000)),
            until: Some(time(3000)),
            ..any()
        }),
        "session reason"
    );
    assert_eq!(
        objects(Filter {
            since: Some(time(2001)),
            until: Some(time(2999)),
            ..any()
        }),
        ""
    );
    assert_eq!(
        objects(Filter {
            first_seq: Some(3),
            last_seq: Some(4),
            ..any()
        }),
        "session reason"
    );
}

#[test]
fn lines_that_are_no_record_are_told_and_the_others_still_come() {
    let place = Place::new();
    place.open().append(&batch(0, 2)).unwrap();
    let whole = fs::read_to_string(place.file("journal.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let long = "y".repeat(1_000_000);
    fs::write(
        place.file("journal.jsonl"),
        [lines[0], "junk", &long, "", lines[1], lines[2], ""].join("\n"),
    )
    .unwrap();
    let all: Vec<_> = read(&place.path(), Filter::default()).unwrap().collect();
    let kinds: Vec<_> = all
        .iter()
        .map(|entry| match entry {
            Ok(entry) => (entry.line, "record"),
            Err(unreadable) => match unreadable.problem {
                Problem::Line(ReadError::NotARecord) => (unreadable.line, "junk"),
                Problem::Line(ReadError::TooLong) => (unreadable.line, "long"),
                _ => (unreadable.line, "other"),
            },
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (1, "record"),
            (2, "junk"),
            (3, "long"),
            (4, "junk"),
            (5, "record"),
            (6, "record")
        ]
    );
}

#[test]
fn a_directory_without_a_journal_is_empty_and_no_directory_is_an_error() {
    let place = Place::new();
    assert!(read(&place.path(), Filter::default()).is_err());
    fs::create_dir(place.path()).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(read(&place.path(), Filter::default()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "a reader makes nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_read_verified_and_mended_without_panic(
        head in 0_usize..2000,
        junk in prop::collection::vec(any::<u8>(), 0..3000),
        newlines in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let place = Place::new();
        place.open().append(&batch(0, 4)).unwrap();
        let mut bytes = fs::read(place.file("journal.jsonl")).unwrap();
        bytes.truncate(head);
        bytes.extend_from_slice(&junk);
        for at in newlines {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = b'\n';
            }
        }
        fs::write(place.file("journal.jsonl"), &bytes).unwrap();
        let _ = read(&place.path(), Filter::default()).unwrap().count();
        let _ = logd::verify(&place.path(), None);
        let mut journal = place.open();
        let appended = journal.append(&batch(7, 1)).unwrap();
        let last = read(&place.path(), Filter::default()).unwrap().last().unwrap().unwrap();
        prop_assert_eq!((last.seq, last.record), (appended.last_seq, batch(7, 1).remove(0)));
    }
}
