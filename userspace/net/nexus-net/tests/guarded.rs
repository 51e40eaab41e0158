//! What is refused never reaches a socket; what is allowed does.
#![cfg(test)]

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use nexus_abi::{Protocol, Reason};
use nexus_net::{Guarded, Refused, SubjectError};
use nexus_policy::{MemoryTree, Policy};

fn guarded(rules: &str) -> Guarded {
    let tree = MemoryTree::new([
        (
            "nexus.policy.toml".to_owned(),
            b"version = 1\ninclude = [\"egress.toml\"]\n[subject.demo]\n".to_vec(),
        ),
        (
            "egress.toml".to_owned(),
            format!("[subject.demo]\n{rules}\n").into_bytes(),
        ),
    ]);
    Guarded::of_subject(&Policy::load(&tree).unwrap(), "demo", ["198.51.100.1".parse().unwrap()]).unwrap()
}

fn refused(error: &std::io::Error) -> Refused {
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Refused>())
        .unwrap()
        .clone()
}

#[test]
fn connect_reaches_an_allowed_peer_and_no_denied_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let net = guarded(&format!(
        "allow = [\"{open}\"]\ndeny = [\"{}\"]",
        other.local_addr().unwrap()
    ));
    let mut to = net.connect(open).unwrap();
    to.write_all(b"hello").unwrap();
    drop(to);
    let mut heard = String::new();
    listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
    let error = net.connect(other.local_addr().unwrap()).unwrap_err();
    assert_eq!(refused(&error).reason, Reason::EgressDenyRule);
    other.set_nonblocking(true).unwrap();
    assert_eq!(other.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_refusal_names_the_reason_and_the_place_of_the_rule() {
    let net = guarded("allow = [\"0.0.0.0/0:443\"]");
    for (to, reason) in [
        ("203.0.113.7:80", Reason::EgressNoRule),
        ("169.254.169.254:443", Reason::EgressSpecialAddress),
        ("198.51.100.1:443", Reason::EgressSpecialAddress),
        ("[2001:db8::1]:443", Reason::EgressNoRule),
    ] {
        let refused = refused(&net.connect(to.parse().unwrap()).unwrap_err());
        assert_eq!(refused.reason, reason, "{to}");
        assert_eq!(refused.at.as_deref(), Some("egress.toml:1"), "{to}");
        assert!(
            refused.to_string().contains(to) && refused.source().is_none(),
            "{refused}"
        );
    }
    assert_eq!(net.judge(Protocol::Tcp, "203.0.113.7:443".parse().unwrap()), Ok(()));
    assert!(net.judge(Protocol::Udp, "203.0.113.7:443".parse().unwrap()).is_err());
}

#[test]
fn datagrams_are_judged_each_and_a_connected_socket_once() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let net = guarded(&format!("allow = [\"udp {to}\"]"));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let one = net.datagrams(any).unwrap();
    assert_eq!(one.send_to(b"a", to).unwrap(), 1);
    let error = one.send_to(b"a", "203.0.113.7:53".parse().unwrap()).unwrap_err();
    assert_eq!(refused(&error).reason, Reason::EgressNoRule);
    assert!(
        net.datagrams(any)
            .unwrap()
            .connect("203.0.113.7:53".parse().unwrap())
            .is_err()
    );
    assert_eq!(one.connect(to).unwrap().send(b"b").unwrap(), 1);
}

#[test]
fn a_port_is_bound_by_rule_or_left_to_the_kernel() {
    let net = guarded("bind = [\"udp 5353\", \"tcp 7000-7001\"]");
    let judge = |protocol, at: &str| net.judge_bind(protocol, at.parse().unwrap());
    assert_eq!(judge(Protocol::Udp, "0.0.0.0:5353"), Ok(()));
    assert!(judge(Protocol::Udp, "0.0.0.0:5354").is_err());
    assert!(judge(Protocol::Tcp, "0.0.0.0:5353").is_err());
    assert_eq!(judge(Protocol::Tcp, "[::]:7001"), Ok(()));
    assert_eq!(judge(Protocol::Tcp, "[::]:0"), Ok(()));
    assert_eq!(judge(Protocol::Tcp, "127.0.0.1:9"), Ok(()));
    assert!(net.listen("127.0.0.1:0".parse().unwrap()).is_ok());
    assert!(net.listen("0.0.0.0:7002".parse().unwrap()).is_err());
}

#[test]
fn a_subject_that_is_not_there_has_no_sockets() {
    let policy = Policy::load(&MemoryTree::shipped()).unwrap();
    assert!(matches!(
        Guarded::of_subject(&policy, "nobody-of-this-name", []),
        Err(SubjectError::NoSubject(_))
    ));
}
