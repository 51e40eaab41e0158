//! Socket calls on addresses that are only bytes, and the few that rustix lacks.

use crate::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The longest socket address the kernel takes (`sizeof(struct sockaddr_storage)`).
pub const ADDRESS_BYTES_MAX: usize = 128;

/// Who the other end of a Unix socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process that connected, or for one that connects, that listened; 0 if it cannot be seen from here.
    pub pid: i32,
    /// Its effective user, as of then.
    pub uid: u32,
}

/// `getsockopt(fd, SOL_SOCKET, SO_PEERCRED)` unix(7). The number of a process in another pid namespace is 0 here, which
/// rustix's type cannot hold.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`.
pub fn peer(fd: impl AsFd) -> io::Result<Peer> {
    let none = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let found = option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, none)?;
    Ok(Peer {
        pid: found.pid,
        uid: found.uid,
    })
}

/// `connect(fd, address, length)` connect(2), with the bytes that were judged.
///
/// # Errors
/// As connect(2).
pub fn connect(fd: impl AsFd, address: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `address` is valid for `length` bytes; the kernel copies it and checks family and length itself.
    check(unsafe { libc::connect(fd.as_fd().as_raw_fd(), address.as_ptr().cast(), length) }.into()).map(drop)
}

/// `bind(fd, address, length)` bind(2), with the bytes that were judged.
///
/// # Errors
/// As bind(2).
pub fn bind(fd: impl AsFd, address: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `address` is valid for `length` bytes; the kernel copies it and checks family and length itself.
    check(unsafe { libc::bind(fd.as_fd().as_raw_fd(), address.as_ptr().cast(), length) }.into()).map(drop)
}

/// `listen(fd, backlog)` listen(2), with a backlog as the program gave it.
///
/// # Errors
/// As listen(2).
pub fn listen(fd: impl AsFd, backlog: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(fd.as_fd().as_raw_fd(), backlog) }.into()).map(drop)
}

/// `socket(domain, type, protocol)` socket(2), with the numbers that the program gave.
///
/// # Errors
/// As socket(2).
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd.into())?;
    // SAFETY: `fd` was just made by the call above and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// `T` is an integer, an array of bytes or a struct of integers.
fn option<T: Copy>(fd: impl AsFd, level: i32, name: i32, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a live `T` (only integers, bytes and structs of integers here) of `length` bytes, exclusively borrowed.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    check(result.into())?;
    Ok(value)
}

/// Which network namespace a socket lives in: `getsockopt(SO_NETNS_COOKIE)` socket(7), Linux 5.14.
///
/// # Errors
/// `ENOTSOCK`; `ENOPROTOOPT` before Linux 5.14.
pub fn netns_cookie(fd: impl AsFd) -> io::Result<u64> {
    option(fd, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, 0_u64)
}

/// A socket's family: `getsockopt(SO_DOMAIN)` socket(7).
///
/// # Errors
/// `ENOTSOCK`.
pub fn domain(fd: impl AsFd) -> io::Result<i32> {
    option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, 0_i32)
}

/// A socket's type without flags: `getsockopt(SO_TYPE)` socket(7).
///
/// # Errors
/// `ENOTSOCK`.
pub fn kind(fd: impl AsFd) -> io::Result<i32> {
    option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 0_i32)
}

/// A socket's protocol: `getsockopt(SO_PROTOCOL)` socket(7).
///
/// # Errors
/// `ENOTSOCK`.
pub fn protocol(fd: impl AsFd) -> io::Result<i32> {
    option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0_i32)
}

/// Whether a TCP socket has not begun to connect, or is done with it: `getsockopt(TCP_INFO)` tcp(7), state `TCP_CLOSE`.
///
/// # Errors
/// `ENOTSOCK`, `EOPNOTSUPP` for another protocol.
pub fn is_tcp_closed(fd: impl AsFd) -> io::Result<bool> {
    // The kernel cuts `struct tcp_info` to the length asked for; its first byte is the state (include/net/tcp_states.h).
    const TCP_CLOSE: u8 = 7;
    let [state, ..] = option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, [0_u8; 4])?;
    Ok(state == TCP_CLOSE)
}

/// `fcntl(fd, F_SETOWN, getpid())` and `O_ASYNC` fcntl(2): `SIGIO` comes to this process whenever something arrives at the
/// socket, or it hangs up.
///
/// # Errors
/// `EBADF`.
pub fn signal_on_input(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is involved.
    let pid = unsafe { libc::getpid() };
    // SAFETY: the request takes its argument by value.
    check(unsafe { libc::fcntl(fd, libc::F_SETOWN, pid) }.into())?;
    // SAFETY: the request takes no argument.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) }.into())?;
    let flags = libc::c_int::try_from(flags).unwrap_or(0) | libc::O_ASYNC;
    // SAFETY: the request takes its argument by value.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }.into()).map(drop)
}

/// Copies an option of at most 32 bytes from one socket to another, where the two differ; one that either does not have is
/// left alone. getsockopt(2), setsockopt(2).
pub fn copy_option(from: impl AsFd, to: impl AsFd, level: i32, name: i32) {
    let (Ok(wanted), Ok(has)) = (option_bytes(from, level, name), option_bytes(&to, level, name)) else {
        return;
    };
    if wanted != has {
        let length = libc::socklen_t::try_from(wanted.len()).unwrap_or(0);
        // SAFETY: `wanted` lives over the call and has the length passed.
        unsafe { libc::setsockopt(to.as_fd().as_raw_fd(), level, name, wanted.as_ptr().cast(), length) };
    }
}

fn option_bytes(fd: impl AsFd, level: i32, name: i32) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; 32];
    let mut length: libc::socklen_t = 32;
    // SAFETY: `value` has the length told and is exclusively borrowed; the kernel says how much it wrote.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(result.into())?;
    value.truncate(length as usize);
    Ok(value)
}

/// An option that is an integer. getsockopt(2).
///
/// # Errors
/// `ENOTSOCK`, `ENOPROTOOPT`.
pub fn int_option(fd: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    option(fd, level, name, 0_i32)
}

/// Sets an option that is an integer. setsockopt(2).
///
/// # Errors
/// `ENOTSOCK`, `ENOPROTOOPT`, `EINVAL`.
pub fn set_int_option(fd: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` is a live integer of the length passed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    check(result.into()).map(drop)
}

/// The number by which the kernel knows a socket, unique until the next boot: `getsockopt(SO_COOKIE)` socket(7), Linux 4.12.
///
/// # Errors
/// `ENOTSOCK`.
pub fn cookie(fd: impl AsFd) -> io::Result<u64> {
    option(fd, libc::SOL_SOCKET, libc::SO_COOKIE, 0_u64)
}

/// Brings the loopback interface of the caller's network namespace up: `ioctl(SIOCSIFFLAGS)` netdevice(7).
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all zeroes is a valid `ifreq` (integers and arrays of them).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which `request` is; it lives over the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}
