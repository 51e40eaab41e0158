//! Ports at which nobody is.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, socket_with};

/// A TCP port of this machine's loopback at which nobody listens, and nobody will: it is taken until this process ends.
///
/// # Panics
/// Without a loopback interface.
#[must_use]
pub fn closed_port() -> u16 {
    held(SocketType::STREAM)
}

/// A UDP port of this machine's loopback that takes nothing from anybody, until this process ends.
///
/// # Panics
/// Without a loopback interface.
#[must_use]
pub fn closed_datagram_port() -> u16 {
    held(SocketType::DGRAM)
}

fn held(kind: SocketType) -> u16 {
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = SocketAddr::try_from(getsockname(&socket).expect("its address")).expect("an internet address");
    if kind == SocketType::DGRAM {
        // One that has a peer takes from nobody else; this one's peer is itself.
        connect(&socket, &address).expect("its own address");
    }
    std::mem::forget(socket);
    address.port()
}
