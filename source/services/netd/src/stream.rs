//! Data for a socket that has its peer: sent piece by piece, as the peer takes it.

use crate::caller::Caller;
use crate::gather::{Outgoing, copy};
use crate::taken::Taken;
use crate::worker::GiveWay;
use crate::{Stop, errno_of};
use nexus_abi::Errno;
use nexus_sys::message::{self, Message};
use nexus_sys::seccomp::Listener;
use nexus_sys::socket as sys;
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// How much is copied at once: what a socket's buffer usually takes.
const CHUNK_BYTES: usize = 256 * 1024;

/// The longest message that stays whole; the kernel's own limit is the socket's send buffer, 208 KiB by default.
const WHOLE_BYTES_MAX: usize = 4 << 20;

const MSG_DONTWAIT: i32 = 0x40;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_FASTOPEN: i32 = 0x2000_0000;
const MSG_ZEROCOPY: i32 = 0x400_0000;

/// Sending under way.
pub(crate) struct Sending {
    socket: Taken,
    /// Whose memory holds the data, and as long as its call waits only.
    tid: u32,
    id: u64,
    listener: Arc<Listener>,
    pieces: Vec<(u64, usize)>,
    total: usize,
    sent: usize,
    flags: i32,
    /// They go with the first byte.
    rights: Vec<Taken>,
    /// Whether a message has an end.
    whole: bool,
    /// Whom a broken pipe is told by a signal.
    tell: Option<OwnedFd>,
}

/// What is left to do of a call; says how much was sent.
pub(crate) type Work = Box<dyn FnMut(&GiveWay) -> io::Result<usize> + Send>;

/// How far a call got.
pub(crate) enum Progress {
    /// It is done.
    Done(usize),
    /// It waits for the other side.
    Waits(Work),
}

/// The flags that are passed on. Copies are made here, so nobody may be promised that none are.
pub(crate) fn flags(socket: &OwnedFd, flags: i32) -> Result<i32, Stop> {
    const SOL_SOCKET: i32 = 1;
    const SO_ZEROCOPY: i32 = 60;
    if flags & MSG_FASTOPEN != 0 {
        return Err(Errno::EPERM.into());
    }
    if flags & MSG_ZEROCOPY != 0 && sys::int_option(socket, SOL_SOCKET, SO_ZEROCOPY).is_ok_and(|on| on != 0) {
        // What a program gets that has too many of these on the way; it copies then. msg_zerocopy.rst.
        return Err(Errno::ENOBUFS.into());
    }
    Ok((flags & !MSG_ZEROCOPY) | MSG_NOSIGNAL)
}

/// Whether a call on this socket may wait.
pub(crate) fn may_wait(socket: &OwnedFd, flags: i32) -> Result<bool, Stop> {
    Ok(flags & MSG_DONTWAIT == 0 && !rustix::fs::fcntl_getfl(socket)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// Sends as much as the other side takes now; the rest waits, if the caller may.
pub(crate) fn send(
    caller: &Caller<'_>,
    listener: &Arc<Listener>,
    socket: Taken,
    outgoing: Outgoing,
    rights: Vec<Taken>,
    whole: bool,
    waits: bool,
) -> Result<Progress, Stop> {
    let tell = outgoing.flags & MSG_NOSIGNAL == 0 && !whole;
    let mut sending = Sending {
        flags: flags(&socket, outgoing.flags)?,
        tid: caller.tid(),
        id: caller.id(),
        listener: Arc::clone(listener),
        total: outgoing.total(),
        sent: 0,
        pieces: outgoing.pieces,
        tell: tell.then(|| caller.pidfd()).transpose()?,
        rights,
        whole,
        socket,
    };
    if whole && sending.total > WHOLE_BYTES_MAX {
        return Err(Errno::EMSGSIZE.into());
    }
    // Closing a copy of a file may wait for whoever serves it: not here.
    if waits && !sending.rights.is_empty() {
        return Ok(sending.later());
    }
    match sending.step(MSG_DONTWAIT) {
        Ok(()) if sending.is_done() => Ok(Progress::Done(sending.sent)),
        Ok(()) if waits => Ok(sending.later()),
        Err(error) if waits && error.kind() == io::ErrorKind::WouldBlock => Ok(sending.later()),
        Ok(()) => loop {
            match sending.step(MSG_DONTWAIT) {
                Ok(()) if !sending.is_done() => {}
                _ => break Ok(Progress::Done(sending.sent)),
            }
        },
        Err(error) => Err(error.into()),
    }
}

impl Sending {
    fn is_done(&self) -> bool {
        self.sent >= self.total
    }

    fn step(&mut self, more: i32) -> io::Result<()> {
        let length = if self.whole { self.total } else { CHUNK_BYTES };
        let data = match copy(self.tid, &self.pieces, self.sent, length) {
            Ok(data) if data.len() < self.total && (self.whole || data.is_empty()) => return Err(errno(Errno::EFAULT)),
            Ok(data) => data,
            Err(Stop::Errno(other)) => return Err(errno(other)),
            Err(Stop::Denied(_)) => return Err(errno(Errno::EPERM)),
        };
        // Of a caller that is gone the number may be somebody else's by now, and the bytes too.
        if !self.listener.is_waiting(self.id) {
            return Err(errno(Errno::ESRCH));
        }
        let rights: Vec<BorrowedFd<'_>> = self.rights.iter().map(AsFd::as_fd).collect();
        let result = message::send(
            &self.socket,
            &Message {
                address: &[],
                data: &data,
                rights: &rights,
                control: &[],
                flags: self.flags | more,
            },
        );
        drop(rights);
        match result {
            Ok(count) => {
                self.rights.clear();
                self.sent = self.sent.saturating_add(count);
                Ok(())
            }
            Err(error) => {
                if let (Some(Errno::EPIPE), Some(thread), 0) = (
                    error.raw_os_error().map(|raw| errno_of(Some(raw))),
                    &self.tell,
                    self.sent,
                ) {
                    // One that is gone needs no signal.
                    let _ = pidfd_send_signal(thread, Signal::PIPE);
                }
                Err(error)
            }
        }
    }

    fn later(mut self) -> Progress {
        Progress::Waits(Box::new(move |give_way| {
            loop {
                match self.step(0) {
                    Ok(()) if self.is_done() => return Ok(self.sent),
                    Ok(()) => {}
                    // What was sent is told; the rest is for the next call.
                    Err(error)
                        if self.sent > 0
                            && (error.kind() != io::ErrorKind::Interrupted || give_way.get().is_some()) =>
                    {
                        return Ok(self.sent);
                    }
                    Err(error) => return Err(error),
                }
                if give_way.get().is_some() && self.sent > 0 {
                    return Ok(self.sent);
                }
            }
        }))
    }
}

fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(i32::from(errno.raw()))
}
