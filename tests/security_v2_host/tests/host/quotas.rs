//! "quotas: write until limit exceeded → EDQUOTA and deny event recorded". Linux calls it `EDQUOT`.

use nexus_abi::{Area, Errno, Operation, Reason};
use nexus_audit::{Counter, Judgement};
use nexus_quota::Amount;

use crate::desk::Desk;

const BLOCK: u64 = 4096;

#[test]
fn writing_until_the_limit_is_passed_gets_edquot_and_a_deny_event() {
    for area in [Area::Tmp, Area::State] {
        let mut desk = Desk::new("demo");
        let (mut len, mut written) = (0, 0_u64);
        let answer = loop {
            match desk.append(area, &mut len, 1 << 20) {
                Ok(()) => written += 1 << 20,
                Err(errno) => break errno,
            }
        };
        assert_eq!(answer, Errno::EDQUOT);
        assert_eq!(written, 64 << 20, "to the last byte of the shipped budget");
        assert_eq!(desk.used(area), Amount::of_bytes(64 << 20));
        let record = desk.last();
        assert_eq!(record.verdict, Judgement::Deny(Errno::EDQUOT));
        assert_eq!((record.op, record.reason), (Operation::Write, Reason::QuotaHardBytes));
        assert!(record.at.as_deref().unwrap().starts_with("quotas.toml:"));
        assert_eq!(desk.count(Counter::QuotaDenies), 1);
    }
}

#[test]
fn the_last_byte_fits_and_one_more_does_not() {
    let mut desk = Desk::new("other");
    let mut len = 0;
    assert_eq!(desk.append(Area::Tmp, &mut len, 2 * BLOCK), Ok(()));
    assert_eq!(desk.append(Area::Tmp, &mut len, 1), Err(Errno::EDQUOT));
    let mut desk = Desk::new("other");
    let mut len = 0;
    assert_eq!(desk.append(Area::Tmp, &mut len, 2 * BLOCK + 1), Err(Errno::EDQUOT));
    assert_eq!(desk.used(Area::Tmp), Amount::ZERO, "denied whole");
}

#[test]
fn a_write_inside_what_is_paid_for_is_never_denied() {
    let mut desk = Desk::new("other");
    let mut len = 0;
    assert_eq!(desk.append(Area::Tmp, &mut len, 2 * BLOCK - 100), Ok(()));
    assert_eq!(desk.append(Area::Tmp, &mut len, 100), Ok(()));
    assert_eq!(desk.append(Area::Tmp, &mut len, 1), Err(Errno::EDQUOT));
}

#[test]
fn the_last_file_is_made_and_one_more_is_not() {
    let mut desk = Desk::new("other");
    assert_eq!(desk.create(Area::Tmp), Ok(()));
    assert_eq!(desk.create(Area::Tmp), Ok(()));
    assert_eq!(desk.create(Area::Tmp), Err(Errno::EDQUOT));
    let record = desk.last();
    assert_eq!((record.op, record.reason), (Operation::Create, Reason::QuotaHardInodes));
    assert_eq!(desk.count(Counter::QuotaDenies), 1);
}

#[test]
fn an_area_that_policy_gives_nothing_takes_nothing() {
    let mut desk = Desk::new("demo");
    assert_eq!(desk.append(Area::Work, &mut 0, 1), Err(Errno::EDQUOT));
    assert_eq!(desk.create(Area::Work), Err(Errno::EDQUOT));
}

#[test]
fn each_area_and_each_subject_has_a_budget_of_its_own() {
    let mut desk = Desk::new("other");
    assert_eq!(desk.append(Area::Tmp, &mut 0, 2 * BLOCK), Ok(()));
    assert_eq!(desk.append(Area::Tmp, &mut 0, 1), Err(Errno::EDQUOT));
    assert_eq!(desk.append(Area::State, &mut 0, 1 << 20), Ok(()));
    let mut demo = Desk::new("demo");
    assert_eq!(demo.append(Area::Tmp, &mut 0, 1 << 20), Ok(()));
}

#[test]
fn crossing_the_soft_limit_is_one_warning_and_no_deny() {
    let mut desk = Desk::new("other");
    let mut len = 0;
    assert_eq!(desk.append(Area::Tmp, &mut len, BLOCK), Ok(()));
    assert!(desk.records().is_empty(), "at the soft limit");
    assert_eq!(desk.append(Area::Tmp, &mut len, 1), Ok(()));
    assert_eq!(desk.append(Area::Tmp, &mut len, 1), Ok(()));
    let records = desk.records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].verdict, records[0].reason),
        (Judgement::Warn, Reason::QuotaSoftBytes)
    );
    assert_eq!(desk.count(Counter::QuotaDenies), 0);
}
