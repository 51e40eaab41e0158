//! sendto(2), sendmsg(2), sendmmsg(2)
//!
//! A datagram names its receiver itself, so each is judged and sent here, on the bytes that were copied. Only a subject that
//! may send datagrams to the outside has sockets that could carry one away; for others the filter asks nobody.

use crate::caller::Caller;
use crate::connect::{exact, family_denied, is, side_for};
use crate::control;
use crate::gather::{LENGTH_AT, NUMBERED_HEADER_BYTES, Outgoing};
use crate::route::{judge, judge_without_destination};
use crate::side::{Address, Move, Side, Traits, swap};
use crate::stream::{self, Progress};
use crate::taken::Taken;
use crate::worker::GiveWay;
use crate::{Answer, Denial, Effects, Netd, Outcome, Stop, int, unusable};
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_net_egress::Reach;
use nexus_net_egress::sockaddr::{self, SockAddr};
use nexus_sys::memory;
use nexus_sys::message::{self, Control, Message};
use nexus_sys::seccomp::{Listener, Notification};
use nexus_sys::socket as sys;
use rustix::net::{AddressFamily, SocketType};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The longest datagram: its length is a 16-bit number in the header, also where the kernel cuts it into several.
const DATAGRAM_BYTES_MAX: usize = 65535;

/// How many messages of one sendmmsg(2) are sent before the caller is told how many: the call may always send fewer than
/// asked, and nobody else's call waits longer.
const MESSAGES_MAX: u64 = 64;

const MSG_DONTWAIT: i32 = 0x40;

/// sendto(2)
pub(crate) fn to(netd: &mut Netd, call: &Notification, effects: &mut Effects) -> Outcome {
    let listener = Arc::clone(&netd.listener);
    let outgoing = Outgoing::of_arguments(&Caller::of(call, &listener), call.args)?;
    let progress = one(netd, call, outgoing, true, effects)?;
    settle(netd, call, progress)
}

/// sendmsg(2)
pub(crate) fn message(netd: &mut Netd, call: &Notification, effects: &mut Effects) -> Outcome {
    let [_, header, flags, ..] = call.args;
    let listener = Arc::clone(&netd.listener);
    let outgoing = Outgoing::of_header(&Caller::of(call, &listener), header, int(flags))?;
    let progress = one(netd, call, outgoing, true, effects)?;
    settle(netd, call, progress)
}

fn settle(netd: &Netd, call: &Notification, progress: Progress) -> Outcome {
    match progress {
        Progress::Done(sent) => Ok(Answer::Value(i64::try_from(sent).unwrap_or(i64::MAX))),
        Progress::Waits(work) => {
            netd.workers.send(call, work, restarts(call, netd)?)?;
            Ok(Answer::Later)
        }
    }
}

/// A call with a timeout would begin to count again: it ends with `EINTR` instead, signal(7).
fn restarts(call: &Notification, netd: &Netd) -> Result<bool, Stop> {
    let [fd, ..] = call.args;
    let socket = Caller::of(call, &netd.listener).take(fd)?;
    Ok(rustix::net::sockopt::socket_timeout(&socket, rustix::net::sockopt::Timeout::Send)?.is_none())
}

/// sendmmsg(2): as many as can be sent now; whatever stops it later is told to the call that begins with it.
pub(crate) fn messages(netd: &mut Netd, call: &Notification, effects: &mut Effects) -> Outcome {
    let [_, vector, count, flags, ..] = call.args;
    let count = u64::from(int(count).cast_unsigned()).min(MESSAGES_MAX);
    let listener = Arc::clone(&netd.listener);
    let caller = Caller::of(call, &listener);
    let mut done = 0;
    while done < count {
        let at = vector.saturating_add(done.saturating_mul(NUMBERED_HEADER_BYTES));
        let length_at = at.saturating_add(LENGTH_AT);
        let outgoing = Outgoing::of_header(&caller, at, int(flags));
        let progress = outgoing.and_then(|outgoing| one(netd, call, outgoing, done == 0, effects));
        let sent = match progress {
            Ok(Progress::Done(sent)) => sent,
            Ok(Progress::Waits(mut work)) => {
                let (tid, id, listener) = (call.tid, call.id, Arc::clone(&listener));
                let first = move |give_way: &GiveWay| {
                    let sent = work(give_way)?;
                    // It was sent, whether or not anybody can be told how much.
                    let _ = tell_length(&listener, (id, tid), length_at, sent);
                    Ok(1)
                };
                return settle(netd, call, Progress::Waits(Box::new(first)));
            }
            Err(stop) if done == 0 => return Err(stop),
            Err(Stop::Denied(denial)) => {
                effects.denied = Some(denial);
                break;
            }
            Err(Stop::Errno(_)) => break,
        };
        done += 1;
        if tell_length(&listener, (call.id, call.tid), length_at, sent).is_err() {
            break;
        }
    }
    Ok(Answer::Value(i64::try_from(done).unwrap_or(i64::MAX)))
}

/// Writes how much was sent into the memory of a caller that still waits: of one that is gone the number may be somebody
/// else's by now.
fn tell_length(listener: &Listener, (id, tid): (u64, u32), at: u64, sent: usize) -> std::io::Result<usize> {
    if !listener.is_waiting(id) {
        return Err(rustix::io::Errno::SRCH.into());
    }
    memory::write(tid, at, &u32::try_from(sent).unwrap_or(u32::MAX).to_ne_bytes())
}

/// One message; `first` of its call, so that it may wait.
fn one(
    netd: &mut Netd,
    call: &Notification,
    outgoing: Outgoing,
    first: bool,
    effects: &mut Effects,
) -> Result<Progress, Stop> {
    let [fd, ..] = call.args;
    let listener = Arc::clone(&netd.listener);
    let caller = Caller::of(call, &listener);
    let socket = caller.take(fd)?;
    let traits = netd.traits(&socket)?;
    let domain = traits.domain;
    if traits.protocol != Some(Protocol::Udp) {
        caller.still()?;
    }
    if is(domain, AddressFamily::UNIX) {
        judge_without_destination(netd, call, "unix")?;
        let waits = first && stream::may_wait(&socket, outgoing.flags)?;
        return unix(&caller, &listener, socket, outgoing, waits);
    }
    match traits.protocol {
        None => Err(family_denied(domain)),
        Some(Protocol::Tcp) => {
            // The kernel ignores an address here, or says that there is no peer.
            judge_without_destination(netd, call, "connected")?;
            control::of_internet(&outgoing.control)?;
            let waits = first && stream::may_wait(&socket, outgoing.flags)?;
            stream::send(&caller, &listener, socket, outgoing, Vec::new(), false, waits)
        }
        Some(Protocol::Udp) => datagram(netd, call, socket, traits, &outgoing, first, effects),
    }
}

fn unix(
    caller: &Caller<'_>,
    listener: &Arc<Listener>,
    socket: Taken,
    outgoing: Outgoing,
    waits: bool,
) -> Result<Progress, Stop> {
    let kind = SocketType::from_raw(sys::kind(&socket)?.cast_unsigned());
    let whole = match kind {
        SocketType::STREAM if outgoing.name.is_some() => {
            let connected = rustix::net::getpeername(&socket).is_ok();
            return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP }.into());
        }
        SocketType::STREAM => false,
        SocketType::SEQPACKET => true,
        // One that was handed in from outside: it could name any socket there is.
        _ => {
            return Err(Stop::Denied(Denial {
                operation: Operation::Send,
                object: "unix datagram".to_owned(),
                reason: Reason::IpcNoRule,
                errno: Errno::EPERM,
                rule: None,
            }));
        }
    };
    let rights = control::rights(&outgoing.control, caller)?;
    stream::send(caller, listener, socket, outgoing, rights, whole, waits)
}

/// Where a datagram goes: nowhere that it says, or there.
fn destination(outgoing: &Outgoing, domain: i32) -> Result<Option<(Vec<u8>, SocketAddr)>, Stop> {
    let Some(bytes) = &outgoing.name else { return Ok(None) };
    unusable::in_datagram(domain, bytes)?;
    let (bytes, to) = match sockaddr::parse(bytes)? {
        // To an IPv4 socket a family that is not said is its own, to an IPv6 socket no address at all (`udp_sendmsg`,
        // `udpv6_sendmsg`). What is sent is what is judged: its family is written.
        SockAddr::Unspec { inet } if is(domain, AddressFamily::INET) => {
            let (ip, port) = inet.ok_or(Errno::EINVAL)?;
            let address = SocketAddr::new(ip.into(), port);
            (crate::local::encode(address), address)
        }
        SockAddr::Unspec { .. } => return Ok(None),
        address => {
            let (ip, port) = address.destination().ok_or(Errno::EAFNOSUPPORT)?;
            (exact(bytes.clone(), ip), SocketAddr::new(ip, port))
        }
    };
    // Nobody sends there, and no rule opens it.
    if to.port() == 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(Some((bytes, to)))
}

fn datagram(
    netd: &mut Netd,
    call: &Notification,
    socket: Taken,
    traits: Traits,
    outgoing: &Outgoing,
    first: bool,
    effects: &mut Effects,
) -> Result<Progress, Stop> {
    if outgoing.total() > DATAGRAM_BYTES_MAX {
        return Err(Errno::EMSGSIZE.into());
    }
    // The last that is learnt of the caller; what was learnt before holds with it.
    let listener = Arc::clone(&netd.listener);
    let data = outgoing.data(&Caller::of(call, &listener))?;
    let flags = stream::flags(&socket, outgoing.flags)?;
    let control = control::of_internet(&outgoing.control)?;
    let (bytes, address) = match destination(outgoing, traits.domain) {
        Ok(Some(to)) => to,
        Ok(None) => {
            judge_without_destination(netd, call, "connected")?;
            return deliver(socket, Vec::new(), data, control, flags, first);
        }
        // A rule that refuses the call whatever it says comes first.
        Err(stop) => return Err(judge_without_destination(netd, call, "unusable").err().unwrap_or(stop)),
    };
    let reach = judge(netd, call, Operation::Send, Protocol::Udp, address)?;
    let wanted = side_for(reach);
    let socket = if traits.side == wanted {
        socket
    } else {
        if rustix::net::getpeername(&socket).is_ok() {
            // It would lose its peer on the other side.
            return Err(Errno::ENETUNREACH.into());
        }
        let how = Move {
            protocol: Protocol::Udp,
            to: wanted,
            address: Address::Kept,
        };
        let [fd, ..] = call.args;
        swap(netd, call, fd, &socket, how)?.into()
    };
    if wanted == Side::Host {
        let traits = if traits.side == wanted {
            traits
        } else {
            netd.traits(&socket)?
        };
        netd.name(traits, &socket)?;
    }
    effects.egress_allowed += u64::from(reach == Reach::Outside);
    deliver(socket, bytes, data, control, flags, first)
}

fn deliver(
    socket: Taken,
    address: Vec<u8>,
    data: Vec<u8>,
    control: Vec<control::Part>,
    flags: i32,
    first: bool,
) -> Result<Progress, Stop> {
    let send = move |socket: &OwnedFd, more: i32| {
        let parts: Vec<Control<'_>> = control
            .iter()
            .map(|part| Control {
                level: part.level,
                kind: part.kind,
                data: &part.data,
            })
            .collect();
        message::send(
            socket,
            &Message {
                address: &address,
                data: &data,
                rights: &[],
                control: &parts,
                flags: flags | more,
            },
        )
    };
    match send(&socket, MSG_DONTWAIT) {
        Ok(sent) => Ok(Progress::Done(sent)),
        // A datagram goes whole or not at all: it is not sent twice.
        Err(error) if first && error.kind() == std::io::ErrorKind::WouldBlock && stream::may_wait(&socket, flags)? => {
            Ok(Progress::Waits(Box::new(move |_| send(&socket, 0))))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn nothing_is_written_into_the_memory_of_whose_call_is_over() {
        static LENGTH: AtomicU32 = AtomicU32::new(7);
        let at = LENGTH.as_ptr().addr() as u64;
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        // No call waits at anything but a filter.
        let over = Listener::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        assert!(tell_length(&over, (1, tid), at, 9).is_err());
        assert_eq!(LENGTH.load(Ordering::SeqCst), 7);
        // That it is the guard: the memory can be written.
        memory::write(tid, at, &9_u32.to_ne_bytes()).unwrap();
        assert_eq!(LENGTH.load(Ordering::SeqCst), 9);
    }
}
