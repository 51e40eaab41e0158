//! The network of a proof's host side: a namespace of its own in which every address is local.
//!
//! What policy allows is really connected, and what arrives is taken by a listener of the proof's; nothing leaves the
//! machine, because from this namespace nothing leads anywhere. The host's own addresses are given to the namespace too,
//! so that they are judged as what they are.

use crate::run::{Exit, Failure};
use nexus_abi::Protocol;
use nexus_sys::socket::{loopback_up, set_int_option};
use nexus_sys::userns::{map_self, unshare_network};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrV6, SocketFlags, SocketType, bind, connect, listen,
    recv, send, socket_with, sockopt,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// How many connections may wait to be seen: as many as one proof makes.
const BACKLOG: i32 = 512;

// linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const RTA_OIF: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
/// The loopback interface is the first of every namespace.
const LOOPBACK: u32 = 1;

/// Enters a network of the proof's own, and listens on these ports of every address, and as these name servers.
///
/// Needs a process with one thread. An ordinary user gets a user namespace around it: the session is then one user
/// namespace deeper than a run's, and everything in it stands to everything else as in a run.
pub(super) fn enter(
    own: &[IpAddr],
    ports: &[(Protocol, u16)],
    servers: &[SocketAddr],
) -> Result<Vec<OwnedFd>, Failure> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let user = !uid.is_root();
    unshare_network(user).map_err(|error| refused("make a network namespace", &error))?;
    if user {
        map_self(uid.as_raw(), gid.as_raw()).map_err(|error| refused("map the user into it", &error))?;
    }
    loopback_up().map_err(|error| refused("bring its loopback up", &error))?;
    let link = Link::open().map_err(|error| refused("reach its routes", &error.into()))?;
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        match link.everything_is_local(family) {
            // A kernel without IPv6.
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) if family == AddressFamily::INET6 => {}
            other => other.map_err(|error| refused("make every address local", &error.into()))?,
        }
    }
    for address in own
        .iter()
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
    {
        match link.add(*address) {
            // A kernel or host without IPv6 here has none of these to be judged.
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::ACCESS) if address.is_ipv6() => {}
            other => other.map_err(|error| refused("give it the host's addresses", &error.into()))?,
        }
    }
    let sinks = ports.iter().map(|(protocol, port)| sink(*protocol, *port));
    let servers = servers.iter().map(|at| server(*at));
    let listening = |made: Result<OwnedFd, Errno>| made.map_err(|error| refused("listen in it", &error.into()));
    sinks.chain(servers).map(listening).collect()
}

fn refused(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Unsupported,
        format!("a proof needs a network of its own, and this machine does not let nx {what}: {error}"),
    )
    .with_help("`nx sec doctor` says what this machine gives; without such a network a proof might reach somebody")
}

/// A socket that takes what comes to this port of any address.
fn sink(protocol: Protocol, port: u16) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, address): (_, SocketAddrAny) = match socket_with(AddressFamily::INET6, kind, flags, None) {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
            (socket, address.into())
        }
        Err(Errno::AFNOSUPPORT) => {
            let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
            (socket, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
        }
        Err(error) => return Err(error),
    };
    if protocol == Protocol::Udp {
        // Beside a name server of the proof's on the same port of one address.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// A socket that takes what is asked of a name server at this address: what it answers comes from there.
fn server(at: SocketAddr) -> Result<OwnedFd, Errno> {
    // linux/in6.h: IPPROTO_IPV6, IPV6_FREEBIND
    const FREEBIND_V6: (i32, i32) = (41, 78);
    let family = match at {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if at.is_ipv6() {
        let (level, name) = FREEBIND_V6;
        set_int_option(&socket, level, name, 1)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    }
    bind(&socket, &at)?;
    Ok(socket)
}

/// A netlink(7) socket.
struct Link(OwnedFd);

impl Link {
    fn open() -> Result<Self, Errno> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// `local default dev lo`, ip-route(8).
    fn everything_is_local(&self, family: AddressFamily) -> Result<(), Errno> {
        // struct rtmsg: family, lengths of the prefixes, tos, table, protocol, scope, type, flags
        let mut message = vec![
            low(family),
            0,
            0,
            0,
            RT_TABLE_LOCAL,
            RTPROT_STATIC,
            RT_SCOPE_HOST,
            RTN_LOCAL,
        ];
        message.extend(0_u32.to_ne_bytes());
        attribute(&mut message, RTA_OIF, &LOOPBACK.to_ne_bytes());
        self.ask(RTM_NEWROUTE, &message)
    }

    /// One address more on the loopback interface.
    fn add(&self, address: IpAddr) -> Result<(), Errno> {
        let (family, bits, octets) = match address {
            IpAddr::V4(v4) => (AddressFamily::INET, 32, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AddressFamily::INET6, 128, v6.octets().to_vec()),
        };
        // struct ifaddrmsg: family, length of the prefix, flags, scope, interface
        let mut message = vec![low(family), bits, IFA_F_NODAD, 0];
        message.extend(LOOPBACK.to_ne_bytes());
        attribute(&mut message, IFA_LOCAL, &octets);
        attribute(&mut message, IFA_ADDRESS, &octets);
        self.ask(RTM_NEWADDR, &message)
    }

    /// Sends one request and waits for the kernel's word, which is there when send(2) returns.
    fn ask(&self, kind: u16, message: &[u8]) -> Result<(), Errno> {
        const HEADER: usize = 16;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let length = u32::try_from(HEADER.saturating_add(message.len())).map_err(|_| Errno::MSGSIZE)?;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(message);
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut answer = [0_u8; 512];
        recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        // struct nlmsgerr stands behind the header: first the errno, negative.
        let errno = answer.get(HEADER..).and_then(|rest| rest.first_chunk()).copied();
        match errno.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(errno) => Err(Errno::from_raw_os_error(errno.saturating_neg())),
            None => Err(Errno::PROTO),
        }
    }
}

fn low(family: AddressFamily) -> u8 {
    u8::try_from(family.as_raw()).unwrap_or(u8::MAX)
}

/// struct rtattr: length, type, value; every length here is a multiple of four.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
}
