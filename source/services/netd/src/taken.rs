//! What was taken of the program, and how it is let go.
//!
//! Whoever closes a socket last waits, where `SO_LINGER` says so, until the other side has taken all that was sent: for a stuck
//! peer up to the time that was set, and that may be hours. The program can see to it that the last is whoever judges, by closing its
//! own while a call on it is judged. So one that lingers is closed by a thread of its own.

use nexus_sys::socket as sys;
use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

/// How many sockets may linger at once, each with a thread. A program that has more of them loses what lingering promises: they are
/// closed all the same, and the kernel sends on what it has by itself.
const LINGERING_MAX: usize = 64;

const STACK_BYTES: usize = 32 * 1024;

static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// A descriptor that others have too.
#[derive(Debug)]
pub(crate) struct Taken {
    fd: OwnedFd,
    /// Closing it waits for nobody, whatever was set.
    quick: Cell<bool>,
    /// Lets the thread close its copy. After `fd`, which so is never the last: fields are dropped in their order.
    closed: Option<Sender<Infallible>>,
}

impl Taken {
    /// Says that closing it never waits, as for datagrams: then nobody asks.
    pub(crate) fn is_quick(&self) {
        self.quick.set(true);
    }
}

impl From<OwnedFd> for Taken {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            quick: Cell::new(false),
            closed: None,
        }
    }
}

impl Deref for Taken {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

impl AsFd for Taken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.quick.get() || !sys::lingers(&self.fd) {
            return;
        }
        self.closed = close_elsewhere(&self.fd);
        if self.closed.is_none() {
            sys::linger_no_more(&self.fd);
        }
    }
}

/// A thread that closes a copy once what is returned is gone; `None` if there is none to be had.
fn close_elsewhere(socket: &OwnedFd) -> Option<Sender<Infallible>> {
    let copy = socket.try_clone().ok()?;
    if LINGERING.fetch_add(1, Ordering::AcqRel) < LINGERING_MAX {
        let (closed, wait) = mpsc::channel();
        let close = move || {
            // Nothing ever comes.
            let _ = wait.recv();
            drop(copy);
            LINGERING.fetch_sub(1, Ordering::AcqRel);
        };
        let thread = thread::Builder::new().name("linger".into()).stack_size(STACK_BYTES);
        if thread.spawn(close).is_ok() {
            return Some(closed);
        }
    }
    LINGERING.fetch_sub(1, Ordering::AcqRel);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn who_lets_a_lingering_socket_go_does_not_wait_for_its_peer() {
        // Often: the thread must not be done with its copy before the one that was taken is closed.
        for _ in 0..500 {
            let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = TcpStream::connect(stuck.local_addr().unwrap()).unwrap();
            let peer = stuck.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            while stream.write(&[0; 65536]).is_ok() {}
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(3600))).unwrap();
            let taken = Taken::from(OwnedFd::from(stream));
            let (tell, told) = std::sync::mpsc::channel();
            thread::spawn(move || {
                drop(taken);
                tell.send(()).unwrap();
            });
            told.recv_timeout(Duration::from_secs(60)).expect("it waits");
            // Ends the lingering.
            drop(peer);
        }
    }
}
