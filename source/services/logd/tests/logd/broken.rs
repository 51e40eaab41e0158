//! What verification finds, and by which line it says so.

use crate::support::{Place, SMALL, batch};
use logd::{Anchor, AnchorState, VerifyError, verify};
use nexus_audit::Mac;
use std::fs;

fn lines(place: &Place, name: &str) -> Vec<String> {
    fs::read_to_string(place.file(name))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn write(place: &Place, name: &str, lines: &[String]) {
    fs::write(place.file(name), lines.join("\n") + "\n").unwrap();
}

#[test]
fn an_edited_a_removed_and_a_swapped_line_are_named() {
    let place = Place::new();
    place.open().append(&batch(0, 10)).unwrap();
    let whole = lines(&place, "journal.jsonl");
    let named = |lines: &[String]| {
        write(&place, "journal.jsonl", lines);
        verify(&place.path(), None).expect_err("it holds").to_string()
    };
    let mut edited = whole.clone();
    edited[4] = edited[4].replace("203.0.113.7", "203.0.113.8");
    assert!(named(&edited).starts_with("`journal.jsonl` line 5 does not hold: its chain value"));
    let mut removed = whole.clone();
    removed.remove(4);
    assert!(named(&removed).starts_with("`journal.jsonl` line 5 does not hold: it has sequence number `6`"));
    let mut swapped = whole.clone();
    swapped.swap(6, 7);
    assert!(named(&swapped).starts_with("`journal.jsonl` line 7 does not hold"));
    assert!(named(&whole[1..]).starts_with("`journal.jsonl` line 1 does not hold"));
    let mut text = whole.clone();
    text.insert(3, "hello".to_owned());
    assert!(named(&text).starts_with("`journal.jsonl` line 4 does not hold: the line is not a record"));
    text[3] = "x".repeat(10_000);
    assert!(named(&text).starts_with("`journal.jsonl` line 4: the line is longer"));
    write(&place, "journal.jsonl", &whole);
    assert!(verify(&place.path(), None).is_ok());
}

#[test]
fn a_missing_file_in_the_middle_is_found_and_a_missing_oldest_one_is_not_held_against_it() {
    let place = Place::new();
    place.open_with(SMALL).append(&batch(0, 500)).unwrap();
    assert_eq!(verify(&place.path(), None).unwrap().files, 3);
    fs::rename(place.file("journal.1.jsonl"), place.beside("kept")).unwrap();
    let broken = verify(&place.path(), None).unwrap_err();
    assert!(matches!(broken, VerifyError::Broken { line: 1, .. }), "{broken}");
    fs::rename(place.beside("kept"), place.file("journal.1.jsonl")).unwrap();
    fs::remove_file(place.file("journal.2.jsonl")).unwrap();
    assert_eq!(verify(&place.path(), None).unwrap().files, 2);
}

#[test]
fn an_anchor_tells_a_cut_tail_a_rewrite_and_its_own_age() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    journal.append(&batch(0, 10)).unwrap();
    let anchor = journal.anchor();
    assert_eq!(verify(&place.path(), Some(&anchor)).unwrap().anchor, AnchorState::Holds);
    assert_eq!(verify(&place.path(), None).unwrap().anchor, AnchorState::None);
    let other = Anchor {
        mac: Mac::genesis(),
        ..anchor
    };
    assert!(matches!(
        verify(&place.path(), Some(&other)),
        Err(VerifyError::Rewritten { seq: 11 })
    ));
    let whole = lines(&place, "journal.jsonl");
    write(&place, "journal.jsonl", &whole[..9]);
    assert!(verify(&place.path(), None).is_ok(), "without an anchor nobody can tell");
    assert!(matches!(
        verify(&place.path(), Some(&anchor)),
        Err(VerifyError::Cut { anchor: 11, last: 9 })
    ));
    write(&place, "journal.jsonl", &whole);
    journal.append(&batch(0, 1000)).unwrap();
    assert_eq!(
        verify(&place.path(), Some(&anchor)).unwrap().anchor,
        AnchorState::TooOld
    );
}

#[test]
fn another_key_and_no_key_do_not_verify() {
    let place = Place::new();
    place.open().append(&batch(0, 2)).unwrap();
    fs::write(place.file("journal.key"), [1; 32]).unwrap();
    assert!(matches!(
        verify(&place.path(), None),
        Err(VerifyError::Broken { line: 1, .. })
    ));
    fs::remove_file(place.file("journal.key")).unwrap();
    assert!(matches!(verify(&place.path(), None), Err(VerifyError::NoKey)));
}

#[test]
fn a_line_that_is_torn_in_the_middle_is_itself_named_and_not_the_next_one() {
    let place = Place::new();
    place.open_with(SMALL).append(&batch(0, 500)).unwrap();
    let older = fs::read(place.file("journal.1.jsonl")).unwrap();
    fs::write(place.file("journal.1.jsonl"), &older[..older.len() - 5]).unwrap();
    let lines = lines(&place, "journal.1.jsonl").len() as u64;
    let VerifyError::Unreadable { after, unreadable } = verify(&place.path(), None).unwrap_err() else {
        unreachable!("half a line cannot be read")
    };
    assert_eq!((&*unreadable.file, unreadable.line), ("journal.1.jsonl", lines));
    let next = logd::read(&place.path(), logd::Filter::default()).unwrap();
    let first_after = next
        .flatten()
        .find(|entry| &*entry.file == "journal.jsonl")
        .unwrap()
        .seq;
    assert_eq!(after + 2, first_after, "the torn record is the one between them");
}

#[test]
fn a_record_of_another_version_is_named_as_that() {
    let place = Place::new();
    place.open().append(&batch(0, 3)).unwrap();
    let mut newer = lines(&place, "journal.jsonl");
    newer[2] = newer[2].replace("{\"v\":1,", "{\"v\":2,");
    write(&place, "journal.jsonl", &newer);
    let said = verify(&place.path(), None).unwrap_err().to_string();
    assert!(said.contains("line 3") && said.contains("version `2`"), "{said}");
}

#[test]
fn the_newest_file_alone_is_checked_from_what_it_continues() {
    let place = Place::new();
    place.open_with(SMALL).append(&batch(0, 500)).unwrap();
    let older = fs::read_to_string(place.file("journal.1.jsonl")).unwrap();
    fs::write(
        place.file("journal.1.jsonl"),
        older.replace("203.0.113.7", "203.0.113.8"),
    )
    .unwrap();
    assert!(verify(&place.path(), None).is_err());
    let newest = logd::verify_newest(&place.path()).unwrap();
    assert_eq!(newest.files, 1);
    let mut own = lines(&place, "journal.jsonl");
    own[1] = own[1].replace("203.0.113.7", "203.0.113.8");
    write(&place, "journal.jsonl", &own);
    assert!(matches!(
        logd::verify_newest(&place.path()),
        Err(VerifyError::Broken { line: 2, .. })
    ));
}
