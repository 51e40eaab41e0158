//! "egress: connect to disallowed CIDR/port → EPERM and deny event recorded; connect to allowed CIDR/port → allowed".

use nexus_abi::{Errno, Operation, Protocol, Reason, syscall::nr};
use nexus_audit::{Counter, Judgement};

use crate::desk::Desk;

const TCP: Protocol = Protocol::Tcp;

#[test]
fn connect_to_a_disallowed_address_or_port_gets_eperm_and_a_deny_event() {
    for (to, reason) in [
        ("203.0.112.255:443", Reason::EgressNoRule),
        ("203.0.114.0:443", Reason::EgressNoRule),
        ("203.0.113.7:442", Reason::EgressNoRule),
        ("203.0.113.7:444", Reason::EgressNoRule),
        ("203.0.113.7:7999", Reason::EgressNoRule),
        ("203.0.113.7:8101", Reason::EgressNoRule),
        ("203.0.113.9:443", Reason::EgressDenyRule),
        ("[2001:db9::]:443", Reason::EgressNoRule),
        ("[2001:db8::1]:80", Reason::EgressNoRule),
        ("169.254.169.254:443", Reason::EgressSpecialAddress),
        ("224.0.0.1:443", Reason::EgressSpecialAddress),
    ] {
        let mut desk = Desk::new("tight");
        assert_eq!(desk.connect(TCP, to), Err(Errno::EPERM), "{to}");
        let record = desk.last();
        assert_eq!(record.verdict, Judgement::Deny(Errno::EPERM));
        assert_eq!((record.op, record.reason), (Operation::Connect, reason), "{to}");
        assert_eq!(&*record.object, format!("tcp {to}"));
        assert!(record.at.as_deref().unwrap().starts_with("egress.toml:"), "{to}");
        assert_eq!(desk.count(Counter::EgressDenies), 1);
        assert_eq!(desk.count(Counter::EgressAllows), 0);
    }
}

#[test]
fn connect_to_an_allowed_address_and_port_is_allowed() {
    let mut desk = Desk::new("tight");
    let allowed = [
        "203.0.113.0:443",
        "203.0.113.255:443",
        "203.0.113.7:8000",
        "203.0.113.7:8100",
        "203.0.113.9:8000",
        "[2001:db8::]:443",
        "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:443",
        "[::ffff:203.0.113.7]:443",
    ];
    for to in allowed {
        assert_eq!(desk.connect(TCP, to), Ok(()), "{to}");
    }
    assert!(desk.records().is_empty());
    assert_eq!(desk.count(Counter::EgressAllows), allowed.len() as u64);
    assert_eq!(desk.count(Counter::EgressDenies), 0);
}

#[test]
fn a_mapped_address_is_denied_as_the_ipv4_address_that_it_is() {
    let mut desk = Desk::new("tight");
    assert_eq!(desk.connect(TCP, "[::ffff:203.0.113.9]:443"), Err(Errno::EPERM));
    assert_eq!(desk.last().reason, Reason::EgressDenyRule);
}

#[test]
fn the_same_address_over_another_protocol_is_denied() {
    let mut desk = Desk::new("tight");
    assert_eq!(desk.connect(Protocol::Udp, "203.0.113.7:443"), Err(Errno::EPERM));
    assert_eq!(desk.connect(TCP, "203.0.113.7:443"), Ok(()));
}

#[test]
fn bind_to_an_address_that_no_rule_opens_gets_eperm_and_a_deny_event() {
    let mut desk = Desk::new("tight");
    let bind = |desk: &mut Desk, to| desk.guard(Operation::Bind, nr::bind, Some(to), None);
    assert_eq!(bind(&mut desk, "203.0.113.7:8000"), Ok(()));
    assert_eq!(bind(&mut desk, "203.0.113.7:7999"), Err(Errno::EPERM));
    assert_eq!(
        (desk.last().op, desk.last().reason),
        (Operation::Bind, Reason::EgressNoRule)
    );
}
