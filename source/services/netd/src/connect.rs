//! connect(2)

use crate::caller::Caller;
use crate::connecting::Connecting;
use crate::local::plain;
use crate::route::{judge, judge_without_destination};
use crate::side::{Address, Move, Side, Traits, swap};
use crate::{Answer, Denial, Effects, Netd, Outcome, Stop, unix, unusable};
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_net_egress::sockaddr::{self, SockAddr};
use nexus_net_egress::{Reach, acted_on};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use nexus_wire::broker::UnixAction;
use rustix::net::sockopt::{Timeout, socket_timeout};
use rustix::net::{AddressFamily, SocketType};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

pub(crate) fn run(netd: &mut Netd, call: &Notification, effects: &mut Effects) -> Outcome {
    let [fd, pointer, length, ..] = call.args;
    let caller = Caller::of(call, &netd.listener);
    // The descriptor last: that it could be taken says that the bytes are the caller's. Its errors come first, as Linux has it.
    let bytes = caller.address(pointer, length);
    let socket = caller.take(fd)?;
    let bytes = bytes?;
    caller.still()?;
    let traits = netd.traits(&socket)?;
    let Traits {
        domain, protocol, side, ..
    } = traits;
    if is(domain, AddressFamily::UNIX) {
        judge_without_destination(netd, call, "unix")?;
        return unix::run(netd, call, socket, UnixAction::Connect, bytes);
    }
    let Some(protocol) = protocol else {
        return Err(family_denied(domain));
    };
    if let Err(errno) = unusable::in_connect(domain, protocol, &bytes) {
        judge_without_destination(netd, call, "unusable")?;
        if protocol == Protocol::Tcp && bytes.len() >= size_of::<u16>() {
            no_connection_yet(&socket)?;
        }
        return Err(errno.into());
    }
    let address = sockaddr::parse(&bytes)?;
    let Some((ip, port)) = address.destination() else {
        return match address {
            // Dissolves an association; leads nowhere.
            SockAddr::Unspec { .. } => {
                judge_without_destination(netd, call, "unspecified")?;
                netd.dissolves(traits, &socket)?;
                finish(sys::connect(&socket, &bytes))
            }
            _ => Err(Errno::EAFNOSUPPORT.into()),
        };
    };
    let reach = judge(netd, call, Operation::Connect, protocol, SocketAddr::new(ip, port))?;
    let wanted = side_for(reach);
    let bytes = exact(bytes, ip);
    let socket = if side == wanted {
        socket
    } else {
        if protocol == Protocol::Tcp {
            no_connection_yet(&socket)?;
        }
        let how = Move {
            protocol,
            to: wanted,
            address: Address::Kept,
        };
        swap(netd, call, fd, &socket, how)?.into()
    };
    if protocol == Protocol::Udp {
        effects.egress_allowed = u64::from(reach == Reach::Outside);
        if wanted == Side::Host {
            let traits = if side == wanted { traits } else { netd.traits(&socket)? };
            netd.name(traits, &socket)?;
        }
        sys::connect(&socket, &bytes)?;
        return Ok(Answer::Value(0));
    }
    // A call that is made again after a signal goes on with the connection that the first one began.
    effects.egress_allowed = u64::from(wanted == Side::Host && sys::is_tcp_closed(&socket)?);
    // Any of the program's threads may change this before the kernel looks, so who does not mean to wait is no more trusted
    // with the turn than who does.
    let passes = rustix::fs::fcntl_getfl(&socket)?.contains(rustix::fs::OFlags::NONBLOCK);
    // A call with a timeout would begin to count again: it ends with `EINTR` instead, signal(7). When its time is over it says
    // that it began the connection, so it has to.
    let untimed = socket_timeout(&socket, Timeout::Send)?.is_none();
    if passes || plain(ip).is_loopback() || netd.is_host_address(ip)? {
        return Ok(Answer::Here(Connecting {
            workers: netd.workers.clone(),
            id: call.id,
            tid: call.tid,
            socket,
            address: bytes,
            restarts: untimed,
            passes,
        }));
    }
    netd.workers
        .connect((call.id, call.tid), socket, bytes, (untimed, passes))?;
    Ok(Answer::Later)
}

/// On which side this destination is reached. The own loopback is inside, always: a port on the host's may be somebody else's by the time
/// that the kernel sends.
pub(crate) const fn side_for(reach: Reach) -> Side {
    match reach {
        Reach::OwnLoopback => Side::Inside,
        Reach::Outside => Side::Host,
    }
}

/// A stream socket that has a peer, or is on its way to one, stays what it is. connect(2).
fn no_connection_yet(socket: &OwnedFd) -> Result<(), Stop> {
    if sys::is_tcp_closed(socket)? {
        return Ok(());
    }
    let errno = if rustix::net::getpeername(socket).is_ok() {
        Errno::EISCONN
    } else {
        Errno::EALREADY
    };
    Err(errno.into())
}

/// The bytes to act on: of an address that is judged as another, that other.
pub(crate) fn exact(mut bytes: Vec<u8>, ip: IpAddr) -> Vec<u8> {
    // Where the address stands in a `sockaddr_in` (linux/in.h) and in a `sockaddr_in6` (linux/in6.h).
    let (at, octets) = match acted_on(ip) {
        IpAddr::V4(v4) => (4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (8, v6.octets().to_vec()),
    };
    for (to, from) in bytes.iter_mut().skip(at).zip(octets) {
        *to = from;
    }
    bytes
}

fn finish(result: std::io::Result<()>) -> Outcome {
    result?;
    Ok(Answer::Value(0))
}

/// What egress rules call a socket, `None` for one that they cannot judge.
pub(crate) fn protocol_of(socket: &OwnedFd, domain: i32) -> Result<Option<Protocol>, Stop> {
    if !is(domain, AddressFamily::INET) && !is(domain, AddressFamily::INET6) {
        return Ok(None);
    }
    let kind = SocketType::from_raw(sys::kind(socket)?.cast_unsigned());
    let protocol = sys::protocol(socket)?.cast_unsigned();
    let is_protocol = |known: rustix::net::Protocol| protocol == known.as_raw().get();
    Ok(match kind {
        SocketType::STREAM if is_protocol(rustix::net::ipproto::TCP) => Some(Protocol::Tcp),
        SocketType::DGRAM if is_protocol(rustix::net::ipproto::UDP) => Some(Protocol::Udp),
        _ => None,
    })
}

pub(crate) fn is(domain: i32, family: AddressFamily) -> bool {
    domain == i32::from(family.as_raw())
}

pub(crate) fn family_denied(domain: i32) -> Stop {
    Stop::Denied(Denial {
        operation: Operation::Connect,
        object: format!("family {domain}"),
        reason: Reason::EgressFamily,
        errno: Errno::EPERM,
        rule: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(family: u16, rest: &[u8]) -> Vec<u8> {
        family
            .to_ne_bytes()
            .iter()
            .chain([0x1f, 0x90].iter())
            .chain(rest)
            .copied()
            .collect()
    }

    #[test]
    fn the_unspecified_address_is_acted_on_as_loopback_and_others_as_they_are() {
        let inet = |ip: [u8; 4]| bytes(2, &[&ip[..], &[0; 8]].concat());
        let any = IpAddr::from([0, 0, 0, 0]);
        assert_eq!(exact(inet([0, 0, 0, 0]), any), inet([127, 0, 0, 1]));
        let other = IpAddr::from([127, 0, 0, 2]);
        assert_eq!(exact(inet([127, 0, 0, 2]), other), inet([127, 0, 0, 2]));
        let inet6 = |ip: [u8; 16]| bytes(10, &[&[0, 0, 0, 7][..], &ip, &[3, 0, 0, 0]].concat());
        let one = std::net::Ipv6Addr::LOCALHOST.octets();
        assert_eq!(exact(inet6([0; 16]), IpAddr::from([0_u16; 8])), inet6(one));
    }
}
