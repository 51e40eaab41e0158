//! A stream's connect that whoever judged it makes: it is mostly over before it would wait.

use crate::errno_of;
use crate::taken::Taken;
use crate::turns::Turns;
use crate::worker::{Ended, GiveWay, Workers};
use nexus_sys::socket as sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, socket_error, socket_timeout};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A connect that was judged.
#[derive(Debug)]
pub struct Connecting {
    pub(crate) workers: Workers,
    pub(crate) id: u64,
    pub(crate) tid: u32,
    pub(crate) socket: Taken,
    pub(crate) address: Vec<u8>,
    /// Whether the call is made again after a signal whose handler wants that.
    pub(crate) restarts: bool,
    /// Whether it does not wait. A word of the program's, which any of its threads takes back at any time
    /// (`fcntl(F_SETFL)`): so it decides nothing but for whom there is a place.
    pub(crate) passes: bool,
}

impl Connecting {
    /// Connects and answers, in this thread. Gives the turn back if nobody took it meanwhile.
    #[must_use]
    pub fn make<T: Send + 'static>(self, turns: &Arc<Turns<T>>, turn: T) -> Option<T> {
        let Self {
            workers,
            id,
            tid,
            socket,
            address,
            restarts,
            passes,
        } = self;
        if !turns.are_watched() {
            if let Err(error) = workers.connect((id, tid), socket, address, (restarts, passes)) {
                // A caller that is gone hears nothing.
                let _ = workers.shared.listener.fail(id, errno_of(error.raw_os_error()).raw());
            }
            return Some(turn);
        }
        let give_way = Arc::new(GiveWay::default());
        let taken = {
            let (workers, give_way) = (workers.clone(), Arc::clone(&give_way));
            move |thread| workers.note((id, tid), thread, give_way)
        };
        let goes_on = || give_way.get().is_none() && !turns.are_over();
        let (turn, result) = turns.without(turn, taken, move || {
            let result = connect_once(&socket, &address, goes_on);
            // Before its caller goes on, who may be about to close it: then that is the last. If it did so already, this is, and
            // the caller waits for what lingers, as connect(2) would.
            socket.close_in_time();
            result
        });
        if turn.is_none() {
            workers.forget(id);
        }
        let result = result.map(|()| Ended::Value(0));
        workers.shared.tell(id, result, restarts, None, &give_way);
        turn
    }
}

/// `connect(2)`, once: a signal that is not for the caller is waited past without another call. With a `shutdown` in between
/// that one would begin anew, which the caller did not ask for.
pub(crate) fn connect_once(socket: &OwnedFd, address: &[u8], goes_on: impl Fn() -> bool) -> io::Result<()> {
    let mut result = sys::connect(socket, address);
    while result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        && goes_on()
    {
        result = outcome(socket);
    }
    result
}

/// Waits for what becomes of a connection that was begun, as connect(2) would have. A connect(2) that is made on it
/// afterwards says 0 once, and then `EISCONN`.
fn outcome(socket: &OwnedFd) -> io::Result<()> {
    let timeout = socket_timeout(socket, Timeout::Send)?.and_then(|time| Timespec::try_from(time).ok());
    if poll(&mut [PollFd::new(socket, PollFlags::OUT)], timeout.as_ref())? == 0 {
        // What a connect with a timeout says of it, socket(7).
        return Err(rustix::io::Errno::INPROGRESS.into());
    }
    socket_error(socket)??;
    if sys::is_tcp_closed(socket)? {
        // Somebody else has heard why. connect(2) says this then (`__inet_stream_connect`).
        return Err(rustix::io::Errno::CONNABORTED.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_sys::signal::{SignalSet, ThreadHandle, set_interrupting, set_mask};
    use rustix::net::{AddressFamily, Shutdown, SocketType, shutdown};
    use std::cell::Cell;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// Somebody whose queue is full.
    struct Full {
        listener: TcpListener,
        at: SocketAddr,
        queued: Vec<TcpStream>,
    }

    impl Full {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            rustix::net::listen(&listener, 0).unwrap();
            let at = listener.local_addr().unwrap();
            let queued = vec![TcpStream::connect(at).unwrap()];
            // It is there some time after its own side is connected: the packets of a busy machine wait too.
            let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
            let is_there = poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&minute));
            assert_eq!(is_there, Ok(1));
            Self { listener, at, queued }
        }

        fn make_room(&mut self) {
            self.queued.push(self.listener.accept().unwrap().0);
        }
    }

    fn stream() -> OwnedFd {
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap()
    }

    /// Connects in a thread that is sent signals until it has asked whether to go on, which `asked` answers.
    fn interrupted(socket: &OwnedFd, to: SocketAddr, asked: impl FnOnce() -> bool + Send + 'static) -> io::Result<()> {
        let nudge = crate::worker::nudge();
        set_interrupting(nudge).unwrap();
        let (socket, address) = (socket.try_clone().unwrap(), crate::local::encode(to));
        let (who, told) = mpsc::channel();
        let (ask, has_asked) = mpsc::channel();
        let thread = thread::spawn(move || {
            set_mask(&SignalSet::full_without(nudge)).unwrap();
            who.send(ThreadHandle::current()).unwrap();
            let asked = Cell::new(Some(asked));
            connect_once(&socket, &address, || {
                let answer = asked.take().is_some_and(|asked| asked());
                // Once is enough.
                set_mask(&SignalSet::full()).unwrap();
                ask.send(()).unwrap();
                answer
            })
        });
        let thread_handle = told.recv().unwrap();
        while has_asked.recv_timeout(Duration::from_millis(1)).is_err() {
            if thread.is_finished() {
                // What interrupted it may have been the last one, while this thread did not run.
                assert!(has_asked.try_recv().is_ok(), "it was not interrupted");
                break;
            }
            thread_handle.interrupt(nudge);
        }
        thread.join().unwrap()
    }

    #[test]
    fn a_connect_that_was_shut_while_a_signal_interrupted_it_does_not_begin_anew() {
        for _ in 0..20 {
            let mut full = Full::new();
            let (to, socket) = (full.at, stream());
            let copy = socket.try_clone().unwrap();
            let result = interrupted(&socket, to, move || {
                shutdown(&copy, Shutdown::Both).unwrap();
                // Were it begun anew, it would be taken now.
                full.make_room();
                true
            });
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert!(rustix::net::getpeername(&socket).is_err());
        }
    }

    #[test]
    fn a_connect_that_a_signal_interrupted_goes_on_and_ends_as_it_would_have() {
        let mut full = Full::new();
        let (to, socket) = (full.at, stream());
        let (keep, kept) = mpsc::channel();
        let room = move || {
            full.make_room();
            // One that nobody listens for any more is reset.
            keep.send(full).unwrap();
            true
        };
        interrupted(&socket, to, room).unwrap();
        rustix::net::getpeername(&socket).unwrap();
        drop(kept);
    }

    #[test]
    fn a_connect_that_gives_way_is_interrupted() {
        let full = Full::new();
        let result = interrupted(&stream(), full.at, || false);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_connect_with_a_timeout_ends_after_it_also_where_it_was_interrupted() {
        let (full, socket) = (Full::new(), stream());
        let time = Some(Duration::from_secs(2));
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, time).unwrap();
        let result = interrupted(&socket, full.at, || true);
        let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
        assert_eq!(result.unwrap_err().raw_os_error(), Some(in_progress));
    }
}
