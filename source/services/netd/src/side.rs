//! On which side of the wall a socket lives, and how it gets to the other.

use crate::broker::Broker;
use crate::caller::Caller;
use crate::{Netd, Stop};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use rustix::fs::OFlags;
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

/// A socket of the same kind on the other side, with the same options, in place of the caller's.
pub(crate) fn swap(netd: &Netd, call: &Notification, register: u64, old: &OwnedFd, to: Side) -> Result<OwnedFd, Stop> {
    let (domain, kind, protocol) = (sys::domain(old)?, sys::kind(old)?, sys::protocol(old)?);
    let new = match to {
        Side::Host => sys::socket(domain, kind, protocol)?,
        Side::Inside => netd.broker.socket(domain, kind, protocol)?,
    };
    copy_options(old, &new)?;
    let caller = Caller::of(call, &netd.listener);
    let cloexec = caller.closes_on_exec(register);
    let number = u32::try_from(crate::int(register)).map_err(|_| nexus_abi::Errno::EBADF)?;
    netd.listener
        .replace_descriptor(call.id, new.as_fd(), number, cloexec)?;
    Ok(new)
}

/// What a program may have set on a socket before it gave it an address: the options that the shipped profile lets it
/// set and that are one integer. Numbers: socket(7), tcp(7), ip(7), ipv6(7); asm-generic/socket.h, linux/in.h, in6.h.
const INT_OPTIONS: &[(i32, i32)] = &[
    (1, 2),   // SOL_SOCKET, SO_REUSEADDR
    (1, 15),  // SO_REUSEPORT
    (1, 9),   // SO_KEEPALIVE
    (1, 6),   // SO_BROADCAST
    (1, 10),  // SO_OOBINLINE
    (1, 18),  // SO_RCVLOWAT
    (6, 1),   // IPPROTO_TCP, TCP_NODELAY
    (6, 4),   // TCP_KEEPIDLE
    (6, 5),   // TCP_KEEPINTVL
    (6, 6),   // TCP_KEEPCNT
    (6, 7),   // TCP_SYNCNT
    (6, 9),   // TCP_DEFER_ACCEPT
    (6, 12),  // TCP_QUICKACK
    (6, 18),  // TCP_USER_TIMEOUT
    (0, 1),   // IPPROTO_IP, IP_TOS
    (0, 2),   // IP_TTL
    (41, 26), // IPPROTO_IPV6, IPV6_V6ONLY
    (41, 67), // IPV6_TCLASS
    (41, 16), // IPV6_UNICAST_HOPS
];

fn copy_options(from: &OwnedFd, to: &OwnedFd) -> Result<(), Stop> {
    for (level, name) in INT_OPTIONS {
        sys::copy_int_option(from, to, *level, *name);
    }
    let flags = rustix::fs::fcntl_getfl(from)? & (OFlags::NONBLOCK | OFlags::from_bits_retain(O_ASYNC));
    rustix::fs::fcntl_setfl(to, flags)?;
    Ok(())
}

// asm-generic/fcntl.h
const O_ASYNC: u32 = 0o20000;

impl Broker {
    /// A socket in the program's network namespace.
    pub(crate) fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Stop> {
        use nexus_wire::broker::Request;
        let (_, descriptors) = self.ask(&Request::Socket { domain, kind, protocol }, &[])?;
        descriptors.into_iter().next().ok_or(nexus_abi::Errno::EIO.into())
    }
}
