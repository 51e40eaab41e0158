//! Making a session known.

use super::facts::Facts;
use super::left::{Left, left};
use super::list::removed;
use super::{FACTS, NEW, SESSIONS};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How many questions may wait for the supervisor; one that comes later is told that it is busy.
const BACKLOG: i32 = 128;

/// An entry; removed when this is dropped. What a killed session leaves, whoever finds it removes.
#[derive(Debug)]
pub struct Entry {
    sessions: OwnedFd,
    name: String,
}

/// Where questions arrive.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The address of a name in a directory, which fits `sun_path` however long the path is. unix(7)
pub(crate) fn address(sessions: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", sessions.as_raw_fd()))
}

/// What an entry's socket is called that is about to be removed.
pub(super) fn unfinished_name(session: &str) -> String {
    format!("{NEW}{session}")
}

/// What the file of a session's facts is called.
pub(crate) fn facts_name(session: &str) -> String {
    format!("{session}{FACTS}")
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Makes the entry `sessions/ID` in the runtime directory: whoever sees it finds a socket that listens and whole facts.
///
/// # Errors
/// What the file system says; `EEXIST` for an id that is taken.
pub fn publish(runtime: &Path, facts: &Facts) -> io::Result<(Entry, Listener)> {
    use std::os::unix::fs::DirBuilderExt;
    let base = runtime.join(SESSIONS);
    let sessions = match rustix::fs::openat(CWD, &base, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&base)?;
            rustix::fs::openat(CWD, &base, DIRECTORY, Mode::empty())?
        }
        other => other?,
    };
    let new = unfinished_name(&facts.session);
    let bound = bound_name(&facts.session, &facts.seal()?);
    let made = fill(sessions.as_fd(), &new, &bound, facts).and_then(|socket| {
        let keep = RenameFlags::NOREPLACE;
        let text = facts_name(&facts.session);
        rustix::fs::renameat_with(&sessions, facts_name(&new), &sessions, &text, keep)?;
        // Last: it is the socket that makes an entry.
        if let Err(error) = rustix::fs::renameat_with(&sessions, &bound, &sessions, &facts.session, keep) {
            let _ = rustix::fs::unlinkat(&sessions, &text, AtFlags::empty());
            return Err(error.into());
        }
        Ok(socket)
    });
    match made {
        Ok(socket) => {
            let name = facts.session.clone();
            Ok((Entry { sessions, name }, Listener { socket }))
        }
        Err(error) => {
            remove(sessions.as_fd(), &new);
            let _ = rustix::fs::unlinkat(&sessions, &bound, AtFlags::empty());
            Err(error)
        }
    }
}

/// The name that a session's socket is bound to, and has until it is given its own. The kernel goes on telling it to whoever
/// connects, whatever the file is called by then.
pub(super) fn bound_name(session: &str, seal: &str) -> String {
    format!("{NEW}{session}-{seal}")
}

/// Whether a connected socket's other end was bound under this seal. getpeername(2), unix(7).
pub(crate) fn is_bound_under(socket: BorrowedFd<'_>, session: &str, seal: &str) -> Result<bool, Errno> {
    let address = rustix::net::getpeername(socket)?;
    let Some(Ok(address)) = address.map(SocketAddrUnix::try_from) else {
        return Ok(false);
    };
    let name = bound_name(session, seal);
    // Before it stands which descriptor the directory had there.
    let last = address
        .path_bytes()
        .and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    Ok(last == Some(name.as_bytes()))
}

fn fill(sessions: BorrowedFd<'_>, new: &str, bound: &str, facts: &Facts) -> io::Result<OwnedFd> {
    let listener = socket()?;
    rustix::net::bind(&listener, &address(sessions, bound)?)?;
    rustix::net::listen(&listener, BACKLOG)?;
    write(sessions, &facts_name(new), facts)?;
    Ok(listener)
}

fn write(sessions: BorrowedFd<'_>, name: &str, facts: &Facts) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(sessions, name, flags, Mode::RUSR | Mode::WUSR)?;
    let text = serde_json::to_vec(facts).map_err(io::Error::other)?;
    std::fs::File::from(file).write_all(&text)
}

impl Entry {
    /// Puts other facts of the same session in the place of those that are there, at once.
    ///
    /// # Errors
    /// What the file system says; the facts that were there stay.
    pub fn replace(&self, facts: &Facts) -> io::Result<()> {
        let (new, text) = (facts_name(&format!("{NEW}{}", self.name)), facts_name(&self.name));
        if let Err(error) = write(self.sessions.as_fd(), &new, facts) {
            let _ = rustix::fs::unlinkat(&self.sessions, &new, AtFlags::empty());
            return Err(error);
        }
        // A rename over a file makes ext4 write the new one to the disk at once (`auto_da_alloc`, ext4(5)), and who removes
        // the entry then waits for the disk. Nobody wants these facts after a crash.
        match rustix::fs::renameat_with(&self.sessions, &new, &self.sessions, &text, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(&self.sessions, &new, &self.sessions, &text)?,
            exchanged => {
                exchanged?;
                rustix::fs::unlinkat(&self.sessions, &new, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// Removes what a supervisor that was killed left of its session, also in the middle of making it known; not where something
/// of the session lives.
pub fn clear(runtime: &Path, session: &str) {
    let Ok(sessions) = rustix::fs::openat(CWD, runtime.join(SESSIONS), DIRECTORY, Mode::empty()) else {
        return;
    };
    if !removed(sessions.as_fd(), session) && left(sessions.as_fd(), session, true) == Left::Nothing {
        remove(sessions.as_fd(), session);
    }
    remove(sessions.as_fd(), &unfinished_name(session));
}

/// Removes an entry of which nothing lives, or what was to become one.
pub(crate) fn remove(sessions: BorrowedFd<'_>, name: &str) {
    // What is left over is found again by the next reader.
    let _ = rustix::fs::unlinkat(sessions, name, AtFlags::empty());
    let _ = rustix::fs::unlinkat(sessions, facts_name(name), AtFlags::empty());
}

impl Drop for Entry {
    /// The socket goes first: a reader that still sees it finds facts. It has another name until they are gone, so that a reader
    /// that finds facts alone knows that the session's end removes them, and not somebody else its socket.
    fn drop(&mut self) {
        let (sessions, name) = (self.sessions.as_fd(), self.name.as_str());
        let aside = unfinished_name(name);
        let _ = rustix::fs::renameat(sessions, name, sessions, &aside);
        remove(sessions, name);
        let _ = rustix::fs::unlinkat(sessions, &aside, AtFlags::empty());
    }
}
