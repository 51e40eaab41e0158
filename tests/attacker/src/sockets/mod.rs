//! Ways to a place that no rule opens: what they share, and connects that are only connects.

mod addresses;
mod datagrams;
mod fast_open;
mod listen;
mod options;

pub(crate) use addresses::{forms, lengths};
pub(crate) use datagrams::udp;
pub(crate) use fast_open::fast_open;
pub(crate) use listen::{bind_taken, listen, listen_connected};
pub(crate) use options::{families, options};

use crate::raw::{call, close, say, socket};
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

/// How a connect that was begun without waiting ended, 0 or an errno, if it does within so many milliseconds.
pub(crate) fn connected_within(fd: i32, milliseconds: i32) -> Option<i32> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one live entry.
    if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } != 1 {
        return None;
    }
    let (mut error, mut length) = (0_i32, 4_u32);
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
    Some(error)
}

/// Leaves a name at whoever was reached, so that the test knows which attack came through.
pub(crate) fn greet(fd: i32, name: &str) {
    let line = format!("{name}\n");
    // SAFETY: the buffer is live for the length told.
    unsafe { libc::send(fd, line.as_ptr().cast(), line.len(), libc::MSG_NOSIGNAL) };
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
