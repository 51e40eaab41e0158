//! Ways to a place that no rule opens.

use crate::raw::{call, close, say, socket, try_call};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

const AF_INET: i32 = libc::AF_INET;
const STREAM: i32 = libc::SOCK_STREAM;

/// A `sockaddr_in` or `sockaddr_in6` as bytes.
pub(crate) fn bytes_of(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(ip) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

pub(crate) fn loopback(port: u16) -> Vec<u8> {
    bytes_of(SocketAddr::from(([127, 0, 0, 1], port)))
}

pub(crate) fn connect_raw(fd: i32, bytes: &[u8]) -> i64 {
    call(
        libc::SYS_connect,
        &[fd as u64, bytes.as_ptr().addr() as u64, bytes.len() as u64],
    )
}

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

/// Every way to write an address of this machine; `*-own` are those that lead to the session's own loopback.
pub(crate) fn forms(port: u16) {
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
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one live entry.
    if unsafe { libc::poll(&raw mut poll, 1, 2000) } != 1 {
        // SAFETY: errno is this thread's own.
        unsafe { *libc::__errno_location() = libc::ETIMEDOUT };
        return -1;
    }
    let mut error = 0_i32;
    let mut length = 4_u32;
    // SAFETY: `error` and `length` are live and of the sizes told.
    unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut length,
        )
    };
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = error };
    if error == 0 { 0 } else { -1 }
}

/// Leaves a name at whoever was reached, so that the test knows which attack came through.
pub(crate) fn greet(fd: i32, name: &str) {
    let line = format!("{name}\n");
    // SAFETY: the buffer is live for the length told.
    unsafe { libc::send(fd, line.as_ptr().cast(), line.len(), libc::MSG_NOSIGNAL) };
}

/// Plain connects.
pub(crate) fn connect(addresses: &[&str]) {
    for text in addresses {
        let Ok(address) = text.parse::<SocketAddr>() else {
            println!("{text} EINVAL");
            continue;
        };
        let bytes = bytes_of(address);
        let domain = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let fd = socket(domain, STREAM, 0);
        say(text, connect_raw(fd, &bytes));
        greet(fd, text);
        close(fd);
    }
}

pub(crate) struct Message {
    pub(crate) header: libc::mmsghdr,
    _vector: Box<libc::iovec>,
}

pub(crate) fn message(address: &[u8], data: &[u8]) -> Message {
    let mut vector = Box::new(libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    });
    // SAFETY: all zeroes is a valid header.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_namelen = address.len() as u32;
    header.msg_hdr.msg_iov = &raw mut *vector;
    header.msg_hdr.msg_iovlen = 1;
    Message {
        header,
        _vector: vector,
    }
}

/// Connecting without a connect.
pub(crate) fn fast_open(port: u16) {
    const FLAG: u64 = libc::MSG_FASTOPEN as u64;
    let address = loopback(port);
    let data = b"fast-open\n";
    let fresh = || socket(AF_INET, STREAM, 0);
    let fd = fresh();
    let at = |bytes: &[u8]| bytes.as_ptr().addr() as u64;
    let length = data.len() as u64;
    try_call(
        "sendto",
        libc::SYS_sendto,
        &[fd as u64, at(data), length, FLAG, at(&address), address.len() as u64],
    );
    close(fd);
    let fd = fresh();
    try_call(
        "sendto-dirty",
        libc::SYS_sendto,
        &[
            fd as u64,
            at(data),
            length,
            0xffff_ffff_0000_0000 | FLAG,
            at(&address),
            address.len() as u64,
        ],
    );
    close(fd);
    let fd = fresh();
    let one = message(&address, data);
    try_call(
        "sendmsg",
        libc::SYS_sendmsg,
        &[fd as u64, (&raw const one.header.msg_hdr).addr() as u64, FLAG],
    );
    close(fd);
    let fd = fresh();
    let messages = [message(&address, data), message(&address, data)];
    let two = [messages[0].header, messages[1].header];
    try_call(
        "sendmmsg",
        libc::SYS_sendmmsg,
        &[fd as u64, two.as_ptr().addr() as u64, 2, FLAG],
    );
    close(fd);
    let fd = fresh();
    let on = 1_i32;
    try_call(
        "option",
        libc::SYS_setsockopt,
        &[fd as u64, 6, 30, (&raw const on).addr() as u64, 4],
    );
    say("option-connect", connect_raw(fd, &address));
    // SAFETY: the buffer is live for the length told.
    say(
        "option-write",
        unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) } as i64,
    );
    close(fd);
    // Without the flag: an address on a stream socket means nothing, and must not begin to.
    let fd = fresh();
    let flags = libc::MSG_NOSIGNAL as u64;
    try_call(
        "plain-sendto",
        libc::SYS_sendto,
        &[fd as u64, at(data), length, flags, at(&address), address.len() as u64],
    );
    close(fd);
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

/// A queue or a name on the host's side. `closed` is an allowed port at which nobody listens. Waits for the end of its
/// stdin, so that somebody can look around outside.
/// Binds a fresh socket to a port that somebody on the host listens at.
pub(crate) fn bind_taken(taken: u16) {
    let fd = socket(AF_INET, STREAM, 0);
    let address = loopback(taken);
    say(
        "bind-taken",
        call(
            libc::SYS_bind,
            &[fd as u64, address.as_ptr().addr() as u64, address.len() as u64],
        ),
    );
}

pub(crate) fn listen(closed: u16) {
    let port_of = |fd: i32| {
        // SAFETY: all zeroes is a valid address.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_in>() as u32;
        // SAFETY: address and length are live and fit together.
        unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut length) };
        u16::from_be(address.sin_port)
    };
    let wildcard = bytes_of(SocketAddr::from(([0, 0, 0, 0], 0)));
    let tell = |name: &str, fd: i32| println!("{name}-port ok {}", port_of(fd));
    let fresh = || socket(AF_INET, STREAM, 0);
    // SAFETY: no memory is involved.
    let listen = |fd: i32| i64::from(unsafe { libc::listen(fd, 8) });
    let bind = |fd: i32| call(libc::SYS_bind, &[fd as u64, wildcard.as_ptr().addr() as u64, 16]);

    let fd = fresh();
    say("unbound", listen(fd));
    tell("unbound", fd);
    let fd = fresh();
    say("bound-bind", bind(fd));
    say("bound", listen(fd));
    tell("bound", fd);
    let fd = fresh();
    say("refused-connect", connect_raw(fd, &loopback(closed)));
    say("refused", listen(fd));
    tell("refused", fd);
    let fd = fresh();
    say("refused-bind-connect", connect_raw(fd, &loopback(closed)));
    say("refused-bind-bind", bind(fd));
    say("refused-bind", listen(fd));
    tell("refused-bind", fd);
    let fd = socket(AF_INET, STREAM | libc::SOCK_NONBLOCK, 0);
    connect_raw(fd, &loopback(closed));
    say("pending", listen(fd));
    tell("pending", fd);
    let fd = fresh();
    connect_raw(fd, &loopback(closed));
    let unspecified = [0_u8; 16];
    say("dissolved-connect", connect_raw(fd, &unspecified));
    say("dissolved", listen(fd));
    tell("dissolved", fd);
    // A copy made before: the one is swapped, what of the other?
    let fd = fresh();
    // SAFETY: no memory is involved.
    let copy = unsafe { libc::dup(fd) };
    say("copied-first", listen(fd));
    say("copied", listen(copy));
    tell("copied", copy);
    // Many at once, from a second thread as well.
    let fd = fresh();
    let racer = std::thread::spawn(move || {
        for _ in 0..200 {
            connect_raw(fd, &loopback(closed));
        }
    });
    for _ in 0..200 {
        listen(fd);
    }
    let _ = racer.join();
    tell("raced", fd);
    println!("ready ok 0");
    use std::io::Read;
    let _ = std::io::stdin().read(&mut [0]);
}

/// An allowed connection is no ticket to another place.
pub(crate) fn reconnect(open: u16, forbidden: u16) {
    let fd = socket(AF_INET, STREAM, 0);
    say("first", connect_raw(fd, &loopback(open)));
    say("again", connect_raw(fd, &loopback(forbidden)));
    say("dissolve", connect_raw(fd, &[0; 16]));
    say("after-dissolve", connect_raw(fd, &loopback(forbidden)));
    greet(fd, "reconnect");
    // SAFETY: no memory is involved.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    say("after-shutdown", connect_raw(fd, &loopback(forbidden)));
    greet(fd, "reconnect");
    close(fd);
    let fd = socket(AF_INET, libc::SOCK_DGRAM, 0);
    say("udp", connect_raw(fd, &loopback(open)));
    greet(fd, "udp-open");
    say("udp-again", connect_raw(fd, &loopback(forbidden)));
    greet(fd, "udp-again");
    close(fd);
}

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

/// So many connects at once that whoever makes them runs out of something.
pub(crate) fn parallel(port: u16, count: usize) {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                let fd = socket(AF_INET, STREAM, 0);
                let result = connect_raw(fd, &loopback(port));
                let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
                greet(fd, "parallel");
                close(fd);
                if result == 0 { 0 } else { errno }
            })
        })
        .collect();
    let mut answers = std::collections::BTreeMap::<String, u32>::new();
    for thread in threads {
        let errno = match thread {
            Ok(thread) => thread.join().unwrap_or(-1),
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        let name = if errno == 0 {
            "connected".to_owned()
        } else {
            crate::raw::errno_name(errno)
        };
        *answers.entry(name).or_default() += 1;
    }
    for (name, count) in answers {
        println!("{name} ok {count}");
    }
    // Still alive and judged as before.
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    println!("after ok {}", listener.map_or(-1, |listener| listener.as_raw_fd()));
}
