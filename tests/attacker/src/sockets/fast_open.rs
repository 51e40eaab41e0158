//! TCP fast open: data, and with it a connection, without a connect.

use super::{AF_INET, STREAM, connect_raw, loopback, message};
use crate::raw::{close, say, socket, try_call};

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
