//! "ABI tightening: deny write when remaining budget insufficient (stable reason)". And the same for destinations.

use nexus_abi::syscall::nr;
use nexus_abi::{Area, Errno, Operation, Reason};
use nexus_abi_policy::Growth;
use nexus_audit::Counter;
use nexus_quota::Amount;

use crate::desk::{Desk, growth_bytes};

/// A write as the supervisor sees it: the guard first, and the ledger only if the guard lets it.
fn write(desk: &mut Desk, len: &mut u64, bytes: u64) -> Result<(), Errno> {
    let growth = Growth {
        area: Area::State,
        bytes: growth_bytes(*len, bytes),
        inodes: 0,
    };
    desk.guard(Operation::Write, nr::write, None, Some(growth))?;
    desk.append(Area::State, len, bytes)
}

#[test]
fn a_write_that_does_not_fit_is_refused_by_the_guard_and_the_ledger_is_not_charged() {
    let mut desk = Desk::new("tight");
    let mut len = 0;
    assert_eq!(write(&mut desk, &mut len, 12 << 10), Ok(()));
    assert_eq!(write(&mut desk, &mut len, 8 << 10), Err(Errno::EDQUOT));
    assert_eq!(desk.used(Area::State), Amount::of_bytes(12 << 10));
    assert_eq!(desk.last().reason, Reason::QuotaHardBytes);
    // What fits still fits: nothing was taken by the refusal.
    assert_eq!(write(&mut desk, &mut len, 4 << 10), Ok(()));
    assert_eq!(write(&mut desk, &mut len, 1), Err(Errno::EDQUOT));
}

#[test]
fn a_write_that_the_guard_refused_is_counted_once() {
    let mut desk = Desk::new("tight");
    let mut len = 16 << 10;
    desk.ledger.charge(Area::State, Amount::of_bytes(16 << 10));
    for attempt in 1..=5 {
        assert_eq!(write(&mut desk, &mut len, 1), Err(Errno::EDQUOT));
        assert_eq!(desk.count(Counter::QuotaDenies), attempt);
        assert_eq!(desk.count(Counter::AbiDenies), 0, "the guard is no second authority");
    }
}

#[test]
fn guard_and_ledger_give_the_same_reason_and_errno() {
    for (inodes, bytes) in [(0, 20 << 10), (9, 0), (9, 20 << 10)] {
        let mut early = Desk::new("tight");
        let growth = Growth {
            area: Area::State,
            bytes,
            inodes,
        };
        let refused = early.guard(Operation::Write, nr::pwrite64, None, Some(growth));
        let mut late = Desk::new("tight");
        let amount = Amount {
            bytes,
            inodes,
            links: 0,
        };
        let verdict = late.ledger.charge(Area::State, amount).verdict;
        match verdict {
            nexus_abi::Verdict::Deny { reason, errno, .. } => {
                assert_eq!(refused, Err(errno));
                assert_eq!(early.last().reason, reason);
            }
            allowed @ nexus_abi::Verdict::Allow { .. } => panic!("{allowed:?}"),
        }
    }
}

#[test]
fn what_grows_another_area_or_nothing_is_not_refused() {
    let mut desk = Desk::new("tight");
    desk.ledger.charge(Area::State, Amount::of_bytes(16 << 10));
    let elsewhere = Growth {
        area: Area::Tmp,
        bytes: 1 << 40,
        inodes: 0,
    };
    assert_eq!(desk.guard(Operation::Write, nr::write, None, Some(elsewhere)), Ok(()));
    assert_eq!(desk.guard(Operation::Write, nr::write, None, None), Ok(()));
    assert_eq!(
        write(&mut desk, &mut 100, 50),
        Ok(()),
        "within a block that is paid for"
    );
}

#[test]
fn a_connect_is_refused_by_the_guard_with_the_reason_and_rule_of_the_egress_rules() {
    for to in [
        "203.0.113.9:443",
        "203.0.114.0:443",
        "127.0.0.1:22",
        "169.254.169.254:80",
    ] {
        let mut early = Desk::new("tight");
        let guarded = early.guard(Operation::Connect, nr::connect, Some(to), None);
        let mut late = Desk::new("tight");
        let judged = late.connect(nexus_abi::Protocol::Tcp, to);
        assert_eq!(guarded, judged, "{to}");
        if guarded.is_err() {
            let (one, other) = (early.last(), late.last());
            assert_eq!((one.reason, &one.rule, &one.at), (other.reason, &other.rule, &other.at));
            assert_eq!(early.count(Counter::EgressDenies), 1);
            assert_eq!(early.count(Counter::AbiDenies), 0);
        }
    }
}

#[test]
fn a_call_without_a_rule_is_refused_with_a_reason_of_its_own_and_counted_as_such() {
    let mut desk = Desk::new("tight");
    assert_eq!(desk.guard(Operation::Syscall, nr::close, None, None), Ok(()));
    assert_eq!(
        desk.guard(Operation::Syscall, nr::getpid, None, None),
        Err(Errno::EPERM)
    );
    assert_eq!(desk.last().reason, Reason::AbiNoRule);
    assert_eq!(desk.count(Counter::AbiDenies), 1);
}
