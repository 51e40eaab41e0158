//! On which side of the wall a socket lives, and how it gets to the other.

use crate::broker::Broker;
use crate::caller::Caller;
use crate::local::{numbers, rebind};
use crate::options::copy_options;
use crate::{Netd, Stop, epoll};
use nexus_abi::Protocol;
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
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

/// How a socket moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) protocol: Protocol,
    pub(crate) to: Side,
    /// Whether it takes the address along that it is bound to; not if it gets another one right after.
    pub(crate) rebinds: bool,
}

/// A socket of the same kind on the other side, with the same options and address, in place of the caller's: under every
/// number that the caller has for it, and in every epoll instance of the caller's.
pub(crate) fn swap(
    netd: &mut Netd,
    call: &Notification,
    register: u64,
    old: &OwnedFd,
    how: Move,
) -> Result<OwnedFd, Stop> {
    let (domain, kind, protocol) = (sys::domain(old)?, sys::kind(old)?, sys::protocol(old)?);
    let new = match how.to {
        Side::Host => sys::socket(domain, kind, protocol)?,
        Side::Inside => netd.broker.socket(domain, kind, protocol)?,
    };
    copy_options(old, &new)?;
    if how.rebinds {
        rebind(netd, old, &new, how)?;
    }
    let caller = Caller::of(call, &netd.listener);
    let asked = u32::try_from(crate::int(register)).map_err(|_| nexus_abi::Errno::EBADF)?;
    let mut found = numbers(call.tid, old);
    if !found.same.contains(&asked) {
        found.same.push(asked);
    }
    let registrations = epoll::registrations(&caller, old, &found.same, &found.epolls);
    for number in found.same {
        let cloexec = caller.closes_on_exec(u64::from(number));
        let replaced = netd.listener.replace_descriptor(call.id, new.as_fd(), number, cloexec);
        // The one that was asked about counts; a copy may be gone by now.
        if number == asked {
            replaced?;
        }
    }
    epoll::repair(&registrations, old, &new);
    netd.ports.forget(old);
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
