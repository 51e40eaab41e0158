//! What counts as what.

use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Counter, Counters, Judgement, SUBJECTS_MAX, TooManySubjects};
use std::sync::Arc;

#[test]
fn every_deny_counts_by_its_area_and_nothing_else_counts() {
    let deny = Judgement::Deny(Errno::EPERM);
    for reason in Reason::ALL {
        let expected = match reason.as_str().split_once('.').unwrap().0 {
            "abi" => Some(Counter::AbiDenies),
            "egress" => Some(Counter::EgressDenies),
            "quota" => Some(Counter::QuotaDenies),
            _ => None,
        };
        assert_eq!(Counter::of_record(deny, *reason), expected, "{reason}");
        assert_eq!(Counter::of_record(Judgement::Warn, *reason), None);
        assert_eq!(Counter::of_record(Judgement::Note, *reason), None);
    }
}

#[test]
fn a_destination_let_through_counts_and_a_syscall_let_through_does_not() {
    for op in Operation::ALL {
        let destination = matches!(op, Operation::Connect | Operation::Send | Operation::Bind);
        assert_eq!(Counter::of_allow(*op).is_some(), destination, "{op}");
    }
}

#[test]
fn names_and_places_never_change() {
    let names = Counter::ALL.map(Counter::name);
    assert_eq!(
        names,
        [
            "quota_denies_total",
            "egress_denies_total",
            "egress_allows_total",
            "abi_denies_total"
        ]
    );
    assert_eq!(Counter::ALL.map(Counter::index), [0, 1, 2, 3]);
}

#[test]
fn counters_are_shown_by_name_and_past_the_bound_nothing_is_counted() {
    let mut counters = Counters::new();
    for n in (0..SUBJECTS_MAX).rev() {
        counters
            .add(&Arc::from(format!("s{n:05}")), Counter::AbiDenies, 1)
            .unwrap();
    }
    assert_eq!(
        counters.add(&Arc::from("one more"), Counter::AbiDenies, 1),
        Err(TooManySubjects)
    );
    counters
        .add(&Arc::from("s00000"), Counter::AbiDenies, u64::MAX)
        .unwrap();
    assert_eq!(
        counters.get("s00000", Counter::AbiDenies),
        u64::MAX,
        "it stays there and does not start again"
    );
    assert_eq!(counters.get("one more", Counter::AbiDenies), 0);
    let names: Vec<_> = counters.iter().map(|(name, _)| name.to_string()).collect();
    assert!(names.is_sorted());
}
