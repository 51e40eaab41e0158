//! "denies are rate-limited", "bounded test sink", "all denies emit stable, structured audit reasons", and the counters.

use nexus_abi::{Area, Errno, Protocol, Reason, syscall::nr};
use nexus_audit::{Chain, Counter, Judgement, Key, read_line, verify};

use crate::desk::{Desk, RATE, SINK_RECORDS_MAX};

fn denied_connect(desk: &mut Desk) {
    assert_eq!(desk.connect(Protocol::Tcp, "192.0.2.1:443"), Err(Errno::EPERM));
}

#[test]
fn a_flood_of_denies_is_recorded_up_to_its_rate_and_counted_exactly() {
    let mut desk = Desk::new("demo");
    for _ in 0..1000 {
        denied_connect(&mut desk);
    }
    assert_eq!(desk.records().len(), RATE.burst as usize);
    assert_eq!(desk.count(Counter::EgressDenies), 1000);
    // Another reason has a rate of its own.
    assert_eq!(desk.append(Area::Work, &mut 0, 1), Err(Errno::EDQUOT));
    assert_eq!(desk.last().reason, Reason::QuotaHardBytes);
    // The next record of the kind says how many were left out.
    desk.now_ns += RATE.interval_ns;
    denied_connect(&mut desk);
    assert_eq!(desk.last().suppressed, 1000 - u64::from(RATE.burst));
    assert_eq!(desk.count(Counter::EgressDenies), 1001);
}

#[test]
fn records_and_the_suppressed_among_them_add_up_to_the_counter() {
    let mut desk = Desk::new("demo");
    for step in 0..500 {
        desk.now_ns += RATE.interval_ns / 7;
        denied_connect(&mut desk);
        let told: u64 = desk.records().iter().map(|record| 1 + record.suppressed).sum();
        let count = desk.count(Counter::EgressDenies);
        assert_eq!(count, step + 1);
        if desk.records().len() < SINK_RECORDS_MAX {
            assert!(told <= count && count - told <= 7, "{told} of {count}");
        }
    }
}

#[test]
fn the_sink_is_bounded() {
    let mut desk = Desk::new("demo");
    for _ in 0..10 * SINK_RECORDS_MAX {
        desk.now_ns += RATE.interval_ns;
        denied_connect(&mut desk);
    }
    assert_eq!(desk.records().len(), SINK_RECORDS_MAX);
    assert_eq!(desk.count(Counter::EgressDenies), 10 * SINK_RECORDS_MAX as u64);
}

#[test]
fn counters_of_one_kind_and_one_subject_do_not_move_another() {
    let mut desk = Desk::new("tight");
    assert_eq!(desk.append(Area::Tmp, &mut 0, 1), Err(Errno::EDQUOT));
    assert_eq!(
        desk.guard(nexus_abi::Operation::Syscall, nr::ptrace, None, None),
        Err(Errno::EPERM)
    );
    assert_eq!(desk.connect(Protocol::Tcp, "203.0.113.7:443"), Ok(()));
    for counter in [Counter::QuotaDenies, Counter::AbiDenies, Counter::EgressAllows] {
        assert_eq!(desk.count(counter), 1, "{counter:?}");
    }
    assert_eq!(desk.count(Counter::EgressDenies), 0);
    assert_eq!(desk.counters.get("demo", Counter::QuotaDenies), 0);
}

#[test]
fn every_deny_names_who_what_why_by_which_rule_and_which_policy() {
    let mut desk = Desk::new("demo");
    denied_connect(&mut desk);
    assert_eq!(desk.append(Area::Tmp, &mut 0, 1 << 40), Err(Errno::EDQUOT));
    assert_eq!(
        desk.guard(nexus_abi::Operation::Syscall, nr::ptrace, None, None),
        Err(Errno::EPERM)
    );
    for record in desk.records() {
        assert_eq!(&*record.subject, "demo");
        assert_eq!(&*record.policy, desk.policy.version().to_string());
        assert!(matches!(record.verdict, Judgement::Deny(_)));
        let area = record.reason.as_str().split('.').next().unwrap();
        let kind = record.rule.as_deref().unwrap().split(':').next().unwrap();
        assert!(kind == area, "{kind} {area}");
        let (file, line) = record.at.as_deref().unwrap().split_once(':').unwrap();
        assert!(file.ends_with(".toml") && line.parse::<u32>().unwrap() > 0);
    }
}

#[test]
fn the_same_requests_give_the_same_bytes_and_the_chain_finds_a_change() {
    let key = || Key::new([7; 32]);
    let lines = || {
        let mut desk = Desk::new("demo");
        for _ in 0..5 {
            desk.now_ns += RATE.interval_ns;
            denied_connect(&mut desk);
        }
        let mut chain = Chain::new(key());
        let sealed = desk.records().into_iter().map(|record| chain.seal(record));
        sealed.collect::<Vec<String>>()
    };
    let holds = |lines: &[String]| verify(&key(), lines.iter().map(|line| line.trim_end().as_bytes())).is_ok();
    let written = lines();
    assert_eq!(written, lines());
    assert!(written.iter().all(|line| read_line(line.trim_end().as_bytes()).is_ok()));
    assert!(holds(&written));
    for at in 0..written.len() {
        let mut changed = written.clone();
        changed[at] = changed[at].replace("192.0.2.1", "192.0.2.2");
        assert!(!holds(&changed), "{at}");
        let mut shortened = written.clone();
        shortened.remove(at);
        assert_eq!(
            holds(&shortened),
            at + 1 == written.len(),
            "a cut tail shows against an anchor only"
        );
    }
}
