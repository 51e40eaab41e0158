//! Datagrams out of a session that may send some: each to a place that no rule opens, by another way.

use crate::raw::{call, close, say, socket, try_call};
use crate::sockets::{bytes_of, connect_raw, greet, loopback, message};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DGRAM: i32 = libc::SOCK_DGRAM;

fn at(bytes: &[u8]) -> u64 {
    bytes.as_ptr().addr() as u64
}

fn send_to(name: &str, fd: i32, flags: u64, address: &[u8], length: u64) {
    let data = format!("{name}\n");
    try_call(
        name,
        libc::SYS_sendto,
        &[
            fd as u64,
            at(data.as_bytes()),
            data.len() as u64,
            flags,
            at(address),
            length,
        ],
    );
}

/// A control message with its header.
fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

pub(crate) fn run(open: u16, forbidden: u16) {
    let (good, bad) = (loopback(open), loopback(forbidden));
    let fresh = || socket(libc::AF_INET, DGRAM, 0);
    let fresh6 = || socket(libc::AF_INET6, DGRAM, 0);
    let mut unspecified = bad.clone();
    unspecified[..2].copy_from_slice(&[0, 0]);
    let with = |ip: IpAddr| bytes_of(SocketAddr::new(ip, forbidden));
    let fd = fresh();
    send_to("sendto-open", fd, 0, &good, 16);
    send_to("sendto", fd, 0, &bad, 16);
    send_to("sendto-any", fd, 0, &with([0, 0, 0, 0].into()), 16);
    send_to("sendto-unspecified", fd, 0, &unspecified, 16);
    send_to("sendto-more", fd, libc::MSG_MORE as u64, &bad, 16);
    send_to("sendto-dirty-length", fd, 0, &bad, 0xdead_0000_0010);
    send_to("sendto-short", fd, 0, &bad, 8);
    send_to("sendto-empty", fd, 0, &bad, 0);
    send_to("sendto-metadata", fd, 0, &with([169, 254, 169, 254].into()), 16);
    send_to("sendto-broadcast", fd, 0, &with([255, 255, 255, 255].into()), 16);
    send_to("sendto-multicast", fd, 0, &with([224, 0, 0, 1].into()), 16);
    close(fd);
    let six = fresh6();
    let mapped = |ip: [u8; 4]| with(Ipv4Addr::from(ip).to_ipv6_mapped().into());
    send_to("sendto6-mapped", six, 0, &mapped([127, 0, 0, 1]), 28);
    send_to("sendto6-mapped-any", six, 0, &mapped([0, 0, 0, 0]), 28);
    send_to("sendto6-four", six, 0, &bad, 16);
    for (name, text) in [
        ("sendto6-nat64", "64:ff9b::127.0.0.1"),
        ("sendto6-compatible", "::127.0.0.1"),
        ("sendto6-link-local", "fe80::1"),
    ] {
        if let Ok(ip) = text.parse::<IpAddr>() {
            send_to(name, six, 0, &with(ip), 28);
        }
    }
    close(six);

    // One bad of many: those before it may go, it and what follows may not.
    let fd = fresh();
    let texts = ["mmsg-good\n", "mmsg-bad\n", "mmsg-late\n"];
    let many: Vec<_> = [(&good, texts[0]), (&bad, texts[1]), (&good, texts[2])]
        .into_iter()
        .map(|(to, text)| message(to, text.as_bytes()))
        .collect();
    let headers: Vec<libc::mmsghdr> = many.iter().map(|one| one.header).collect();
    try_call(
        "sendmmsg",
        libc::SYS_sendmmsg,
        &[fd as u64, headers.as_ptr().addr() as u64, 3, 0],
    );
    println!("sendmmsg-first ok {}", headers[0].msg_len);
    try_call(
        "sendmmsg-again",
        libc::SYS_sendmmsg,
        &[fd as u64, (&raw const headers[1]).addr() as u64, 2, 0],
    );
    close(fd);

    // Control messages, to the open port: what they would change is the way.
    let fd = fresh();
    let route = [7_u8, 3, 4, 127, 0, 0, 1, 0];
    let packet_info = [[0_u8; 4], [127, 0, 0, 9], [0; 4]].concat();
    for (name, level, kind, data) in [
        ("control-tos", 0, 1, &[4_u8, 0, 0, 0][..]),
        ("control-pktinfo", 0, 8, &packet_info),
        ("control-retopts", 0, 7, &route),
        ("control-mark", 1, 36, &[1, 0, 0, 0]),
        ("control-txtime", 1, 61, &[0; 8]),
        ("control-rights", 1, 1, &[0; 4]),
        ("control6-rthdr", 41, 57, &[0; 24]),
        ("control6-pktinfo", 41, 50, &[0; 20]),
        ("control6-hopopts", 41, 54, &[0; 8]),
    ] {
        let text = format!("{name}\n");
        let mut one = message(&good, text.as_bytes());
        let bytes = control(level, kind, data);
        one.header.msg_hdr.msg_control = bytes.as_ptr().cast_mut().cast();
        one.header.msg_hdr.msg_controllen = bytes.len() as _;
        try_call(
            name,
            libc::SYS_sendmsg,
            &[fd as u64, (&raw const one.header.msg_hdr).addr() as u64, 0],
        );
    }
    close(fd);

    // A connected socket is no ticket.
    let fd = fresh();
    say("connect", connect_raw(fd, &good));
    greet(fd, "connected");
    send_to("connected-sendto", fd, 0, &bad, 16);
    say("reconnect-any", connect_raw(fd, &with([0, 0, 0, 0].into())));
    greet(fd, "reconnect-any");
    say("dissolve", connect_raw(fd, &[0; 16]));
    greet(fd, "dissolved");
    say(
        "reconnect-metadata",
        connect_raw(fd, &with([169, 254, 169, 254].into())),
    );
    close(fd);

    // A copy made before, and one in a child.
    let fd = fresh();
    // SAFETY: no memory is involved.
    let copy = unsafe { libc::dup(fd) };
    send_to("copy-first", fd, 0, &good, 16);
    send_to("copy", copy, 0, &bad, 16);
    close(copy);
    close(fd);
    let fd = fresh();
    send_to("before-listen", fd, 0, &good, 16);
    // SAFETY: no memory is involved.
    say("listen", i64::from(unsafe { libc::listen(fd, 1) }));
    close(fd);
}

/// Address and data change under the call; `sendmsg`'s header as well.
pub(crate) fn race(open: u16, forbidden: u16, rounds: usize) {
    use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
    let address: Vec<AtomicU16> = loopback(open)
        .chunks_exact(2)
        .map(|two| AtomicU16::new(u16::from_ne_bytes([two[0], two[1]])))
        .collect();
    let done = AtomicBool::new(false);
    let (mut sent, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                address[1].store(forbidden.to_be(), Ordering::Relaxed);
                // Away from the own loopback, so that a refusal is seen.
                address[2].store(u16::from_ne_bytes([203, 0]), Ordering::Relaxed);
                std::hint::spin_loop();
                address[2].store(u16::from_ne_bytes([127, 0]), Ordering::Relaxed);
                std::hint::spin_loop();
                address[1].store(open.to_be(), Ordering::Relaxed);
            }
        });
        let fd = socket(libc::AF_INET, DGRAM, 0);
        let data = b"race\n";
        let pointer = address.as_ptr().addr() as u64;
        // SAFETY: all zeroes is a valid header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut vector = libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = 16;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        for round in 0..rounds {
            let result = if round % 2 == 0 {
                call(libc::SYS_sendto, &[fd as u64, at(data), 5, 0, pointer, 16])
            } else {
                call(libc::SYS_sendmsg, &[fd as u64, (&raw const header).addr() as u64, 0])
            };
            if result < 0 { refused += 1 } else { sent += 1 }
        }
        done.store(true, Ordering::Relaxed);
        close(fd);
    });
    println!("sent ok {sent}");
    println!("refused ok {refused}");
}
