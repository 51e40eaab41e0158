//! On which side of the wall a socket lives, and how it gets to the other.

use crate::broker::Broker;
use crate::caller::Caller;
use crate::connect::protocol_of;
use crate::local::{address_of, bind_alone, bind_to, encode, numbers, rebind, share_no_more, wildcard};
use crate::options::copy_options;
use crate::{Netd, Stop, epoll, waiting};
use nexus_abi::Protocol;
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// The two network namespaces, by their cookies. socket(7), `SO_NETNS_COOKIE`.
#[derive(Debug)]
pub(crate) struct Sides {
    inside: u64,
}

/// Where a socket lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// In the program's own network namespace.
    Inside,
    /// In the host's.
    Host,
}

impl Sides {
    pub(crate) fn between(inside: &OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            inside: sys::netns_cookie(inside)?,
        })
    }

    /// What is not the program's own is treated as the host's.
    pub(crate) fn of(&self, socket: impl AsFd) -> std::io::Result<Side> {
        Ok(if sys::netns_cookie(socket)? == self.inside {
            Side::Inside
        } else {
            Side::Host
        })
    }
}

/// What a socket is, which never changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// `AF_*`.
    pub(crate) domain: i32,
    /// What egress rules call it; `None` for one that they cannot judge.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) side: Side,
    /// Its number in [`Seen`].
    cookie: u64,
}

/// Traits by the number that the kernel gives each socket once.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    traits: BTreeMap<u64, Traits>,
    /// Those of them that have a port on the host which nothing takes from them.
    named: BTreeSet<u64>,
}

/// How many sockets are remembered: those that a program gives addresses again and again are few.
const SEEN_MAX: usize = 256;

impl Seen {
    fn keep(&mut self, cookie: u64, traits: Traits) {
        if self.traits.len() >= SEEN_MAX {
            self.traits.clear();
            self.named.clear();
        }
        self.traits.insert(cookie, traits);
    }
}

impl Netd {
    /// A socket that was just made on the host's side with these numbers: what it is need not be asked for.
    pub(crate) fn made(&mut self, socket: &OwnedFd, domain: i32, kind: i32, protocol: i32) {
        let is = |known: rustix::net::Protocol| protocol == 0 || protocol.cast_unsigned() == known.as_raw().get();
        const FLAGS: u32 = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK).bits();
        let protocol = match SocketType::from_raw(kind.cast_unsigned() & !FLAGS) {
            SocketType::STREAM if is(rustix::net::ipproto::TCP) => Protocol::Tcp,
            SocketType::DGRAM if is(rustix::net::ipproto::UDP) => Protocol::Udp,
            _ => return,
        };
        let internet = [AddressFamily::INET, AddressFamily::INET6].map(|family| i32::from(family.as_raw()));
        if let (true, Ok(cookie)) = (internet.contains(&domain), sys::cookie(socket)) {
            let traits = Traits {
                domain,
                protocol: Some(protocol),
                side: Side::Host,
                cookie,
            };
            self.seen.keep(cookie, traits);
        }
    }

    /// What a socket is. Asked of the kernel once for each socket.
    pub(crate) fn traits(&mut self, socket: &OwnedFd) -> Result<Traits, Stop> {
        let cookie = sys::cookie(socket)?;
        if let Some(traits) = self.seen.traits.get(&cookie) {
            return Ok(*traits);
        }
        let domain = sys::domain(socket)?;
        let traits = Traits {
            domain,
            protocol: protocol_of(socket, domain)?,
            side: self.sides.of(socket)?,
            cookie,
        };
        self.seen.keep(cookie, traits);
        Ok(traits)
    }

    /// Sees to it that a datagram socket on the host has a port before it sends: one of its own, which the kernel would not
    /// promise it (see [`bind_alone`]).
    pub(crate) fn name(&mut self, traits: Traits, socket: &OwnedFd) -> Result<(), Stop> {
        if self.seen.named.contains(&traits.cookie) {
            return Ok(());
        }
        if address_of(socket).is_none_or(|bound| bound.port() == 0) {
            bind_alone(socket, &encode(SocketAddr::new(wildcard(traits.domain), 0)))?;
        }
        if self.seen.traits.contains_key(&traits.cookie) {
            self.seen.named.insert(traits.cookie);
        }
        Ok(())
    }

    /// A socket is about to be dissolved, which may cost it its port.
    pub(crate) fn dissolves(&mut self, traits: Traits, socket: &OwnedFd) -> std::io::Result<()> {
        self.seen.named.remove(&traits.cookie);
        if traits.protocol == Some(Protocol::Udp) && traits.side == Side::Host {
            share_no_more(socket)?;
        }
        Ok(())
    }
}

/// How a socket moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) to: Side,
    pub(crate) address: Address<'a>,
}

/// The local address of a socket that moves. It has it before the program has the socket: without one, a write of the program's lets the
/// kernel choose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Address<'a> {
    /// The one that it is bound to, if it is.
    Kept,
    /// This one: a `sockaddr` of the program's.
    Given(&'a [u8]),
}

/// A socket of the same kind on the other side, with the same options and address, in place of the caller's: under every
/// number that the caller has for it, and in every epoll instance of the caller's.
pub(crate) fn swap(
    netd: &mut Netd,
    call: &Notification,
    register: u64,
    old: &OwnedFd,
    how: Move<'_>,
) -> Result<OwnedFd, Stop> {
    let (domain, kind, protocol) = (sys::domain(old)?, sys::kind(old)?, sys::protocol(old)?);
    let new = match how.to {
        Side::Host => sys::socket(domain, kind, protocol)?,
        Side::Inside => netd.broker.socket(domain, kind, protocol)?,
    };
    copy_options(old, &new)?;
    match how.address {
        Address::Kept => rebind(netd, old, &new, how)?,
        Address::Given(bytes) => bind_to(netd, &new, how, bytes)?,
    }
    let caller = Caller::of(call, &netd.listener);
    let asked = u32::try_from(crate::int(register)).map_err(|_| nexus_abi::Errno::EBADF)?;
    let mut found = numbers(call.tid, old);
    if !found.same.contains(&asked) {
        found.same.push(asked);
    }
    let registrations = epoll::registrations(&caller, old, &found.epolls);
    for number in &found.same {
        let cloexec = caller.closes_on_exec(u64::from(*number));
        let replaced = netd.listener.replace_descriptor(call.id, new.as_fd(), *number, cloexec);
        // The one that was asked about counts; a copy may be gone by now.
        if *number == asked {
            replaced?;
        }
    }
    epoll::repair(&registrations, old, &new);
    waiting::look_again(&caller, &found.same);
    Ok(new)
}

impl Broker {
    /// A socket in the program's network namespace.
    pub(crate) fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Stop> {
        use nexus_wire::broker::Request;
        let (_, descriptors) = self.ask(&Request::Socket { domain, kind, protocol }, &[])?;
        descriptors.into_iter().next().ok_or(nexus_abi::Errno::EIO.into())
    }
}
