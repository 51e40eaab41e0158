//! What was taken of the program, and how it is let go.
//!
//! Whoever closes a file last does what closing it asks for. Where `SO_LINGER` says so, that is to wait until the other side has
//! taken all that was sent: for a stuck peer up to the time that was set, and that may be hours. The program can see to it that the
//! last is whoever judges, by closing its own while a call on it is judged; set the option in the same moment, or send the
//! socket over another one that is closed with it. So who judges is interrupted in closing, by a timer of its own: nobody else's call
//! waits, and the kernel sends on what it has by itself.

use crate::worker::nudge;
use nexus_sys::hurry::Hurry;
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long whoever judges waits in closing. Nothing that closes in earnest takes as long.
const CLOSING_MAX: Duration = Duration::from_millis(1);

thread_local! {
    static HURRY: RefCell<Option<Hurry>> = const { RefCell::new(None) };
}

/// From now on this thread does not wait for what it closes. Others, which have one call to carry out each, do.
pub(crate) fn hurry_here() -> io::Result<()> {
    let hurry = Hurry::here(nudge())?;
    HURRY.set(Some(hurry));
    Ok(())
}

/// A descriptor that others have too.
#[derive(Debug)]
pub(crate) struct Taken {
    fd: OwnedFd,
    /// It is closed as any other.
    in_time: Cell<bool>,
    /// Ends the hurry. After `fd`: fields are dropped in their order.
    hurried: Option<Hurried>,
}

impl Taken {
    /// Says that closing it never waits, as for datagrams: then nobody has to hurry.
    pub(crate) fn is_quick(&self) {
        self.in_time.set(true);
    }

    /// Closes it, and takes the time that it takes.
    pub(crate) fn close_in_time(self) {
        self.in_time.set(true);
    }
}

impl From<OwnedFd> for Taken {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            in_time: Cell::new(false),
            hurried: None,
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
        if !self.in_time.get() {
            self.hurried = Hurried::now();
        }
    }
}

/// This thread hurries until it is dropped. Also while `/proc` is asked about a descriptor of the program's: the kernel holds the file meanwhile, and
/// who closes it then is not the last.
#[derive(Debug)]
pub(crate) struct Hurried;

impl Hurried {
    pub(crate) fn now() -> Option<Self> {
        let on = |hurry: &RefCell<Option<Hurry>>| hurry.borrow().as_ref()?.on(CLOSING_MAX).ok().map(|()| Self);
        HURRY.try_with(on).ok()?
    }
}

impl Drop for Hurried {
    fn drop(&mut self) {
        let off = |hurry: &RefCell<Option<Hurry>>| hurry.borrow().iter().for_each(Hurry::off);
        // Without it nothing was begun.
        let _ = HURRY.try_with(off);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_sys::message::{self, Message};
    use nexus_sys::signal::set_interrupting;
    use rustix::net::sockopt::set_socket_linger;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::thread;

    /// A stream whose peer takes nothing, that lingers for an hour; its peer.
    fn stuck() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        set_socket_linger(&stream, Some(Duration::from_secs(3600))).unwrap();
        (stream, peer)
    }

    /// Lets go what was taken as whoever judges does, and fails if that does not end by itself.
    fn let_go(taken: Vec<Taken>) {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            set_interrupting(nudge()).unwrap();
            hurry_here().unwrap();
            drop(taken);
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).expect("it waits");
    }

    #[test]
    fn who_lets_the_last_of_a_lingering_socket_go_does_not_wait_for_its_peer() {
        let (streams, _peers): (Vec<_>, Vec<_>) = (0..20).map(|_| stuck()).unzip();
        let_go(
            streams
                .into_iter()
                .map(|stream| Taken::from(OwnedFd::from(stream)))
                .collect(),
        );
    }

    #[test]
    fn nor_where_it_is_on_its_way_in_one_that_does_not_linger() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut peers = Vec::new();
        for _ in 0..20 {
            let (stream, peer) = stuck();
            let message = Message {
                address: &[],
                data: b"x",
                rights: &[stream.as_fd()],
                control: &[],
                flags: 0,
            };
            message::send(&one, &message).unwrap();
            peers.push(peer);
        }
        drop(one);
        let_go(vec![Taken::from(OwnedFd::from(other))]);
    }

    #[test]
    fn who_does_not_judge_takes_its_time() {
        let (stream, peer) = stuck();
        let (tell, told) = mpsc::channel();
        let waits = thread::spawn(move || {
            hurry_here().unwrap();
            Taken::from(OwnedFd::from(stream)).close_in_time();
            tell.send(()).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        // A peer that is gone takes nothing any more.
        drop(peer);
        waits.join().unwrap();
    }
}
