//! Between look and act: a second thread changes what the first one's call is about.

use crate::raw::{call, close, socket};
use crate::sockets::{greet, loopback};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// The port in the address goes back and forth while the address is being judged.
pub(crate) fn address(open: u16, forbidden: u16, rounds: u32) {
    let mut bytes = loopback(open);
    let done = AtomicBool::new(false);
    // SAFETY: the port's two bytes of `bytes`, aligned because a Vec's memory is; only atomics touch them from here on.
    let port = unsafe { &*bytes.as_mut_ptr().add(2).cast::<AtomicU16>() };
    let at = bytes.as_ptr().addr() as u64;
    let (mut connected, mut refused) = (0_u32, 0_u32);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    port.store(forbidden.to_be(), Ordering::Relaxed);
                    port.store(open.to_be(), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..rounds {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            if call(libc::SYS_connect, &[fd as u64, at, 16]) == 0 {
                connected += 1;
                greet(fd, "raced");
            } else {
                refused += 1;
            }
            close(fd);
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("connected ok {connected}");
    println!("refused ok {refused}");
}

/// The descriptor means another socket every few nanoseconds: one for the outside, one of the session's own (UDP), a Unix
/// socket.
pub(crate) fn descriptor(open: u16, forbidden: u16, path: &str, rounds: u32) {
    let allowed = loopback(open);
    let denied = loopback(forbidden);
    let mut unix = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    unix.extend(path.as_bytes());
    unix.push(0);
    let done = AtomicBool::new(false);
    let sources = [
        socket(libc::AF_INET, libc::SOCK_STREAM, 0),
        socket(libc::AF_INET, libc::SOCK_DGRAM, 0),
        socket(libc::AF_UNIX, libc::SOCK_STREAM, 0),
        socket(libc::AF_INET6, libc::SOCK_STREAM, 0),
    ];
    // SAFETY: no memory is involved.
    let target = unsafe { libc::dup(sources[0]) };
    let (mut connected, mut refused) = (0_u32, 0_u32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0_usize;
            while !done.load(Ordering::Relaxed) {
                turn = (turn + 1) % sources.len();
                call(libc::SYS_dup2, &[sources[turn] as u64, target as u64]);
                if turn == 0 {
                    // Fresh ones now and then: a connected socket answers EISCONN and races no more.
                    for (fd, (domain, kind)) in sources.iter().zip([(2, 1), (2, 2), (1, 1), (10, 1)]) {
                        let new = socket(domain, kind, 0);
                        call(libc::SYS_dup2, &[new as u64, *fd as u64]);
                        close(new);
                    }
                }
            }
        });
        for round in 0..rounds {
            let address = match round % 3 {
                0 => &allowed,
                1 => &denied,
                _ => &unix,
            };
            let result = call(
                libc::SYS_connect,
                &[target as u64, address.as_ptr().addr() as u64, address.len() as u64],
            );
            if result == 0 {
                connected += 1;
                if round % 3 != 0 {
                    greet(target, "raced");
                }
            } else {
                refused += 1;
            }
            if round % 16 == 0 {
                call(libc::SYS_listen, &[target as u64, 4]);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("connected ok {connected}");
    println!("refused ok {refused}");
}
