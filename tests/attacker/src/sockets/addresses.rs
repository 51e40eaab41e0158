//! Addresses in every form and of every length.

use super::{AF_INET, STREAM, bytes_of, connect_raw, connected_within, greet, loopback};
use crate::raw::{close, say, socket, try_call};
use std::net::{IpAddr, SocketAddr};

/// Every way to write an address of this machine; `near` only those that lead nowhere else where nobody judges them.
pub(crate) fn forms(port: u16, near: bool) {
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().ok();
    let mut list: Vec<(String, Vec<u8>)> = Vec::new();
    for ip in [
        "127.0.0.1",
        "127.0.0.2",
        "127.255.255.254",
        "0.0.0.0",
        "169.254.169.254",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
    ] {
        if let Ok(ip) = ip.parse::<IpAddr>() {
            list.push((ip.to_string(), bytes_of(SocketAddr::new(ip, port))));
        }
    }
    for ip in [
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:127.0.0.9",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::7f00:2",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "fe80::1",
        "ff02::1",
        "fec0::1",
    ] {
        if let Some(ip) = v6(ip) {
            list.push((ip.to_string(), bytes_of(SocketAddr::new(ip.into(), port))));
        }
    }
    let mut scoped = bytes_of(SocketAddr::new(
        IpAddr::V6(v6("fe80::1").unwrap_or(std::net::Ipv6Addr::LOCALHOST)),
        port,
    ));
    scoped[24] = 1;
    list.push(("fe80::1%1".into(), scoped));
    if near {
        let stay = ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"];
        list.retain(|(name, _)| stay.contains(&name.as_str()));
    }
    for (name, bytes) in list {
        let domain = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let fd = socket(domain, STREAM | libc::SOCK_NONBLOCK, 0);
        let result = settle(fd, connect_raw(fd, &bytes));
        say(&name, result);
        greet(fd, &name);
        close(fd);
    }
}

/// Waits for a connect that did not block, as far as one that leads nowhere allows.
fn settle(fd: i32, result: i64) -> i64 {
    if result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINPROGRESS) {
        return result;
    }
    let error = connected_within(fd, 20_000).unwrap_or(libc::ETIMEDOUT);
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = error };
    if error == 0 { 0 } else { -1 }
}

/// Addresses that are too short, too long, of no family, or of a negative length.
pub(crate) fn lengths(port: u16) {
    let good = loopback(port);
    let mut unspecified = good.clone();
    unspecified[..2].copy_from_slice(&0_u16.to_ne_bytes());
    let mut unix = good.clone();
    unix[..2].copy_from_slice(&1_u16.to_ne_bytes());
    let mut long = good.clone();
    long.resize(200, 0);
    let tries: &[(&str, &[u8], u64)] = &[
        ("empty", &good, 0),
        ("one-byte", &good, 1),
        ("family-only", &good, 2),
        ("short-15", &good, 15),
        ("exact-16", &good, 16),
        ("long-128", &long, 128),
        ("over-129", &long, 129),
        ("negative", &good, u64::from(u32::MAX)),
        ("negative-64", &good, u64::MAX),
        ("huge", &good, 1 << 30),
        ("dirty-16", &good, 0xdead_0000_0010),
        ("unspecified-16", &unspecified, 16),
        ("unspecified-2", &unspecified, 2),
        ("unix-on-inet", &unix, 16),
        ("inet-on-inet6", &good, 16),
    ];
    for (name, bytes, length) in tries {
        let domain = if *name == "inet-on-inet6" {
            libc::AF_INET6
        } else {
            AF_INET
        };
        let fd = socket(domain, STREAM, 0);
        let pointer = bytes.as_ptr().addr() as u64;
        try_call(name, libc::SYS_connect, &[fd as u64, pointer, *length]);
        greet(fd, name);
        close(fd);
        let fd = socket(domain, libc::SOCK_DGRAM, 0);
        try_call(
            &format!("udp-{name}"),
            libc::SYS_connect,
            &[fd as u64, pointer, *length],
        );
        greet(fd, name);
        close(fd);
    }
}
