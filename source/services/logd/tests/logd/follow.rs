//! What who follows a journal gets.

use crate::support::{Place, SMALL, batch};
use logd::{Filter, Followed, Follower, Problem, follow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::io::Write;

fn open(place: &Place) -> Follower {
    follow(&place.path(), Filter::default()).unwrap()
}

/// Everything there is now: sequence numbers, and in words what is no record.
fn now(follower: &mut Follower) -> Vec<String> {
    follower.look().unwrap();
    let mut all = Vec::new();
    while let Some(followed) = follower.read_next().unwrap() {
        all.push(match followed {
            Followed::Entry(entry) => entry.seq.to_string(),
            Followed::Unreadable(unreadable) => unreadable.to_string(),
            Followed::Gap { after, next } => format!("gap {after} {next}"),
        });
    }
    all
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|seq| seq.to_string()).collect()
}

/// Whether the descriptor calls. The kernel has queued a notice before write(2) returns, so nothing is waited for.
fn calls(follower: &Follower) -> bool {
    let mut fds = [PollFd::new(follower, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn what_is_appended_is_given_once_and_the_descriptor_calls_only_then() {
    let place = Place::new();
    let mut journal = place.open();
    let mut follower = open(&place);
    assert_eq!(now(&mut follower), ["1"]);
    assert!(!calls(&follower));
    journal.append(&batch(0, 2)).unwrap();
    assert!(calls(&follower));
    assert_eq!(now(&mut follower), ["2", "3"]);
    assert!(!calls(&follower));
    assert_eq!(now(&mut follower), Vec::<String>::new());
}

#[test]
fn several_rotations_between_two_looks_lose_nothing() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    let mut follower = open(&place);
    assert_eq!(now(&mut follower), ["1"]);
    // Two rotations of three files: all of it is still there.
    let last = journal.append(&batch(0, 400)).unwrap().last_seq;
    assert!(place.file("journal.2.jsonl").exists());
    assert_eq!(now(&mut follower), numbers(2..=last));
    let after = journal.append(&batch(0, 400)).unwrap().last_seq;
    assert_eq!(now(&mut follower), numbers(last + 1..=after));
}

#[test]
fn what_was_rotated_away_unread_is_told_as_a_gap() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    let mut follower = open(&place);
    assert_eq!(now(&mut follower), ["1"]);
    journal.append(&batch(0, 2000)).unwrap();
    let kept = logd::read(&place.path(), Filter::default()).unwrap();
    let kept: Vec<u64> = kept.map(|entry| entry.unwrap().seq).collect();
    // What the follower has open is read to its end, also where it has no name any more.
    let seen = now(&mut follower);
    let gap = seen.iter().position(|one| one.starts_with("gap ")).unwrap();
    assert_eq!(seen[gap], format!("gap {} {}", gap + 1, kept[0]));
    assert_eq!(seen[gap + 1..], numbers(kept[0]..=*kept.last().unwrap()));
}

#[test]
fn half_a_line_is_waited_for_and_one_that_is_mended_is_never_given() {
    let place = Place::new();
    let mut journal = place.open();
    journal.append(&batch(0, 3)).unwrap();
    let whole = fs::read(place.file("journal.jsonl")).unwrap();
    let start = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    fs::write(place.file("journal.jsonl"), &whole[..start + 20]).unwrap();
    let mut follower = open(&place);
    assert_eq!(now(&mut follower), ["1", "2", "3"]);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(place.file("journal.jsonl"))
        .unwrap();
    file.write_all(&whole[start + 20..whole.len() - 1]).unwrap();
    assert_eq!(now(&mut follower), Vec::<String>::new());
    file.write_all(b"\n").unwrap();
    assert_eq!(now(&mut follower), ["4"]);
    // A writer that was killed leaves half a line, which the next one cuts off: what it writes there comes whole.
    file.write_all(b"{\"v\":1,\"seq\":5,").unwrap();
    assert_eq!(now(&mut follower), Vec::<String>::new());
    drop(journal);
    let last = place.open().append(&batch(0, 1)).unwrap().last_seq;
    assert_eq!(now(&mut follower), numbers(5..=last));
}

#[test]
fn whole_lines_that_were_cut_off_are_no_reason_to_miss_what_follows_or_to_say_anything_twice() {
    let place = Place::new();
    let mut journal = place.open();
    journal.append(&batch(0, 2)).unwrap();
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(place.file("journal.jsonl"))
        .unwrap();
    file.write_all(&b"hello\n".repeat(200)).unwrap();
    let mut follower = open(&place);
    assert_eq!(now(&mut follower).len(), 3 + 200);
    drop(journal);
    // The next writer takes those lines for a torn tail, cuts them off and notes it: shorter than what was read.
    let last = place.open().append(&batch(0, 1)).unwrap().last_seq;
    assert_eq!(now(&mut follower), numbers(4..=last));
}

#[test]
fn a_line_that_is_too_long_is_told_once_in_bounded_memory() {
    let place = Place::new();
    drop(place.open());
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(place.file("journal.jsonl"))
        .unwrap();
    let mut follower = open(&place);
    assert_eq!(now(&mut follower), ["1"]);
    for _ in 0..3 {
        file.write_all(&vec![b'x'; 300_000]).unwrap();
        assert_eq!(now(&mut follower), Vec::<String>::new());
    }
    file.write_all(b"\nhello\n").unwrap();
    let said = now(&mut follower);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("line 2: the line is longer") && said[1].contains("line 3: the line is not a record"));
}

#[test]
fn half_a_line_in_a_file_that_is_written_no_more_is_torn() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    journal.append(&batch(0, 400)).unwrap();
    let older = fs::read(place.file("journal.1.jsonl")).unwrap();
    fs::write(place.file("journal.1.jsonl"), &older[..older.len() - 5]).unwrap();
    let mut follower = open(&place);
    let torn: Vec<_> = std::iter::from_fn(|| follower.read_next().unwrap())
        .filter_map(|followed| match followed {
            Followed::Unreadable(unreadable) => Some(unreadable),
            _ => None,
        })
        .collect();
    assert_eq!(torn.len(), 1);
    assert!(matches!(torn[0].problem, Problem::Torn) && &*torn[0].file == "journal.1.jsonl");
}

#[test]
fn a_journal_that_is_begun_anew_is_followed_from_its_start() {
    let place = Place::new();
    place.open().append(&batch(0, 5)).unwrap();
    let mut follower = open(&place);
    assert_eq!(now(&mut follower).len(), 6);
    fs::remove_file(place.file("journal.jsonl")).unwrap();
    place.open().append(&batch(0, 1)).unwrap();
    assert_eq!(now(&mut follower), ["gap 6 1", "1", "2"]);
}

#[test]
fn a_directory_that_goes_away_ends_it() {
    let place = Place::new();
    drop(place.open());
    let mut follower = open(&place);
    fs::rename(place.path(), place.beside("elsewhere")).unwrap();
    assert!(calls(&follower));
    assert!(follower.look().is_err());
}
