//! Connecting without waiting: io_uring(7).
//!
//! Whether connect(2) waits is a flag of the open file, which others share: who sets it for one call of his own lets theirs
//! fail meanwhile. A request in a ring says for itself that it does not wait.

use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A ring for one request at a time.
pub struct Ring {
    /// None after it failed: what it still holds may speak of memory that is gone.
    ring: Option<IoUring>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("works", &self.ring.is_some()).finish()
    }
}

/// Marks of the two requests.
const CONNECT: u64 = 1;
const CANCEL: u64 = 2;

impl Ring {
    /// `io_uring_setup(2, …)` io_uring_setup(2).
    ///
    /// # Errors
    /// `ENOSYS`, or `EPERM` where the machine or a container gives nobody rings (`kernel.io_uring_disabled`).
    pub fn new() -> io::Result<Self> {
        const ENTRIES: u32 = 2;
        Ok(Self {
            ring: Some(IoUring::new(ENTRIES)?),
        })
    }

    /// `IORING_OP_CONNECT` io_uring_enter(2), Linux 5.5: connects, if that can be told at once; `false` where it cannot, and
    /// then the connection is under way and connect(2) waits for it. As after a connect that did not wait, one that failed
    /// leaves the socket between two states until it is dissolved, connect(2).
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(&mut self, fd: impl AsFd, address: &[u8]) -> io::Result<bool> {
        let Some(ring) = &mut self.ring else { return Ok(false) };
        match attempt(ring, fd, address) {
            Ok(told) => match told.map(i32::wrapping_neg) {
                Some(0) => Ok(true),
                None | Some(libc::ECANCELED | libc::EALREADY | libc::EINPROGRESS | libc::EAGAIN | libc::EINTR) => {
                    Ok(false)
                }
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            },
            Err(_) => {
                self.ring = None;
                Ok(false)
            }
        }
    }
}

/// What the request ended with; an error is the ring's own.
fn attempt(ring: &mut IoUring, fd: impl AsFd, address: &[u8]) -> io::Result<Option<i32>> {
    let full = |_| io::Error::from_raw_os_error(libc::EBUSY);
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let connect = opcode::Connect::new(types::Fd(fd.as_fd().as_raw_fd()), address.as_ptr().cast(), length);
    let connect = connect.build().user_data(CONNECT);
    // SAFETY: the kernel copies `length` bytes of `address` when it takes the request, which `submit` waits for; if that
    // fails the ring is dropped with what it holds. The descriptor is borrowed over the call, and cancelling waits for the
    // request's end.
    unsafe { ring.submission().push(&connect) }.map_err(full)?;
    ring.submit()?;
    if let Some(told) = result(ring) {
        return Ok(Some(told));
    }
    let cancel = opcode::AsyncCancel::new(CONNECT).build().user_data(CANCEL);
    // SAFETY: the request holds no pointer; its number is that of the one before.
    unsafe { ring.submission().push(&cancel) }.map_err(full)?;
    loop {
        match ring.submit_and_wait(2) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if ring.completion().len() >= 2 {
            return Ok(result(ring));
        }
    }
}

/// Takes all that was told, and what of it is the connect's.
fn result(ring: &mut IoUring) -> Option<i32> {
    let mut told = None;
    for entry in ring.completion() {
        if entry.user_data() == CONNECT {
            told = Some(entry.result());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    fn address(port: u16) -> Vec<u8> {
        let family = u16::try_from(libc::AF_INET).unwrap();
        let ip = Ipv4Addr::LOCALHOST.octets();
        [&family.to_ne_bytes()[..], &port.to_be_bytes(), &ip, &[0; 8]].concat()
    }

    fn stream() -> OwnedFd {
        crate::socket::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap()
    }

    /// `None` where nobody gets rings.
    fn ring() -> Option<Ring> {
        match Ring::new() {
            Ok(ring) => Some(ring),
            Err(error) => {
                eprintln!("\nSKIPPED: no ring on this machine: {error}\n");
                None
            }
        }
    }

    #[test]
    fn what_can_be_told_at_once_is_told_and_what_waits_is_under_way() {
        let Some(mut ring) = ring() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = address(listener.local_addr().unwrap().port());
        let one = stream();
        assert!(ring.connect(&one, &there).unwrap());
        listener.accept().unwrap();
        assert_eq!(
            ring.connect(&one, &there).unwrap_err().raw_os_error(),
            Some(libc::EISCONN)
        );

        // A queue for one, which is full: nobody answers.
        let full = TcpListener::bind("127.0.0.1:0").unwrap();
        crate::socket::listen(&full, 0).unwrap();
        let _queue = TcpStream::connect(full.local_addr().unwrap()).unwrap();
        let waits = stream();
        let there = address(full.local_addr().unwrap().port());
        for _ in 0..3 {
            assert!(!ring.connect(&waits, &there).unwrap());
        }
        full.accept().unwrap();
        // Now it is the waiting call's to be told.
        crate::socket::connect(&waits, &there).unwrap();

        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = ring.connect(stream(), &address(closed)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(ring.connect(stream(), &[]).is_err());
        assert!(
            ring.connect(stream(), &address(listener.local_addr().unwrap().port()))
                .unwrap()
        );
    }

    #[test]
    fn a_ring_that_failed_says_of_nothing_that_it_is_done() {
        let mut ring = Ring { ring: None };
        assert!(!ring.connect(stream(), &address(9)).unwrap());
    }
}
