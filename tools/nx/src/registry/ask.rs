//! Asking a session's supervisor.

use super::SESSIONS;
use super::facts::Facts;
use super::list::{Peer, connect, peer};
use super::publish::DIRECTORY;
use nexus_wire::packet::PacketSocket;
use nexus_wire::session::{Answer, Question};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take.
pub const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It ended.
    #[error("the session has ended")]
    Gone,
    /// It does not answer.
    #[error("the session's supervisor does not answer within {} s: it is stopped, or hangs", ANSWER_WAIT.as_secs())]
    Hung,
    /// It has no answer.
    #[error("the session's supervisor says: {0}")]
    Refused(String),
    /// It answered something else.
    #[error("the session's supervisor answers what this nx does not read: {0}")]
    Garbled(String),
    /// The kernel refused.
    #[error("the session's supervisor cannot be reached: {0}")]
    Kernel(#[from] Errno),
}

/// A question that was put.
struct Asked {
    socket: PacketSocket,
}

/// Asks a session, and waits for [`ANSWER_WAIT`] at most. The answer is what the supervisor wrote as one JSON object.
///
/// # Errors
/// [`AskError`].
pub fn ask(runtime: &Path, facts: &Facts, question: Question) -> Result<serde_json::Value, AskError> {
    let until = Instant::now() + ANSWER_WAIT;
    put(runtime, facts, question)?.answer(until)
}

/// Asks several at once: all of them together take [`ANSWER_WAIT`] at most, and one that hangs costs the others nothing. Each
/// costs a descriptor.
pub fn ask_all<'a>(
    runtime: &Path,
    sessions: impl Iterator<Item = &'a Facts>,
    question: Question,
) -> Vec<Result<serde_json::Value, AskError>> {
    let asked: Vec<_> = sessions.map(|facts| put(runtime, facts, question)).collect();
    let until = Instant::now() + ANSWER_WAIT;
    asked.into_iter().map(|asked| asked?.answer(until)).collect()
}

fn over(error: Errno) -> AskError {
    match error {
        Errno::PIPE | Errno::CONNRESET => AskError::Gone,
        other => AskError::Kernel(other),
    }
}

/// Puts a question, without waiting.
fn put(runtime: &Path, facts: &Facts, question: Question) -> Result<Asked, AskError> {
    let gone = |error| match error {
        Errno::NOENT | Errno::CONNREFUSED => AskError::Gone,
        other => AskError::Kernel(other),
    };
    let sessions = rustix::fs::openat(CWD, runtime.join(SESSIONS), DIRECTORY, Mode::empty()).map_err(gone)?;
    // A full queue means that it has taken nobody for a while.
    let socket = connect(sessions.as_fd(), &facts.session)
        .map_err(gone)?
        .ok_or(AskError::Hung)?;
    let peer = peer(socket.as_fd())?;
    if peer != Peer::this_user(facts.supervisor.pid) {
        return Err(AskError::Kernel(Errno::PERM));
    }
    let socket = PacketSocket::from(socket);
    socket.try_send(&question.encode(), &[]).map_err(over)?;
    Ok(Asked { socket })
}

impl Asked {
    fn answer(self, until: Instant) -> Result<serde_json::Value, AskError> {
        let socket = self.socket;
        let mut packet = loop {
            // Past the end too it is looked whether the answer is there.
            let left = until.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).map_err(|_| AskError::Hung)?;
            match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&wait)) {
                Ok(0) => return Err(AskError::Hung),
                Ok(_) => break socket.try_receive().map_err(over)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if packet.bytes().is_empty() {
            return Err(AskError::Gone);
        }
        let answer = Answer::decode(packet.bytes()).map_err(|error| AskError::Garbled(error.to_string()))?;
        match (answer, packet.descriptors.pop()) {
            (Answer::File { bytes }, Some(file)) => read(&file, bytes),
            (Answer::None { why }, _) => Err(AskError::Refused(String::from_utf8_lossy(why.as_bytes()).into_owned())),
            (Answer::File { .. }, None) => Err(AskError::Garbled("no file came along".to_owned())),
        }
    }
}

fn read(file: &OwnedFd, bytes: u64) -> Result<serde_json::Value, AskError> {
    let short = || AskError::Garbled("its answer is shorter than it says".to_owned());
    let length = usize::try_from(bytes).map_err(|_| short())?;
    let mut text = vec![0; length];
    let mut rest = text.as_mut_slice();
    let mut at = 0_u64;
    while !rest.is_empty() {
        match rustix::io::pread(file, &mut *rest, at) {
            Ok(0) => return Err(short()),
            Ok(count) => {
                rest = rest.get_mut(count..).unwrap_or_default();
                at = at.saturating_add(count as u64);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    serde_json::from_slice(&text).map_err(|error| AskError::Garbled(error.to_string()))
}
