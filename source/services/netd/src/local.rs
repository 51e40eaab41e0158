//! The local end of a socket: where it is bound, and under which numbers its owner has it.

use crate::side::{Move, Side};
use crate::{Denial, Netd, Stop};
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_net_egress::sockaddr;
use nexus_sys::hurry::Hurried;
use nexus_sys::procfs;
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
    // To list them the kernel takes each file as well, and lets go of it.
    let _hurried = Hurried::now();
    for entry in entries.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(link) = procfs::link(tid, number) else {
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

/// Every address of a family.
pub(crate) fn wildcard(domain: i32) -> IpAddr {
    if crate::connect::is(domain, rustix::net::AddressFamily::INET) {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// `SO_REUSEADDR` and `SO_REUSEPORT`, socket(7).
pub(crate) const SHARING: [i32; 2] = [2, 15];
pub(crate) const SOL_SOCKET: i32 = 1;
/// Other sockets' options that say which ports count as free: `IPV6_V6ONLY` and `IP_LOCAL_PORT_RANGE`.
const OF_PORTS: [(i32, i32); 2] = [(41, 26), (0, 51)];

/// How often a port is chosen that somebody else takes first.
const CHOICES_MAX: usize = 16;

/// Binds a socket to an address of the program's.
pub(crate) fn bind_to(netd: &Netd, socket: &OwnedFd, how: Move<'_>, address: &[u8]) -> Result<(), Stop> {
    let egress = &netd.judges.egress;
    if let (Protocol::Udp, Ok(Some((ip, port)))) = (
        how.protocol,
        sockaddr::parse(address).map(|address| address.destination()),
    ) {
        match how.to {
            Side::Host if port == 0 => return bind_alone(socket, address),
            Side::Host if !egress.allows_bind(Protocol::Udp, port) => share_no_more(socket)?,
            // It goes outside under the same port once it sends there, so that has to be free there as well.
            Side::Inside if port == 0 && is_wildcard(ip) && egress.opens(Protocol::Udp) => {
                return to_chosen(socket, address);
            }
            _ => {}
        }
    }
    Ok(sys::bind(socket, address)?)
}

/// Binds a datagram socket on the host to a port of the kernel's choice that nobody else has, now and as long as it has it. With
/// `SO_REUSEADDR`, which the program may have set, the kernel would also choose one of a service that has set it too, of a range as
/// narrow as the program likes (`IP_LOCAL_PORT_RANGE`), and then gives the service's datagrams to whoever came last. So the port is
/// chosen by a socket that the program does not have.
pub(crate) fn bind_alone(socket: &OwnedFd, address: &[u8]) -> Result<(), Stop> {
    share_no_more(socket)?;
    to_chosen(socket, address)
}

/// Binds to a port that the host's kernel chooses for a socket like this one.
fn to_chosen(socket: &OwnedFd, address: &[u8]) -> Result<(), Stop> {
    // Where the port stands in both families (linux/in.h, linux/in6.h).
    const PORT: std::ops::Range<usize> = 2..4;
    let mut address = address.to_vec();
    let in_use = HostErrno::ADDRINUSE;
    for _ in 0..CHOICES_MAX {
        let alone = sys::socket(sys::domain(socket)?, sys::kind(socket)?, sys::protocol(socket)?)?;
        for (level, name) in OF_PORTS {
            sys::copy_option(socket, &alone, level, name);
        }
        // At every address, also where the socket takes one.
        sys::bind(&alone, &encode(SocketAddr::new(wildcard(sys::domain(socket)?), 0)))?;
        let port = address_of(&alone).ok_or(in_use)?.port();
        drop(alone);
        if let Some(place) = address.get_mut(PORT) {
            place.copy_from_slice(&port.to_be_bytes());
        }
        match sys::bind(socket, &address) {
            Err(error) if error.raw_os_error() == Some(in_use.raw_os_error()) => {}
            other => return other.map_err(Into::into),
        }
    }
    Err(in_use.into())
}

/// Takes back what lets others have the same port, or would later: two datagram sockets share one where both say so at the time that the
/// second is bound (`udp_lib_lport_inuse`). No datagram socket on the host has it but at a port that a rule gives, nor has it before it is bound: the program
/// can let the kernel bind one at any time, by a write (`inet_send_prepare`). It cannot set it there again ([`crate::share`]).
pub(crate) fn share_no_more(socket: &OwnedFd) -> std::io::Result<()> {
    SHARING
        .into_iter()
        .try_for_each(|name| match sys::int_option(socket, SOL_SOCKET, name) {
            Ok(0) => Ok(()),
            _ => sys::set_int_option(socket, SOL_SOCKET, name, 0),
        })
}
/// Binds a socket's successor on the other side to what the socket is bound to.
pub(crate) fn rebind(netd: &mut Netd, old: &OwnedFd, new: &OwnedFd, how: Move<'_>) -> Result<(), Stop> {
    let of_host = how.to == Side::Host && how.protocol == Protocol::Udp;
    let Some(bound) = address_of(old).filter(|bound| bound.port() != 0) else {
        if of_host {
            share_no_more(new)?;
        }
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
    let by_rule = netd.judges.egress.allows_bind(how.protocol, bound.port());
    let allowed = match how.to {
        Side::Inside => true,
        Side::Host if by_rule => true,
        Side::Host if by_kernel => is_ephemeral_on_host(bound.port()),
        Side::Host => return Err(bind_denied(how.protocol, wanted, netd)),
    };
    let alone = of_host && !by_rule;
    let any = || -> Result<(), Stop> {
        if of_host {
            return bind_alone(new, &encode(SocketAddr::new(ip, 0)));
        }
        Ok(sys::bind(new, &encode(SocketAddr::new(ip, 0)))?)
    };
    let first = match allowed {
        true if alone => share_no_more(new).and_then(|()| sys::bind(new, &encode(wanted))),
        true => sys::bind(new, &encode(wanted)),
        false => Err(HostErrno::ADDRINUSE.into()),
    };
    match first {
        // What the kernel chose on one side may be taken on the other; then it chooses again.
        Err(error) if by_kernel && error.raw_os_error() == Some(HostErrno::ADDRINUSE.raw_os_error()) => any()?,
        other => other?,
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
