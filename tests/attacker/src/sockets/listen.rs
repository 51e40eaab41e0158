//! Being reached: queues and names on the host's side.

use super::{AF_INET, STREAM, bytes_of, connect_raw, greet, loopback};
use crate::raw::{call, close, say, socket};
use std::net::SocketAddr;

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

/// A queue or a name on the host's side. `closed` is an allowed port at which nobody listens. Waits for the end of its
/// stdin, so that somebody can look around outside.
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

/// A socket that has a peer on the host takes no others, and keeps the one that it has.
pub(crate) fn listen_connected(open: u16) {
    let fd = socket(AF_INET, STREAM, 0);
    say("connect", connect_raw(fd, &loopback(open)));
    // SAFETY: no memory is involved.
    say("listen", unsafe { libc::listen(fd, 8) });
    greet(fd, "after-listen");
    close(fd);
}
