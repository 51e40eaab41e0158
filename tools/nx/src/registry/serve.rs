//! The supervisor's end: one question at a time, in a thread of its own.

use super::publish::Listener;
use nexus_wire::Bounded;
use nexus_wire::packet::PacketSocket;
use nexus_wire::session::{ANSWER_BYTES_MAX, Answer, Question};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long somebody who connected may take to ask: who waits behind it is answered within two seconds all the same.
pub const ASK_WAIT: Duration = Duration::from_millis(200);

/// Who knows the answers.
pub trait Answers: Send + 'static {
    /// The answer, or why there is none.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn answer(&mut self, question: Question) -> Result<serde_json::Value, String>;
}

/// Answers until the process ends.
///
/// # Errors
/// No thread can be started.
pub fn serve(listener: Listener, mut answers: impl Answers) -> std::io::Result<()> {
    let work = move || {
        loop {
            match rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
                Ok(socket) => hear(socket, &mut answers),
                // No descriptor is free, or the asker went away: not for good, and no reason to spin.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => std::thread::sleep(ASK_WAIT),
                Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("answers".into()).spawn(work).map(drop)
}

fn hear(socket: OwnedFd, answers: &mut impl Answers) {
    // The directory is closed to others; who is let in all the same by whoever may read everything is told nothing.
    let me = rustix::process::geteuid().as_raw();
    let known = nexus_sys::socket::peer(&socket).is_ok_and(|peer| peer.uid == me);
    if !known {
        return;
    }
    let socket = PacketSocket::from(socket);
    let Ok(wait) = Timespec::try_from(ASK_WAIT) else { return };
    if !matches!(poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&wait)), Ok(1..)) {
        return;
    }
    let Ok(packet) = socket.try_receive() else { return };
    // Whoever only looked who is there has closed by now.
    if packet.bytes().is_empty() {
        return;
    }
    let answer = match Question::decode(packet.bytes()) {
        Ok(question) => answers
            .answer(question)
            .and_then(|value| file(&value).map_err(|error| format!("the answer cannot be written: {error}"))),
        Err(error) => Err(error.to_string()),
    };
    // Who asked may be gone.
    let _ = match &answer {
        Ok((file, bytes)) => socket.try_send(&Answer::File { bytes: *bytes }.encode(), &[file.as_fd()]),
        Err(why) => {
            let why = Bounded::cut(why.as_bytes());
            socket.try_send(&Answer::None { why }.encode(), &[])
        }
    };
}

fn file(value: &serde_json::Value) -> std::io::Result<(OwnedFd, u64)> {
    let text = value.to_string();
    let bytes = text.len() as u64;
    if bytes > ANSWER_BYTES_MAX {
        return Err(Errno::FBIG.into());
    }
    let mut file = std::fs::File::from(rustix::fs::memfd_create("answer", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok((file.into(), bytes))
}
