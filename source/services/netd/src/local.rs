//! The local end of a socket: where it is bound, and under which numbers its owner has it.

use crate::side::{Move, Side};
use crate::{Denial, Netd, Stop};
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_sys::socket as sys;
use rustix::io::Errno as HostErrno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// The ports that the kernel takes by itself where nobody says otherwise (`ip_local_port_range`, ip(7)): the program's own
/// namespace never has others.
const PORTS_OF_A_NEW_NAMESPACE: (u16, u16) = (32768, 60999);

/// What of a thread's descriptor table matters when a socket moves.
pub(crate) struct Numbers {
    /// Those of the socket.
    pub(crate) same: Vec<u32>,
    /// Those of epoll instances.
    pub(crate) epolls: Vec<u32>,
}

/// Looks through a thread's descriptor table. proc_pid_fd(5).
pub(crate) fn numbers(tid: u32, socket: &OwnedFd) -> Numbers {
    let mut found = Numbers {
        same: Vec::new(),
        epolls: Vec::new(),
    };
    let (Ok(stat), Ok(entries)) = (rustix::fs::fstat(socket), std::fs::read_dir(format!("/proc/{tid}/fd"))) else {
        return found;
    };
    let own = format!("socket:[{}]", stat.st_ino);
    for entry in entries.flatten() {
        let (Ok(link), Some(number)) = (
            std::fs::read_link(entry.path()),
            entry.file_name().to_str().and_then(|name| name.parse().ok()),
        ) else {
            continue;
        };
        if link.as_os_str() == own.as_str() {
            found.same.push(number);
        } else if link.as_os_str() == "anon_inode:[eventpoll]" {
            found.epolls.push(number);
        }
    }
    found
}

/// Where a socket is bound; port 0 if it is not.
pub(crate) fn address_of(socket: impl AsFd) -> Option<SocketAddr> {
    rustix::net::getsockname(socket).ok()?.try_into().ok()
}

/// A `sockaddr_in` or `sockaddr_in6` (linux/in.h, linux/in6.h).
pub(crate) fn encode(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(rustix::net::AddressFamily::INET.as_raw().to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(rustix::net::AddressFamily::INET6.as_raw().to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// Whether the kernel would have taken this port by itself, on the host or inside.
#[must_use]
pub fn is_ephemeral(port: u16) -> bool {
    let (first, last) = PORTS_OF_A_NEW_NAMESPACE;
    (first..=last).contains(&port) || is_ephemeral_on_host(port)
}

fn is_ephemeral_on_host(port: u16) -> bool {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first..=last).contains(&port),
        _ => false,
    }
}

/// Whether an address, in any form, means every address of the machine.
pub(crate) fn is_wildcard(ip: IpAddr) -> bool {
    plain(ip).is_unspecified()
}

/// An IPv4-mapped address as the IPv4 address that it is.
pub(crate) fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// A port on the host that the kernel did not choose needs a rule.
pub(crate) fn bind_denied(protocol: Protocol, address: SocketAddr, netd: &Netd) -> Stop {
    Stop::Denied(Denial {
        operation: Operation::Bind,
        object: format!("{protocol} {address}"),
        reason: Reason::EgressNoRule,
        errno: Errno::EPERM,
        rule: netd.judges.egress.bind_rule_missing(),
    })
}

/// Binds a socket's successor on the other side to what the socket is bound to.
pub(crate) fn rebind(netd: &mut Netd, old: &OwnedFd, new: &OwnedFd, how: Move) -> Result<(), Stop> {
    let Some(bound) = address_of(old).filter(|bound| bound.port() != 0) else {
        return Ok(());
    };
    // An address of the host's is nobody's inside.
    let ip = match plain(bound.ip()) {
        ip if ip.is_loopback() || ip.is_unspecified() => bound.ip(),
        _ if bound.is_ipv4() => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let wanted = SocketAddr::new(ip, bound.port());
    let by_kernel = is_ephemeral(bound.port());
    let allowed = match how.to {
        Side::Inside => true,
        Side::Host if netd.judges.egress.allows_bind(how.protocol, bound.port()) => true,
        Side::Host if by_kernel => is_ephemeral_on_host(bound.port()),
        Side::Host => return Err(bind_denied(how.protocol, wanted, netd)),
    };
    let any = SocketAddr::new(ip, 0);
    let first = if allowed { wanted } else { any };
    match sys::bind(new, &encode(first)) {
        // What the kernel chose on one side may be taken on the other; then it chooses again.
        Err(error) if by_kernel && error.raw_os_error() == Some(HostErrno::ADDRINUSE.raw_os_error()) => {
            sys::bind(new, &encode(any))?;
        }
        other => other?,
    }
    if how.to == Side::Host && how.protocol == Protocol::Udp {
        netd.ports.note(new);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_kernel_reads_it() {
        for text in ["203.0.113.7:443", "[2001:db8::1]:53"] {
            let address: SocketAddr = text.parse().unwrap();
            let read = nexus_net_egress::sockaddr::parse(&encode(address)).unwrap();
            assert_eq!(read.destination(), Some((address.ip(), address.port())));
        }
    }

    #[test]
    fn every_form_of_the_wildcard_is_one() {
        for (text, expected) in [
            ("0.0.0.0", true),
            ("::", true),
            ("::ffff:0.0.0.0", true),
            ("::1", false),
        ] {
            assert_eq!(is_wildcard(text.parse().unwrap()), expected, "{text}");
        }
    }
}
