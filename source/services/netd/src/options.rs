//! Socket options that go along when a socket moves.

use crate::Stop;
use nexus_sys::socket as sys;
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;

/// What a program may have set on a socket before it gave it an address, of what the built-in floor lets it set. Numbers:
/// socket(7), tcp(7), udp(7), ip(7), ipv6(7); asm-generic/socket.h, linux/in.h, in6.h.
const OPTIONS: &[(i32, &[i32])] = &[
    // SOL_SOCKET: REUSEADDR BROADCAST KEEPALIVE OOBINLINE PRIORITY LINGER REUSEPORT RCVLOWAT, RCVTIMEO SNDTIMEO, TIMESTAMP
    // TIMESTAMPNS TIMESTAMPING RXQ_OVFL, the timestamps' newer forms.
    (1, &[2, 6, 9, 10, 12, 13, 15, 18, 20, 21, 29, 35, 37, 40, 63, 64, 65]),
    // SOL_TCP: NODELAY CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT WINDOW_CLAMP QUICKACK CONGESTION,
    // USER_TIMEOUT NOTSENT_LOWAT INQ.
    (6, &[1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 18, 25, 36]),
    // SOL_UDP: CORK SEGMENT GRO.
    (17, &[1, 103, 104]),
    // SOL_IP: TOS TTL RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS MINTTL BIND_ADDRESS_NO_PORT,
    // RECVERR_RFC4884 MULTICAST_TTL MULTICAST_LOOP MULTICAST_ALL LOCAL_PORT_RANGE.
    (0, &[1, 2, 6, 7, 8, 10, 11, 12, 13, 21, 24, 26, 33, 34, 49, 51]),
    // SOL_IPV6: UNICAST_HOPS MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER RECVERR V6ONLY MULTICAST_ALL RECVPKTINFO,
    // RECVHOPLIMIT DONTFRAG RECVTCLASS TCLASS.
    (41, &[16, 18, 19, 23, 25, 26, 29, 49, 51, 62, 66, 67]),
];

const SOL_SOCKET: i32 = 1;
/// `SO_SNDBUF` and `SO_RCVBUF`, which read back twice what was set. socket(7).
const BUFFERS: [i32; 2] = [7, 8];

/// asm-generic/fcntl.h
const O_ASYNC: u32 = 0o20000;

pub(crate) fn copy_options(from: &OwnedFd, to: &OwnedFd) -> Result<(), Stop> {
    for (level, names) in OPTIONS {
        for name in *names {
            sys::copy_option(from, to, *level, *name);
        }
    }
    for name in BUFFERS {
        let read = |fd| sys::int_option(fd, SOL_SOCKET, name);
        if let (Ok(wanted), Ok(has)) = (read(from), read(to))
            && wanted != has
        {
            // One that the other side refuses stays as it is there.
            let _ = sys::set_int_option(to, SOL_SOCKET, name, wanted / 2);
        }
    }
    let flags = rustix::fs::fcntl_getfl(from)? & (OFlags::NONBLOCK | OFlags::from_bits_retain(O_ASYNC));
    rustix::fs::fcntl_setfl(to, flags)?;
    Ok(())
}
