//! Tails that a killed writer, a power cut or an editor left.

use crate::support::{Place, SMALL, batch};
use logd::{Filter, Problem, read, verify};
use nexus_abi::Reason;
use std::fs;

#[test]
fn a_tail_torn_at_any_length_is_cut_and_told_of() {
    let place = Place::new();
    place.open().append(&batch(0, 4)).unwrap();
    let whole = fs::read(place.file("journal.jsonl")).unwrap();
    let ends: Vec<usize> = (1..=whole.len()).filter(|end| whole[end - 1] == b'\n').collect();
    for length in 0..=whole.len() {
        fs::write(place.file("journal.jsonl"), &whole[..length]).unwrap();
        let good = ends.iter().filter(|end| **end <= length).max().copied().unwrap_or(0);
        let torn = length - good;
        let before = verify(&place.path(), None);
        assert_eq!(before.unwrap().torn, torn > 0, "{length}");

        let mut journal = place.open();
        let after = fs::read(place.file("journal.jsonl")).unwrap();
        assert_eq!(after[..good], whole[..good]);
        let kept = ends.iter().filter(|end| **end <= length).count();
        let records = place.records();
        assert_eq!(
            records.len(),
            kept + usize::from(kept == 0) + usize::from(torn > 0),
            "{length}"
        );
        if torn > 0 {
            let note = records.last().unwrap();
            assert_eq!(note.reason, Reason::JournalTorn);
            assert!(
                note.object.starts_with(&format!("{torn} bytes after record {kept} ")),
                "{}",
                note.object
            );
            assert_eq!(fs::read(place.file("journal.torn")).unwrap(), whole[good..length]);
        }
        journal.append(&batch(9, 1)).unwrap();
        assert!(!verify(&place.path(), Some(&journal.anchor())).unwrap().torn);
    }
}

#[test]
fn zeros_text_and_broken_records_after_the_last_record_are_cut() {
    let place = Place::new();
    place.open().append(&batch(0, 4)).unwrap();
    let whole = fs::read(place.file("journal.jsonl")).unwrap();
    for junk in [
        vec![0; 4096],
        b"hello\n".to_vec(),
        b"\n\n\n".to_vec(),
        vec![b'x'; 200_000],
        [vec![b'\n'; 50_000], vec![0xff; 50_000]].concat(),
        whole[..whole.len() - 2]
            .iter()
            .copied()
            .chain(*b"x\n")
            .skip_while(|byte| *byte != b'\n')
            .collect(),
    ] {
        let mut torn = whole.clone();
        torn.extend_from_slice(&junk);
        fs::write(place.file("journal.jsonl"), &torn).unwrap();
        drop(place.open());
        let last = verify(&place.path(), None);
        if junk.len() > 4096 || junk.len() < 20 || junk[0] == 0 {
            let report = last.unwrap();
            assert_eq!(report.verified.records, 6);
            let note = place.records().pop().unwrap();
            assert!(
                note.object
                    .starts_with(&format!("{} bytes after record 5 ", junk.len())),
                "{}",
                note.object
            );
        }
    }
}

#[test]
fn a_journal_of_nothing_but_junk_starts_anew_where_the_older_file_ended() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    journal.append(&batch(0, 300)).unwrap();
    drop(journal);
    fs::write(place.file("journal.jsonl"), b"junk").unwrap();
    let older = logd::read(&place.path(), Filter::default())
        .unwrap()
        .filter_map(Result::ok)
        .last()
        .unwrap()
        .seq;
    let journal = place.open_with(SMALL);
    assert_eq!(journal.anchor().seq, older + 2);
    verify(&place.path(), None).unwrap();
}

#[test]
fn a_torn_line_is_told_to_a_reader_and_mended_only_by_a_writer() {
    let place = Place::new();
    place.open().append(&batch(0, 2)).unwrap();
    let whole = fs::read(place.file("journal.jsonl")).unwrap();
    fs::write(place.file("journal.jsonl"), &whole[..whole.len() - 1]).unwrap();
    let last = read(&place.path(), Filter::default()).unwrap().last().unwrap();
    assert!(matches!(last.unwrap_err().problem, Problem::Torn));
    assert_eq!(fs::read(place.file("journal.jsonl")).unwrap().len(), whole.len() - 1);
}

#[test]
fn a_tail_that_is_cut_while_a_writer_has_it_open_is_noted_by_that_writer() {
    let place = Place::new();
    let mut journal = place.open();
    journal.append(&batch(0, 8)).unwrap();
    let anchor = journal.anchor();
    let whole = fs::read(place.file("journal.jsonl")).unwrap();
    let line = whole.iter().position(|byte| *byte == b'\n').unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(place.file("journal.jsonl"))
        .unwrap()
        .set_len(line as u64 + 1)
        .unwrap();
    journal.append(&batch(20, 1)).unwrap();
    let records = place.records();
    assert_eq!(&*records[1].object, "records 2 to 9 were written and are gone");
    assert_eq!(records[2], batch(20, 1)[0]);
    let cut = verify(&place.path(), Some(&anchor)).unwrap_err().to_string();
    assert_eq!(
        cut,
        "the anchor names record 9, and the journal ends with record 3: its tail was cut off"
    );
}
