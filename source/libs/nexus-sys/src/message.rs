//! Sending a message in another process's place: sendmsg(2), cmsg(3).

use crate::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A message as it was copied and judged.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Where to, as a `struct sockaddr`; empty: to the socket's peer.
    pub address: &'a [u8],
    /// What.
    pub data: &'a [u8],
    /// Descriptors that go along (`SCM_RIGHTS`), unix(7).
    pub rights: &'a [BorrowedFd<'a>],
    /// Other control messages.
    pub control: &'a [Control<'a>],
    /// `MSG_*`.
    pub flags: i32,
}

/// A control message that is only bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// `SOL_*`, but not `SOL_SOCKET`: what that level carries are descriptors and identities.
    pub level: i32,
    /// Its type within the level.
    pub kind: i32,
    /// Its content.
    pub data: &'a [u8],
}

/// The most descriptors in one message (`SCM_MAX_FD`, include/net/scm.h).
pub const RIGHTS_MAX: usize = 253;

/// Appends a control message, with the padding that the kernel counts by (`CMSG_ALIGN`).
fn append(to: &mut Vec<u64>, level: i32, kind: i32, data: &[u8]) {
    let header = size_of::<libc::cmsghdr>();
    let mut bytes = Vec::with_capacity(header + data.len());
    bytes.extend((header + data.len()).to_ne_bytes());
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(size_of::<u64>()), 0);
    let words = bytes.chunks_exact(size_of::<u64>());
    to.extend(words.map(|word| word.try_into().map_or(0, u64::from_ne_bytes)));
}

/// `sendmsg(fd, &msg, flags)` sendmsg(2).
///
/// # Errors
/// As sendmsg(2); `EINVAL` for a control message of `SOL_SOCKET`, or for too many descriptors.
pub fn send(fd: impl AsFd, message: &Message<'_>) -> io::Result<usize> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    if message.rights.len() > RIGHTS_MAX || message.control.iter().any(|one| one.level == libc::SOL_SOCKET) {
        return Err(invalid());
    }
    // Words, because the kernel wants headers aligned.
    let mut control: Vec<u64> = Vec::new();
    if !message.rights.is_empty() {
        let numbers: Vec<u8> = message
            .rights
            .iter()
            .flat_map(|fd| fd.as_raw_fd().to_ne_bytes())
            .collect();
        append(&mut control, libc::SOL_SOCKET, libc::SCM_RIGHTS, &numbers);
    }
    for one in message.control {
        append(&mut control, one.level, one.kind, one.data);
    }
    let mut vector = libc::iovec {
        iov_base: message.data.as_ptr().cast_mut().cast(),
        iov_len: message.data.len(),
    };
    // SAFETY: all zeroes is a valid `msghdr`: no name, no data, no control.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if !message.address.is_empty() {
        header.msg_name = message.address.as_ptr().cast_mut().cast();
        header.msg_namelen = libc::socklen_t::try_from(message.address.len()).map_err(|_| invalid())?;
    }
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if !control.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(control.as_slice()) as _;
    }
    // SAFETY: every pointer of `header` leads to memory that lives over the call and has the length told; sendmsg only
    // reads through them; the descriptors named in the control bytes are borrowed and so open.
    let sent =
        check(unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const header, message.flags) } as libc::c_long)?;
    usize::try_from(sent).map_err(|_| io::Error::from_raw_os_error(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn data_goes_where_it_should_and_identities_do_not_go_along() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let plain = Message {
            address: &[],
            data: b"hello",
            rights: &[a.as_fd()],
            control: &[],
            flags: libc::MSG_NOSIGNAL,
        };
        assert_eq!(send(&a, &plain).unwrap(), 5);
        let mut read = [0; 5];
        b.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
        let identity = Control {
            level: libc::SOL_SOCKET,
            kind: libc::SCM_CREDENTIALS,
            data: &[0; 12],
        };
        let refused = Message {
            control: &[identity],
            ..plain
        };
        assert_eq!(send(&a, &refused).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
