//! `nx sec test egress`: a destination that policy denies is seen refused, one that it allows is seen to arrive at a
//! listener of the proof's own.

use super::claim::{Claim, Refusal, Seen, Wants, errno_text};
use super::context::{Context, Rule};
use super::deny;
use super::live::{Live, Lost, readable};
use nexus_abi::{Errno, Operation, Protocol, Verdict, syscall};
use nexus_abi_policy::{Call, Destination, Fact, Request};
use nexus_audit::Counter;
use nexus_net_egress::Reach;
use nexus_policy::{EgressFacts, NameGrants};
use nexus_sys::probe::{DATA_ADDRESS, Frame};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrAny, SocketType, acceptfrom, getsockname, recvfrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

/// `socket(2)`'s arguments for a target.
pub(super) fn socket_args(target: Target) -> [u64; 6] {
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
pub(super) fn encoded(address: SocketAddr) -> Vec<u8> {
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
    claim_named(context, target, &[])
}

/// The same of one that these names were resolved to.
pub(super) fn claim_named(context: &Context, target: Target, names: &[&NameGrants]) -> Claim {
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
    let facts = EgressFacts {
        gate: &context.gate,
        host: &context.host,
        names,
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
        .judge_named(protocol, address.ip(), address.port(), &context.host, names);
    for verdict in [of_guard, route.verdict] {
        if let Verdict::Deny { reason, errno, rule } = verdict {
            return refused(Operation::Connect, format!("{protocol} {address}"), reason, errno, rule);
        }
    }
    let rule = match (route.verdict, route.reach) {
        // No rule of policy's speaks of it, and none has to.
        (Verdict::Allow { rule: None }, Some(Reach::OwnLoopback)) => Rule::built_in("own-loopback"),
        (Verdict::Allow { rule }, _) => context.rule(rule, None),
        (Verdict::Deny { .. }, _) => context.rule(None, None),
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

/// Why the probe may not bind a socket for this target to a port in the first place.
pub(super) fn bind_denied(context: &Context, target: Target, port: u16) -> Option<String> {
    let any: IpAddr = match target.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let address = SocketAddr::new(any, port);
    let length = encoded(address).len() as u64;
    let number = syscall::number("bind").unwrap_or_default();
    let request = Request {
        destination: Fact::Is(Destination {
            protocol: target.protocol,
            address,
        }),
        growth: Fact::Nothing,
        ..Request::scalar(Call::native(number, [0, DATA_ADDRESS, length, 0, 0, 0]))
    };
    let facts = EgressFacts {
        gate: &context.gate,
        host: &context.host,
        names: &[],
    };
    match context.guard.judge(&request, &facts) {
        Verdict::Allow { .. } => None,
        Verdict::Deny { reason, .. } => Some(format!("the syscall rules refuse `bind`: {reason}")),
    }
}

/// Attempts it, and looks at the listener of its port.
pub(super) fn attempt(context: &Context, live: &mut Live, target: Target, claim: &Claim, sink: Option<usize>) -> Seen {
    attempt_from(context, live, target, None, claim, sink)
}

/// The same from a port of the caller's choice: what arrives has to come from there.
pub(super) fn attempt_from(
    context: &Context,
    live: &mut Live,
    target: Target,
    from: Option<u16>,
    claim: &Claim,
    sink: Option<usize>,
) -> Seen {
    let socket = syscall::number("socket").unwrap_or_default();
    let fd = match call(live, socket, socket_args(target), &[]) {
        Ok(fd) if fd >= 0 => fd.cast_unsigned(),
        other => return Seen::value(other),
    };
    if let Some(port) = from {
        let any: IpAddr = match target.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let address = encoded(SocketAddr::new(any, port));
        let bind = syscall::number("bind").unwrap_or_default();
        let args = [fd, DATA_ADDRESS, address.len() as u64, 0, 0, 0];
        match call(live, bind, args, &address) {
            Ok(0) => {}
            other => {
                let got = other.map_or_else(|lost| lost.to_string(), errno_text);
                let check = Err(format!("the probe cannot take port {port} for itself: {got}"));
                return Seen {
                    value: other,
                    checks: vec![check],
                };
            }
        }
    }
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
            (Some(Ok(port)), true) if from.is_some_and(|from| from != port) => {
                Err(format!("arrived at the proof's listener from port {port}"))
            }
            (Some(Ok(_)), true) => Ok(match from {
                None => "arrived at the proof's listener".to_owned(),
                Some(port) => format!("arrived at the proof's listener from port {port}"),
            }),
            (Some(Ok(_)), false) => Err("it arrived at the proof's listener".to_owned()),
            (Some(Err(other)), _) => Err(format!("something else arrived at the proof's listener: {other}")),
            (None, true) => Err("nothing arrived at the proof's listener".to_owned()),
            (None, false) => Ok("nothing arrived at the proof's listener".to_owned()),
        }
    });
    Seen {
        value: value.and_then(|value| close(context, live, fd).map(|()| value)),
        checks: check.into_iter().collect(),
    }
}

/// Closes a descriptor of the probe's, where the subject may: one that stays open is in nobody's way, and a refusal would
/// leave a record.
pub(super) fn close(context: &Context, live: &mut Live, fd: u64) -> Result<(), Lost> {
    let close = syscall::number("close").unwrap_or_default();
    let args = [fd, 0, 0, 0, 0, 0];
    match context.judge_call(close, args) {
        Verdict::Allow { .. } => call(live, close, args, &[]).map(drop),
        Verdict::Deny { .. } => Ok(()),
    }
}

pub(super) fn call(live: &mut Live, number: u32, args: [u64; 6], data: &[u8]) -> Result<i64, Lost> {
    let frame = Frame {
        number: number.into(),
        args,
        data,
        ..Frame::default()
    };
    live.call(&frame).map(|reply| reply.value)
}

/// What came to a listener: the target's, from which port, something else's, or nothing. Only what has to come is waited for.
fn arrived(sink: &OwnedFd, target: Target, waits: bool) -> Option<Result<u16, String>> {
    if waits && !readable(sink, Instant::now() + ARRIVAL_WAIT) {
        return None;
    }
    let port_of = |address: Option<SocketAddrAny>| -> Option<u16> {
        let address: SocketAddr = address?.try_into().ok()?;
        Some(address.port())
    };
    match target.protocol {
        Protocol::Tcp => {
            let (accepted, from) = acceptfrom(sink).ok()?;
            let local: Option<SocketAddr> = getsockname(&accepted).ok().and_then(|address| address.try_into().ok());
            let is_target = local.is_some_and(|local| {
                local.port() == target.address.port() && local.ip().to_canonical() == acted_on(target.address.ip())
            });
            Some(if is_target {
                Ok(port_of(from).unwrap_or_default())
            } else {
                Err(local.map_or_else(|| "a connection".to_owned(), |local| local.to_string()))
            })
        }
        Protocol::Udp => {
            let mut bytes = [0_u8; 64];
            let (_, length, from) = recvfrom(sink, &mut bytes[..], RecvFlags::DONTWAIT).ok()?;
            let is_ours = bytes.get(..length) == Some(DATAGRAM);
            Some(if is_ours {
                Ok(port_of(from).unwrap_or_default())
            } else {
                Err("a datagram".to_owned())
            })
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
