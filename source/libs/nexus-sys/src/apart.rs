//! Threads that hold other descriptors than their process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::sync_channel;

use crate::check;
use crate::process::close_all_but;

/// `unshare(CLONE_FILES)` unshare(2), Linux 2.6.16, in a new thread: it has a table of descriptors of its own, in which there
/// are `keep`, 0 to 2 and nothing else, and runs `body`. The caller's `keep` is closed when this returns.
///
/// When its process is killed, what it holds open does not keep open what the others held. Descriptors mean something only
/// to whoever opened them, on either side: `body` is a function and not a closure so that it can bring none along, and what is to
/// get across is sent over a socket.
///
/// # Errors
/// `EAGAIN` or `ENOMEM` where there is no thread or table to be had.
pub fn spawn<const COUNT: usize>(name: &str, keep: [OwnedFd; COUNT], body: fn([OwnedFd; COUNT])) -> io::Result<()> {
    let numbers = keep.each_ref().map(AsRawFd::as_raw_fd);
    let (tell, told) = sync_channel(1);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // SAFETY: no memory is involved. This thread has just begun and owns no descriptor; none that others own is used by
        // it from here on but under the numbers below, which are copies in its own table.
        if let Err(error) = check(unsafe { libc::unshare(libc::CLONE_FILES) }.into()) {
            let _ = tell.send(Err(error));
            return;
        }
        // SAFETY: the numbers are open in this thread's own table, where nobody else owns them: the caller keeps its own open
        // until it is told below.
        let own = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        let closed = close_all_but(3, &own.each_ref().map(AsFd::as_fd));
        let ready = closed.is_ok();
        let _ = tell.send(closed);
        if ready {
            body(own);
        }
    })?;
    let ready = told.recv();
    drop(keep);
    ready.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EAGAIN)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_has_what_it_was_given_and_nothing_else_and_holds_nothing_of_its_process_open() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        spawn("apart", [OwnedFd::from(theirs)], |[socket]| {
            let mut socket = UnixStream::from(socket);
            let mut number = [0; 4];
            socket.read_exact(&mut number).unwrap();
            // SAFETY: asks whether a number is open, which harms nobody.
            let flags = unsafe { libc::fcntl(i32::from_le_bytes(number), libc::F_GETFD) };
            socket.write_all(&[u8::from(flags == -1)]).unwrap();
            let _ = socket.read(&mut [0]);
        })
        .unwrap();
        ours.write_all(&write.as_raw_fd().to_le_bytes()).unwrap();
        let mut closed = [0];
        ours.read_exact(&mut closed).unwrap();
        assert_eq!(closed, [1]);
        // It runs on, and has no copy of the other end.
        drop(write);
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
        drop(ours);
    }

    #[test]
    fn what_it_was_given_is_closed_when_it_ends() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        spawn("apart", [OwnedFd::from(theirs)], |_| {}).unwrap();
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }
}
