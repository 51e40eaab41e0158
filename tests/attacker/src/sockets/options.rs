//! Families, options and requests.

use super::{AF_INET, STREAM};
use crate::raw::{call, close, say, socket, try_call};

pub(crate) fn families() {
    const FAMILIES: &[(&str, i32, i32, i32)] = &[
        ("raw-icmp", 2, 3, 1),
        ("raw-raw", 2, 3, 255),
        ("raw6", 10, 3, 58),
        ("ping", 2, 2, 1),
        ("ping6", 10, 2, 58),
        ("packet-raw", 17, 3, 0x0300),
        ("packet-dgram", 17, 2, 0x0300),
        ("packet-obsolete", 2, 10, 0x0300),
        ("netlink-route", 16, 3, 0),
        ("netlink-uevent", 16, 2, 15),
        ("netlink-diag", 16, 2, 4),
        ("netlink-audit", 16, 3, 9),
        ("vsock-stream", 40, 1, 0),
        ("vsock-dgram", 40, 2, 0),
        ("alg", 38, 5, 0),
        ("sctp", 2, 1, 132),
        ("sctp-seqpacket", 2, 5, 132),
        ("dccp", 2, 6, 33),
        ("udplite", 2, 2, 136),
        ("mptcp-dgram", 2, 2, 262),
        ("mptcp-seqpacket", 2, 5, 262),
        ("mptcp-raw", 2, 3, 262),
        ("mptcp-neighbour", 2, 1, 263),
        ("mptcp", 2, 1, 262),
        ("mptcp6", 10, 1, 262),
        ("smc", 43, 1, 0),
        ("smc-over-inet", 2, 1, 256),
        ("rds", 21, 5, 0),
        ("tipc", 30, 2, 0),
        ("bluetooth", 31, 3, 1),
        ("can", 29, 3, 1),
        ("x25", 9, 5, 0),
        ("key", 15, 3, 2),
        ("xdp", 44, 3, 0),
        ("qipcrtr", 42, 2, 0),
        ("kcm", 41, 2, 0),
        ("unix-dgram", 1, 2, 0),
        ("unix-raw", 1, 3, 0),
    ];
    for (name, domain, kind, protocol) in FAMILIES {
        let fd = socket(*domain, *kind, *protocol);
        say(name, fd);
        close(fd);
    }
    for (name, kind) in [("pair-dgram", 2), ("pair-raw", 3)] {
        let mut pair = [0_i32; 2];
        try_call(
            name,
            libc::SYS_socketpair,
            &[1, kind, 0, pair.as_mut_ptr().addr() as u64],
        );
    }
    // The kernel reads 32 bits of each; a filter that compared 64 would take these for something else.
    try_call("netlink-dirty", libc::SYS_socket, &[0xdead_0000_0010, 3, 0]);
    try_call(
        "raw-dirty",
        libc::SYS_socket,
        &[0xdead_0000_0002, 0xdead_0000_0003, 0xdead_0000_0001],
    );
    // What is made of them says the socket itself.
    for (name, protocol) in [("mptcp-clean", 262), ("mptcp-dirty", 0xdead_0000_0106)] {
        let fd = call(libc::SYS_socket, &[2, 1, protocol]);
        let (mut made, mut length) = (-1_i32, 4_u32);
        let (at, length_at) = ((&raw mut made).addr() as u64, (&raw mut length).addr() as u64);
        let (level, option) = (libc::SOL_SOCKET as u64, libc::SO_PROTOCOL as u64);
        call(libc::SYS_getsockopt, &[fd as u64, level, option, at, length_at]);
        say(name, made);
        close(fd as i32);
    }
    // Harmless neighbours, so that a refusal of everything is seen.
    for (name, domain, kind) in [("tcp", 2, 1), ("tcp6", 10, 1), ("udp", 2, 2), ("unix-stream", 1, 1)] {
        let fd = socket(domain, kind, 0);
        say(name, fd);
        close(fd);
    }
}

/// Options and requests of a socket that would change where it goes, or that tell of the host.
pub(crate) fn options() {
    const OPTIONS: &[(&str, i32, i32)] = &[
        ("SO_BINDTODEVICE", 1, 25),
        ("SO_BINDTOIFINDEX", 1, 62),
        ("SO_MARK", 1, 36),
        ("SO_DONTROUTE", 1, 5),
        ("SO_ATTACH_FILTER", 1, 26),
        ("SO_ATTACH_BPF", 1, 50),
        ("SO_ATTACH_REUSEPORT_CBPF", 1, 51),
        ("SO_SNDBUFFORCE", 1, 32),
        ("IP_OPTIONS", 0, 4),
        ("IP_HDRINCL", 0, 3),
        ("IP_TRANSPARENT", 0, 19),
        ("IP_FREEBIND", 0, 15),
        ("IP_UNICAST_IF", 0, 50),
        ("IP_MULTICAST_IF", 0, 32),
        ("IP_ADD_MEMBERSHIP", 0, 35),
        ("IP_ADD_SOURCE_MEMBERSHIP", 0, 39),
        ("MCAST_JOIN_GROUP", 0, 42),
        ("IPT_SO_SET_REPLACE", 0, 64),
        ("TCP_FASTOPEN", 6, 23),
        ("TCP_FASTOPEN_CONNECT", 6, 30),
        ("TCP_REPAIR", 6, 19),
        ("TCP_ULP", 6, 31),
        ("TCP_MD5SIG", 6, 14),
        ("IPV6_RTHDR", 41, 57),
        ("IPV6_HOPOPTS", 41, 54),
        ("IPV6_PKTINFO", 41, 50),
        ("IPV6_NEXTHOP", 41, 9),
        ("IPV6_ADDRFORM", 41, 1),
        ("IPV6_JOIN_GROUP", 41, 20),
        ("IPV6_TRANSPARENT", 41, 75),
        ("IPV6_FREEBIND", 41, 78),
        ("UDP_ENCAP", 17, 100),
        ("unknown-level", 275, 1),
    ];
    let one = 1_i32;
    for (kind, domain) in [("tcp", AF_INET), ("tcp6", libc::AF_INET6)] {
        let fd = socket(domain, STREAM, 0);
        for (name, level, option) in OPTIONS {
            let pointer = (&raw const one).addr() as u64;
            try_call(
                &format!("{kind}-{name}"),
                libc::SYS_setsockopt,
                &[fd as u64, *level as u64, *option as u64, pointer, 4],
            );
        }
        try_call(
            &format!("{kind}-TCP_NODELAY"),
            libc::SYS_setsockopt,
            &[fd as u64, 6, 1, (&raw const one).addr() as u64, 4],
        );
        let mut request = [0_u8; 64];
        request[..3].copy_from_slice(b"lo\0");
        for (name, command) in [
            ("SIOCSIFFLAGS", 0x8914_u64),
            ("SIOCSIFADDR", 0x8916),
            ("SIOCSIFNAME", 0x8923),
            ("SIOCGIFENCAP", 0x8925),
            ("SIOCGIFSLAVE", 0x8929),
            ("SIOCGIFPFLAGS", 0x8935),
            ("SIOCGIFMAP", 0x8970),
            ("SIOCETHTOOL", 0x8946),
            ("SIOCGSKNS", 0x894c),
            ("SIOCADDRT", 0x890b),
            ("SIOCGARP", 0x8954),
            ("SIOCBRADDBR", 0x89a0),
            ("SIOCDEVPRIVATE", 0x89f0),
            ("SIOCGSKNS-dirty", 0xffff_ffff_0000_894c),
            ("FIOSETOWN", 0x8901),
            ("SIOCSPGRP", 0x8902),
        ] {
            try_call(
                &format!("{kind}-{name}"),
                libc::SYS_ioctl,
                &[fd as u64, command, request.as_mut_ptr().addr() as u64],
            );
        }
        close(fd);
    }
}
