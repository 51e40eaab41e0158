//! Disks that are full, and places that cannot be written.

use crate::support::{Place, Process, batch, child, clock, open_at};
use logd::{Journal, JournalError, JournalLimits, load_key, verify};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_meets_the_end_of_the_disk() {
    let Some((path, _)) = child() else { return };
    let mut journal = open_at(&path, JournalLimits::DEFAULT);
    let mut written = 0;
    let failed = loop {
        match journal.append(&batch(written, 20)) {
            Ok(_) => written += 20,
            Err(failed) => break failed,
        }
    };
    assert_eq!(failed.records, 0, "a batch of one write is written whole or not at all");
    assert!(failed.error.errno().is_some(), "{failed}");
    // Not a torn byte is left, and smaller batches still fit or fail cleanly.
    assert!(!verify(&path, None).unwrap().torn);
    let mut single = 0;
    while journal.append(&batch(written + single, 1)).is_ok() {
        single += 1;
    }
    assert!(single < 20);
    let report = verify(&path, Some(&journal.anchor())).unwrap();
    assert!(!report.torn);
    assert_eq!(report.verified.records, (1 + written + single) as u64);
    println!("\nwritten {}", written + single);
}

/// The file size limit stands for the disk's end: the kernel takes a part of a write, then none (setrlimit(2)).
#[test]
fn a_full_disk_is_an_error_that_leaves_whole_records_and_is_over_when_there_is_room() {
    let place = Place::new();
    let mut command = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact full::child_that_meets_the_end_of_the_disk \
                  --ignored --nocapture";
    command.args(["-c", script]).arg(std::env::current_exe().unwrap());
    let mut child = Process::start_command(command, &place.path(), 0);
    let told: Vec<String> = child.lines("written ").collect();
    let written: u64 = told.first().expect("the child failed").parse().unwrap();
    assert!(child.succeeded());
    let mut journal = place.open();
    assert_eq!(journal.anchor().seq, written + 1);
    journal.append(&batch(0, 200)).unwrap();
    verify(&place.path(), None).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_at_the_start() {
    let error = load_key(std::path::Path::new("/proc/nexus-journal")).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    let place = Place::new();
    drop(place.open());
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o500)).unwrap();
    fs::remove_file(place.file("journal.jsonl")).ok();
    let opened = Journal::open(
        &place.path(),
        JournalLimits::DEFAULT,
        nexus_audit::Key::new([0; 32]),
        clock(),
    );
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    // Root writes anywhere; the file was only removed where the directory could still be written.
    assert_eq!(opened.is_ok(), is_root || place.file("journal.jsonl").exists());
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn places_that_others_can_write_and_files_that_are_none_are_refused() {
    let refused = |place: &Place| {
        let opened = Journal::open(
            &place.path(),
            JournalLimits::DEFAULT,
            nexus_audit::Key::new([0; 32]),
            clock(),
        );
        opened.expect_err("accepted").to_string()
    };
    let place = Place::new();
    drop(place.open());
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&place).ends_with("is open to other users; move it away"));
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        Journal::open(
            &place.path(),
            JournalLimits::DEFAULT,
            nexus_audit::Key::new([0; 32]),
            clock()
        )
        .is_ok()
    );

    fs::set_permissions(place.file("journal.jsonl"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&place).ends_with("journal.jsonl` is open to other users; move it away"));
    fs::rename(place.file("journal.jsonl"), place.beside("elsewhere")).unwrap();
    symlink(place.beside("elsewhere"), place.file("journal.jsonl")).unwrap();
    assert!(refused(&place).starts_with("cannot open"));
    fs::remove_file(place.file("journal.jsonl")).unwrap();
    fs::create_dir(place.file("journal.jsonl")).unwrap();
    assert!(refused(&place).starts_with("cannot open"));

    let place = Place::new();
    fs::create_dir(place.beside("real")).unwrap();
    symlink(place.beside("real"), place.path()).unwrap();
    assert!(refused(&place).starts_with("cannot open the directory"));
}

#[test]
fn a_key_of_another_length_is_refused_and_not_replaced() {
    let place = Place::new();
    drop(place.open());
    let key = fs::read(place.file("journal.key")).unwrap();
    for wrong in [&key[..31], &[], &[&key[..], &key[..]].concat()] {
        fs::write(place.file("journal.key"), wrong).unwrap();
        assert!(matches!(load_key(&place.path()), Err(JournalError::Key { .. })));
        assert_eq!(fs::read(place.file("journal.key")).unwrap(), wrong);
    }
    fs::write(place.file("journal.key"), &key).unwrap();
    assert_eq!(load_key(&place.path()).unwrap(), load_key(&place.path()).unwrap());
    verify(&place.path(), None).unwrap();
}
