//! Who judges closes last: what it holds of a stuck connection that lingers for an hour, it would hold for as long.

use crate::raw::{call, close, socket};
use crate::sockets::{connect_raw, greet, loopback};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

const STREAM: i32 = libc::SOCK_STREAM;

/// The first of the numbers that are closed; there is room for some hundreds below a thousand.
const FIRST: i32 = 200;

/// A connection to somebody who takes nothing and has been sent all that fits.
fn filled(stuck: u16) -> i32 {
    let fd = socket(libc::AF_INET, STREAM, 0);
    // Little fits: a hundred of them would otherwise take the machine's memory for TCP, and everybody would wait.
    let (level, name, little) = (libc::SOL_SOCKET as u64, libc::SO_SNDBUF as u64, 4096_i32);
    call(
        libc::SYS_setsockopt,
        &[fd as u64, level, name, (&raw const little).addr() as u64, 4],
    );
    connect_raw(fd, &loopback(stuck));
    let data = [0_u8; 1 << 16];
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
    let at = data.as_ptr().addr() as u64;
    while call(libc::SYS_sendto, &[fd as u64, at, 1 << 16, flags, 0, 0]) > 0 {}
    fd
}

fn linger(fd: i32) {
    let an_hour = libc::linger {
        l_onoff: 1,
        l_linger: 3600,
    };
    let (level, name) = (libc::SOL_SOCKET as u64, libc::SO_LINGER as u64);
    call(
        libc::SYS_setsockopt,
        &[fd as u64, level, name, (&raw const an_hour).addr() as u64, 8],
    );
}

/// Sends it away over a socket pair, closes it, and returns the end that holds it now.
fn send_away(fd: i32) -> Option<i32> {
    let (one, other) = UnixStream::pair().ok()?;
    let byte = [0_u8; 1];
    let mut vector = libc::iovec {
        iov_base: byte.as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    // A `cmsghdr` of one descriptor: its length, then level and type, then the number.
    let kind = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
    let mut control = [20, kind, u64::from(fd as u32)];
    // SAFETY: all zeroes is a valid header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header and all that it names are live.
    let sent = unsafe { libc::sendmsg(one.as_raw_fd(), &raw const header, 0) };
    close(fd);
    (sent == 1).then(|| other.into_raw_fd())
}

/// Closes lingering connections in the middle of calls on them that are judged and refused: as they are, with the option set in the
/// same moment, and inside of another socket. Each round somebody goes on beside it.
pub(crate) fn run(stuck: u16, open: u16, forbidden: u16, rounds: usize) {
    let (mut beside, mut away) = (0, 0);
    for round in 0..rounds {
        let mut fd = filled(stuck);
        let late = round % 3 == 1;
        if !late {
            linger(fd);
        }
        if round % 3 == 2 {
            let Some(other) = send_away(fd) else { continue };
            (fd, away) = (other, away + 1);
        }
        // A number that nobody gets after it.
        let number = FIRST + round as i32;
        call(libc::SYS_dup2, &[fd as u64, number as u64]);
        close(std::mem::replace(&mut fd, number));
        let begin = Arc::new(Barrier::new(2));
        let asked = Arc::new(AtomicI32::new(0));
        {
            let (begin, asked) = (Arc::clone(&begin), Arc::clone(&asked));
            thread::spawn(move || {
                begin.wait();
                let (to, length) = (loopback(forbidden), 16);
                let ask = || call(libc::SYS_connect, &[fd as u64, to.as_ptr().addr() as u64, length]);
                // A Unix socket takes no such address: it is asked about all the same.
                while ask() == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EBADF) {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        begin.wait();
        while asked.load(Ordering::Relaxed) < 1 + (round % 4) as i32 {
            std::hint::spin_loop();
        }
        for _ in 0..round % 7 * 50 {
            std::hint::spin_loop();
        }
        thread::spawn(move || {
            if late {
                linger(fd);
            }
            // It may wait, as it should.
            close(fd);
        });
        // Judged after it.
        let other = socket(libc::AF_INET, STREAM, 0);
        if connect_raw(other, &loopback(open)) == 0 {
            greet(other, "beside");
            beside += 1;
        }
        close(other);
    }
    println!("beside ok {beside}");
    println!("away ok {away}");
    std::process::exit(0);
}
