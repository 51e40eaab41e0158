//! Writers that are killed with SIGKILL in the middle of it.

use crate::support::{Place, Process, SMALL, append_beside, batch, child, open_at};
use logd::verify;
use nexus_abi::Reason;
use std::io::Write;

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_appends_until_it_is_killed() {
    let Some((path, number)) = child() else { return };
    let mut journal = open_at(&path, SMALL);
    let mut out = std::io::stdout().lock();
    for round in number.. {
        let appended = append_beside(&mut journal, &batch(round, 1 + round % 7));
        writeln!(out, "\nseq {}", appended.last_seq).unwrap();
    }
}

#[test]
fn a_writer_killed_at_any_point_leaves_every_record_that_it_told_of_and_a_chain_that_holds() {
    let place = Place::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..25 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let wanted = usize::try_from(seed >> 33).unwrap() % 120;
        let mut writer = Process::start("killed::child_that_appends_until_it_is_killed", &place.path(), round);
        // Its output stays open until it is dead: nothing but the signal ends it.
        let mut lines = writer.lines("seq ");
        let told = lines.nth(wanted).unwrap();
        writer.kill();
        let report = verify(&place.path(), None).unwrap();
        assert!(
            report.verified.last_seq >= told.parse().unwrap(),
            "{report:?} after {told}"
        );
        assert!(place.bytes() <= 3 * 64 * 1024);
        // Read before the next writer mends anything: records are whole, but for a torn end.
        let records = logd::read(&place.path(), logd::Filter::default()).unwrap();
        let unreadable = records.filter(Result::is_err).count();
        assert!(unreadable <= usize::from(report.torn));
    }
    place.open_with(SMALL);
    assert!(!verify(&place.path(), None).unwrap().torn);
}

#[test]
fn two_writers_one_of_which_is_killed_again_and_again_keep_one_chain() {
    let place = Place::new();
    let mut journal = place.open_with(SMALL);
    for round in 0..8 {
        let mut writer = Process::start("killed::child_that_appends_until_it_is_killed", &place.path(), round);
        let mut lines = writer.lines("seq ");
        for step in 0..10 {
            append_beside(&mut journal, &batch(step, 2));
            assert!(lines.next().is_some());
        }
        writer.kill();
        journal.append(&batch(0, 1)).unwrap();
        let report = verify(&place.path(), Some(&journal.anchor())).unwrap();
        assert_eq!(report.anchor, logd::AnchorState::Holds);
    }
    let gone = place
        .records()
        .iter()
        .filter(|record| record.object.contains("are gone"))
        .count();
    assert_eq!(gone, 0);
    assert!(
        place
            .records()
            .iter()
            .any(|record| record.reason == Reason::EgressNoRule)
    );
}
