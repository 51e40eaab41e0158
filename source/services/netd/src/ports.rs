//! The session's own UDP ports on the host.
//!
//! A socket that is bound to every address, with a port that the kernel chose, is on the host: it may send to the outside
//! at any time. Another socket of the session that sends to that port on the loopback means this one. It then sends over
//! the host's loopback, to a port that is held here, so that nobody else can have it.

use crate::local::{address_of, plain};
use nexus_net_egress::acted_on;
use nexus_sys::socket as sys;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

/// How many ports are held. A held socket's queue of unread datagrams stays in memory (200 KiB by default) until the
/// session ends or its place is needed; a program that has more of them at once reaches the oldest no longer.
const PORTS_MAX: usize = 128;

#[derive(Debug)]
struct Held {
    socket: OwnedFd,
    cookie: u64,
    port: u16,
    /// The one address that it is bound to; `None`: all.
    only: Option<IpAddr>,
    v4: bool,
    v6: bool,
}

/// Ports that the session's sockets have on the host.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: VecDeque<Held>,
}

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_REUSEPORT: i32 = 15;
const IPPROTO_IPV6: i32 = 41;
const IPV6_V6ONLY: i32 = 26;

/// A port that is shared may be somebody else's as well.
fn shares(socket: &OwnedFd) -> bool {
    [SO_REUSEADDR, SO_REUSEPORT]
        .into_iter()
        .any(|name| sys::int_option(socket, SOL_SOCKET, name).is_ok_and(|value| value != 0))
}

impl Ports {
    /// Holds the port of a socket on the host.
    pub(crate) fn note(&mut self, socket: &OwnedFd) {
        let (Some(address), Ok(cookie), Ok(copy)) = (address_of(socket), sys::cookie(socket), socket.try_clone())
        else {
            return;
        };
        let reachable = plain(address.ip()).is_unspecified() || plain(address.ip()).is_loopback();
        if address.port() == 0 || !reachable || shares(socket) {
            return;
        }
        self.held.retain(|held| held.cookie != cookie);
        let (v4, v6) = match address.ip() {
            IpAddr::V4(_) => (true, false),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => (true, false),
            IpAddr::V6(v6) if v6.is_loopback() => (false, true),
            IpAddr::V6(_) => (
                sys::int_option(socket, IPPROTO_IPV6, IPV6_V6ONLY).is_ok_and(|only| only == 0),
                true,
            ),
        };
        if self.held.len() >= PORTS_MAX {
            self.held.pop_front();
        }
        self.held.push_back(Held {
            socket: copy,
            cookie,
            port: address.port(),
            only: Some(plain(address.ip())).filter(|ip| !ip.is_unspecified()),
            v4,
            v6,
        });
    }

    /// Whether this port of the host's loopback is one of the session's. Whoever could change that asks the same judge.
    pub(crate) fn are_ours(&self, ip: IpAddr, port: u16) -> bool {
        self.held.iter().any(|held| {
            held.port == port
                && held.only.is_none_or(|only| only == acted_on(plain(ip)))
                && (if plain(ip).is_ipv4() { held.v4 } else { held.v6 })
                // A connect to the outside leaves it one address of all that it had: the port on the others is anybody's.
                && address_of(held.socket.as_fd()).is_some_and(|now| {
                    now.port() == port && held.only == Some(plain(now.ip())).filter(|ip| !ip.is_unspecified())
                })
                && !shares(&held.socket)
        })
    }

    /// A socket that moved has no port there any more.
    pub(crate) fn forget(&mut self, socket: &OwnedFd) {
        if let (false, Ok(cookie)) = (self.held.is_empty(), sys::cookie(socket)) {
            self.held.retain(|held| held.cookie != cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn socket(at: &str) -> (OwnedFd, u16) {
        let socket = UdpSocket::bind(at).unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket.into(), port)
    }

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn a_noted_port_is_ours_until_it_is_forgotten_and_its_neighbour_never() {
        let mut ports = Ports::default();
        let (one, port) = socket("0.0.0.0:0");
        assert!(!ports.are_ours(V4, port));
        ports.note(&one);
        assert!(ports.are_ours(V4, port) && !ports.are_ours(V6, port));
        assert!(!ports.are_ours(V4, port.wrapping_add(1)));
        ports.forget(&one);
        assert!(!ports.are_ours(V4, port));
    }

    #[test]
    fn another_address_of_the_loopback_is_somebody_elses() {
        let mut ports = Ports::default();
        let (one, port) = socket("127.0.0.1:0");
        ports.note(&one);
        assert!(ports.are_ours(V4, port) && ports.are_ours([0, 0, 0, 0].into(), port));
        assert!(!ports.are_ours([127, 0, 0, 2].into(), port));
        let (all, port) = socket("0.0.0.0:0");
        ports.note(&all);
        assert!(ports.are_ours([127, 0, 0, 2].into(), port));
    }

    #[test]
    fn a_port_is_not_ours_at_the_addresses_that_a_connect_took_from_it() {
        let mut ports = Ports::default();
        let all = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = all.local_addr().unwrap().port();
        let held = OwnedFd::from(all.try_clone().unwrap());
        ports.note(&held);
        assert!(ports.are_ours([127, 0, 0, 2].into(), port));
        all.connect("127.0.0.9:9").unwrap();
        assert_eq!(all.local_addr().unwrap(), (V4, port).into());
        let other = UdpSocket::bind(("127.0.0.2", port)).unwrap();
        assert!(!ports.are_ours([127, 0, 0, 2].into(), port), "it is {other:?}'s now");
        // What was noted after the connect is the one address that is left.
        ports.note(&held);
        assert!(ports.are_ours(V4, port) && !ports.are_ours([127, 0, 0, 2].into(), port));
    }

    #[test]
    fn a_port_that_others_may_share_is_not_ours() {
        let mut ports = Ports::default();
        let (one, port) = socket("0.0.0.0:0");
        ports.note(&one);
        sys::set_int_option(&one, SOL_SOCKET, SO_REUSEADDR, 1).unwrap();
        assert!(!ports.are_ours(V4, port));
        ports.forget(&one);
        ports.note(&one);
        assert!(ports.held.is_empty());
    }

    #[test]
    fn more_ports_than_fit_push_out_the_oldest() {
        let mut ports = Ports::default();
        let many: Vec<_> = (0..=PORTS_MAX).map(|_| socket("127.0.0.1:0")).collect();
        many.iter().for_each(|(socket, _)| ports.note(socket));
        assert_eq!(ports.held.len(), PORTS_MAX);
        assert!(!ports.are_ours(V4, many[0].1) && ports.are_ours(V4, many[1].1));
    }
}
