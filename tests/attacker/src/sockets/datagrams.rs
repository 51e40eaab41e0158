//! Datagrams where no rule opens any.

use super::{AF_INET, Message, bytes_of, connect_raw, greet, loopback, message};
use crate::raw::{close, say, socket, try_call};
use std::net::SocketAddr;

/// Datagrams to a port on the host's loopback, every way there is.
pub(crate) fn udp(port: u16) {
    let address = loopback(port);
    let data = b"datagram\n";
    let fd = socket(AF_INET, libc::SOCK_DGRAM, 0);
    let at = |bytes: &[u8]| bytes.as_ptr().addr() as u64;
    let length = data.len() as u64;
    try_call(
        "sendto",
        libc::SYS_sendto,
        &[fd as u64, at(data), length, 0, at(&address), 16],
    );
    let mut unspecified = address.clone();
    unspecified[..2].copy_from_slice(&[0, 0]);
    try_call(
        "sendto-unspecified-family",
        libc::SYS_sendto,
        &[fd as u64, at(data), length, 0, at(&unspecified), 16],
    );
    let one = message(&address, data);
    try_call(
        "sendmsg",
        libc::SYS_sendmsg,
        &[fd as u64, (&raw const one.header.msg_hdr).addr() as u64, 0],
    );
    let own = loopback(1);
    let many: Vec<Message> = [&own, &own, &address, &own]
        .into_iter()
        .map(|to| message(to, data))
        .collect();
    let headers: Vec<libc::mmsghdr> = many.iter().map(|one| one.header).collect();
    try_call(
        "sendmmsg",
        libc::SYS_sendmmsg,
        &[fd as u64, headers.as_ptr().addr() as u64, 4, 0],
    );
    say("connect", connect_raw(fd, &address));
    greet(fd, "connected");
    close(fd);
    let fd = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
    let mapped = bytes_of(SocketAddr::new(
        std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        port,
    ));
    try_call(
        "sendto-mapped",
        libc::SYS_sendto,
        &[fd as u64, at(data), length, 0, at(&mapped), 28],
    );
    close(fd);
}
