//! Unix sockets: the host's, and descriptors that travel over the session's own.

use crate::raw::{call, close, say, socket, try_call};
use crate::sockets::{connect_raw, greet, loopback};

fn address_of(path: &[u8]) -> Vec<u8> {
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    bytes.extend(path);
    bytes
}

/// Every way to a socket at a path.
pub(crate) fn reach(paths: &[&str]) {
    for path in paths {
        let mut address = address_of(path.as_bytes());
        address.push(0);
        each(path, &address);
    }
}

/// Every way to an abstract name.
pub(crate) fn reach_abstract(name: &str) {
    each("abstract", &abstract_address(name));
}

fn abstract_address(name: &str) -> Vec<u8> {
    let mut address = address_of(&[0]);
    address.extend(name.as_bytes());
    address
}

/// With the socket on stdin, which somebody outside made.
pub(crate) fn reach_from_stdin(name: &str) {
    let listening = abstract_address(&format!("{name}-own"));
    let address = abstract_address(name);
    say("connect", connect_raw(0, &address));
    greet(0, "connect");
    try_call(
        "bind",
        libc::SYS_bind,
        &[0, listening.as_ptr().addr() as u64, listening.len() as u64],
    );
    // SAFETY: no memory is involved.
    say("listen", unsafe { libc::listen(0, 8) });
}

fn each(name: &str, address: &[u8]) {
    let at = address.as_ptr().addr() as u64;
    let length = address.len() as u64;
    let data = b"unix\n";
    let text = data.as_ptr().addr() as u64;
    for (kind_name, kind) in [("stream", 1), ("dgram", 2), ("seqpacket", 5), ("raw", 3)] {
        let fd = socket(libc::AF_UNIX, kind, 0);
        if !say(&format!("{name} {kind_name}-socket"), fd) {
            continue;
        }
        try_call(
            &format!("{name} {kind_name}-connect"),
            libc::SYS_connect,
            &[fd as u64, at, length],
        );
        greet(fd, &format!("{kind_name}-connect"));
        close(fd);
        let fd = socket(libc::AF_UNIX, kind, 0);
        try_call(
            &format!("{name} {kind_name}-sendto"),
            libc::SYS_sendto,
            &[fd as u64, text, 5, libc::MSG_NOSIGNAL as u64, at, length],
        );
        let vector = [text, 5_u64];
        // SAFETY: all zeroes is a valid header.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = address.len() as u32;
        header.msg_hdr.msg_iov = vector.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_iovlen = 1;
        let pointer = (&raw const header).addr() as u64;
        let flags = libc::MSG_NOSIGNAL as u64;
        try_call(
            &format!("{name} {kind_name}-sendmsg"),
            libc::SYS_sendmsg,
            &[fd as u64, pointer, flags],
        );
        try_call(
            &format!("{name} {kind_name}-sendmmsg"),
            libc::SYS_sendmmsg,
            &[fd as u64, pointer, 1, flags],
        );
        close(fd);
    }
    // A pair has a peer already; a datagram of it can still carry an address.
    let mut pair = [0_i32; 2];
    if try_call(
        &format!("{name} pair-dgram"),
        libc::SYS_socketpair,
        &[1, 2, 0, pair.as_mut_ptr().addr() as u64],
    ) == 0
    {
        try_call(
            &format!("{name} pair-sendto"),
            libc::SYS_sendto,
            &[pair[0] as u64, text, 5, 0, at, length],
        );
    }
}

fn send_descriptor(over: i32, fd: i32) -> i64 {
    let mut byte = 0_u8;
    let mut vector = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0_u64; 8];
    // SAFETY: all zeroes is a valid header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the macros only compute; the control buffer has room for one descriptor.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(message).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(over, &raw const header, 0) as i64
    }
}

fn receive_descriptor(over: i32) -> i32 {
    let mut byte = 0_u8;
    let mut vector = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0_u64; 8];
    // SAFETY: all zeroes is a valid header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer of the header is live; the kernel filled the control buffer before it is read.
    unsafe {
        if libc::recvmsg(over, &raw mut header, 0) != 1 {
            return -1;
        }
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        if message.is_null() {
            -1
        } else {
            libc::CMSG_DATA(message).cast::<i32>().read_unaligned()
        }
    }
}

/// A socket of the host's side, in the hands of a process that did not make it.
pub(crate) fn pass(closed: u16, forbidden: u16) {
    let mut pair = [0_i32; 2];
    call(libc::SYS_socketpair, &[1, 1, 0, pair.as_mut_ptr().addr() as u64]);
    // SAFETY: the child makes plain calls and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fd = receive_descriptor(pair[1]);
        say("received", fd);
        say("passed-connect", connect_raw(fd, &loopback(forbidden)));
        greet(fd, "passed");
        // SAFETY: no memory is involved.
        say("passed-listen", unsafe { libc::listen(fd, 8) });
        say("passed-connect-after-listen", connect_raw(fd, &loopback(forbidden)));
        // What the other says is before what ends it.
        let mut said = 0_u8;
        call(libc::SYS_read, &[pair[1] as u64, (&raw mut said).addr() as u64, 1]);
        println!("ready ok 0");
        use std::io::Read;
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    }
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    say("sent-connect", connect_raw(fd, &loopback(closed)));
    say("sent", send_descriptor(pair[0], fd));
    call(libc::SYS_write, &[pair[0] as u64, b"x".as_ptr().addr() as u64, 1]);
    // SAFETY: waits for the child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
