//! `nx sec test egress`: a destination that policy denies is seen refused, one that it allows is seen to arrive at a
//! listener of the proof's own.

use super::claim::{Claim, Refusal, Seen, Wants};
use super::context::Context;
use super::deny;
use super::live::{Live, Lost, readable};
use nexus_abi::{Errno, Operation, Protocol, Verdict, syscall};
use nexus_abi_policy::{Call, Destination, Fact, Facts, Growth, NoFacts, Request};
use nexus_audit::Counter;
use nexus_net_egress::{HostAddresses, Reach};
use nexus_policy::EgressGate;
use nexus_sys::probe::{DATA_ADDRESS, Frame};
use rustix::net::{AddressFamily, RecvFlags, SocketType, accept, getsockname, recv};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Where to, over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// How long something may take to arrive that the kernel has taken on its way over a loopback interface.
const ARRIVAL_WAIT: Duration = Duration::from_secs(5);

/// What a datagram of the probe's says.
const DATAGRAM: &[u8] = b"nxproof";

struct Known<'a> {
    gate: &'a EgressGate,
    host: &'a HostAddresses,
}

impl Facts for Known<'_> {
    fn egress(&self, to: &Destination) -> Verdict {
        self.gate
            .judge(to.protocol, to.address.ip(), to.address.port(), self.host)
            .verdict
    }

    fn budget(&self, growth: &Growth) -> Verdict {
        NoFacts.budget(growth)
    }
}

/// `socket(2)`'s arguments for a target.
fn socket_args(target: Target) -> [u64; 6] {
    let family = match target.address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match target.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    [family.as_raw().into(), kind.as_raw().into(), 0, 0, 0, 0]
}

/// A `sockaddr_in` or `sockaddr_in6` (linux/in.h, linux/in6.h).
fn encoded(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(AddressFamily::INET.as_raw().to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(AddressFamily::INET6.as_raw().to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// What policy says of a target, and so what must be seen.
pub(super) fn claim(context: &Context, target: Target) -> Claim {
    let Target { protocol, address } = target;
    let claim = |wants, rule| Claim {
        part: "egress",
        name: format!("{protocol} {address}"),
        wants,
        rule,
    };
    let refused = |op, object, reason, errno, rule| {
        let refusal = Refusal {
            op,
            object,
            reason,
            errno,
        };
        claim(Wants::Refusal(refusal), context.rule(rule, Some(reason)))
    };
    let socket = syscall::number("socket").unwrap_or_default();
    if let Verdict::Deny { reason, errno, rule } = context.judge_call(socket, socket_args(target)) {
        let object = deny::described(socket, socket_args(target));
        return refused(Operation::Socket, object, reason, errno, rule);
    }
    let facts = Known {
        gate: &context.gate,
        host: &context.host,
    };
    let connect = syscall::number("connect").unwrap_or_default();
    let length = encoded(address).len() as u64;
    let request = Request {
        destination: Fact::Is(Destination { protocol, address }),
        growth: Fact::Nothing,
        ..Request::scalar(Call::native(connect, [0, DATA_ADDRESS, length, 0, 0, 0]))
    };
    let of_guard = context.guard.judge(&request, &facts);
    let route = context
        .gate
        .judge(protocol, address.ip(), address.port(), &context.host);
    for verdict in [of_guard, route.verdict] {
        if let Verdict::Deny { reason, errno, rule } = verdict {
            return refused(Operation::Connect, format!("{protocol} {address}"), reason, errno, rule);
        }
    }
    let rule = match route.verdict {
        Verdict::Allow { rule } => context.rule(rule, None),
        Verdict::Deny { .. } => context.rule(None, None),
    };
    match (route.reach, protocol) {
        (Some(Reach::Outside), _) => claim(Wants::Passage(Some(Counter::EgressAllows)), rule),
        // Nobody but the probe is there, and it does not listen.
        (_, Protocol::Tcp) => claim(Wants::Errno(&[Errno::ECONNREFUSED]), rule),
        (_, Protocol::Udp) => claim(Wants::Passage(None), rule),
    }
}

/// Whether an allowed destination is one that no kernel connects to from here, and why.
pub(super) fn unreachable(target: Target) -> Option<&'static str> {
    match target.address.ip() {
        _ if target.address.port() == 0 => Some("port 0 is nobody's"),
        IpAddr::V4(v4) if v4.octets().first() == Some(&0) && !v4.is_unspecified() => {
            Some("Linux sends nothing to 0.0.0.0/8")
        }
        IpAddr::V4(v4) if v4.is_loopback() && v4.octets() == [127, 255, 255, 255] => {
            Some("it is the loopback's broadcast, which is not connected to")
        }
        ip if ip.is_multicast() => Some("a group is not connected to"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("a broadcast is not connected to"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address needs an interface"),
        _ => None,
    }
}

/// Attempts it, and looks at the listener of its port.
pub(super) fn attempt(live: &mut Live, target: Target, claim: &Claim, sink: Option<usize>) -> Seen {
    let socket = syscall::number("socket").unwrap_or_default();
    let fd = match call(live, socket, socket_args(target), &[]) {
        Ok(fd) if fd >= 0 => fd.cast_unsigned(),
        other => return Seen::value(other),
    };
    let address = encoded(target.address);
    let connect = syscall::number("connect").unwrap_or_default();
    let args = [fd, DATA_ADDRESS, address.len() as u64, 0, 0, 0];
    let mut value = call(live, connect, args, &address);
    let outside = matches!(claim.wants, Wants::Passage(Some(_)));
    if target.protocol == Protocol::Udp && value == Ok(0) {
        let sendto = syscall::number("sendto").unwrap_or_default();
        let args = [fd, DATA_ADDRESS, DATAGRAM.len() as u64, 0, 0, 0];
        value = match call(live, sendto, args, DATAGRAM) {
            Ok(sent) if sent >= 0 => Ok(0),
            other => other,
        };
    }
    let check = sink.and_then(|index| live.sinks.get(index)).map(|sink| {
        let arrived = arrived(sink, target, outside);
        match (arrived, outside) {
            (Some(Ok(())), true) => Ok("arrived at the proof's listener".to_owned()),
            (Some(Ok(())), false) => Err("it arrived at the proof's listener".to_owned()),
            (Some(Err(other)), _) => Err(format!("something else arrived at the proof's listener: {other}")),
            (None, true) => Err("nothing arrived at the proof's listener".to_owned()),
            (None, false) => Ok("nothing arrived at the proof's listener".to_owned()),
        }
    });
    let close = syscall::number("close").unwrap_or_default();
    let closed = call(live, close, [fd, 0, 0, 0, 0, 0], &[]);
    Seen {
        value: value.and_then(|value| closed.map(|_| value)),
        checks: check.into_iter().collect(),
    }
}

fn call(live: &mut Live, number: u32, args: [u64; 6], data: &[u8]) -> Result<i64, Lost> {
    let frame = Frame {
        number: number.into(),
        args,
        data,
        ..Frame::default()
    };
    live.call(&frame).map(|reply| reply.value)
}

/// What came to a listener: the target's, something else's, or nothing. Only what has to come is waited for.
fn arrived(sink: &OwnedFd, target: Target, waits: bool) -> Option<Result<(), String>> {
    if waits && !readable(sink, Instant::now() + ARRIVAL_WAIT) {
        return None;
    }
    match target.protocol {
        Protocol::Tcp => {
            let accepted = accept(sink).ok()?;
            let local: Option<SocketAddr> = getsockname(&accepted).ok().and_then(|address| address.try_into().ok());
            let is_target = local.is_some_and(|local| {
                local.port() == target.address.port() && local.ip().to_canonical() == acted_on(target.address.ip())
            });
            Some(if is_target {
                Ok(())
            } else {
                Err(local.map_or_else(|| "a connection".to_owned(), |local| local.to_string()))
            })
        }
        Protocol::Udp => {
            let mut bytes = [0_u8; 64];
            let (_, length) = recv(sink, &mut bytes[..], RecvFlags::DONTWAIT).ok()?;
            let is_ours = bytes.get(..length) == Some(DATAGRAM);
            Some(if is_ours { Ok(()) } else { Err("a datagram".to_owned()) })
        }
    }
}

/// The address that a connection has which was made to another form of it.
fn acted_on(ip: IpAddr) -> IpAddr {
    nexus_net_egress::acted_on(ip).to_canonical()
}

/// A claim that what policy says is what the caller expected it to say.
pub(super) fn contradicts(claim: &Claim, wants_allow: bool) -> bool {
    matches!(claim.wants, Wants::Refusal(_)) == wants_allow
}
