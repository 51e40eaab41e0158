//! What was taken of the program, and how it is let go.
//!
//! Whoever closes a file last does what closing it asks for. Where `SO_LINGER` says so, that is to wait until the other side has
//! taken all that was sent: for a stuck peer up to the time that was set, and that may be hours. The program can see to it that the
//! last is whoever judges, by closing its own while a call on it is judged; set the option in the same moment, or send the
//! socket over another one that is closed with it. So who judges hurries in closing ([`Hurried`]), and wherever else the kernel holds a
//! file of the program's for it, if only for a moment: nobody else's call waits, and the kernel sends on what it has by itself.

use nexus_sys::hurry::Hurried;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that others have too. A thread that judges does not wait for what it closes; others, which have one call to carry
/// out each, do.
#[derive(Debug)]
pub(crate) struct Taken {
    fd: OwnedFd,
    /// It is closed as any other.
    in_time: bool,
    /// Ends the hurry. After `fd`: fields are dropped in their order.
    hurried: Option<Hurried>,
}

impl Taken {
    /// Closes it, and takes the time that it takes.
    pub(crate) fn close_in_time(mut self) {
        self.in_time = true;
    }
}

impl From<OwnedFd> for Taken {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            in_time: false,
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
        if !self.in_time {
            self.hurried = Hurried::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::HURRY_PAUSE;
    use crate::worker::nudge;
    use nexus_sys::hurry::Hurrier;
    use nexus_sys::message::{self, Message};
    use nexus_sys::signal::set_interrupting;
    use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size};
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// Somebody who takes nothing, and not much is on its way to it.
    fn who_takes_nothing() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_socket_recv_buffer_size(&listener, 4096).unwrap();
        rustix::net::listen(&listener, 4096).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// A stream to there that has been sent all that fits and lingers for an hour.
    fn lingering(at: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(at).unwrap();
        set_socket_send_buffer_size(&stream, 4096).unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        set_socket_linger(&stream, Some(Duration::from_secs(3600))).unwrap();
        stream
    }

    /// Lets go what was taken as whoever judges does, and fails if that does not end by itself.
    fn let_go(taken: Vec<Taken>) {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            set_interrupting(nudge()).unwrap();
            let hurrier = Hurrier::start(nudge(), HURRY_PAUSE).unwrap();
            hurrier.look_after_here();
            drop(taken);
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).expect("it waits");
    }

    #[test]
    fn who_lets_the_last_of_a_lingering_socket_go_does_not_wait_for_its_peer() {
        let (_listener, at) = who_takes_nothing();
        let taken = |_| Taken::from(OwnedFd::from(lingering(at)));
        let_go((0..20).map(taken).collect());
    }

    #[test]
    fn nor_where_it_is_on_its_way_in_one_that_does_not_linger() {
        let (one, other) = UnixStream::pair().unwrap();
        let (_listener, at) = who_takes_nothing();
        for _ in 0..20 {
            let stream = lingering(at);
            let message = Message {
                address: &[],
                data: b"x",
                rights: &[stream.as_fd()],
                control: &[],
                flags: 0,
            };
            message::send(&one, &message).unwrap();
        }
        drop(one);
        let_go(vec![Taken::from(OwnedFd::from(other))]);
    }

    #[test]
    fn who_does_not_judge_takes_its_time() {
        let (listener, at) = who_takes_nothing();
        let stream = lingering(at);
        let (tell, told) = mpsc::channel();
        let waits = thread::spawn(move || {
            let hurrier = Hurrier::start(nudge(), HURRY_PAUSE).unwrap();
            hurrier.look_after_here();
            Taken::from(OwnedFd::from(stream)).close_in_time();
            tell.send(()).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        // A peer that is gone takes nothing any more.
        drop(listener);
        waits.join().unwrap();
    }
}
