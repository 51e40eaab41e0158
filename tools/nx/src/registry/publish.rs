//! Making a session known.

use super::facts::Facts;
use super::{FACTS, FACTS_NEW, NEW, SESSIONS, SOCKET};
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

/// An address that fits `sun_path` however long the path is. unix(7)
pub(crate) fn address(entry: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", entry.as_raw_fd()))
}

pub(crate) fn socket() -> Result<OwnedFd, Errno> {
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
    let new = format!("{NEW}{}", facts.session);
    rustix::fs::mkdirat(&sessions, &new, Mode::RWXU)?;
    let made = fill(sessions.as_fd(), &new, facts);
    let renamed = made.and_then(|socket| {
        rustix::fs::renameat_with(&sessions, &new, &sessions, &facts.session, RenameFlags::NOREPLACE)?;
        Ok(socket)
    });
    match renamed {
        Ok(socket) => {
            let name = facts.session.clone();
            Ok((Entry { sessions, name }, Listener { socket }))
        }
        Err(error) => {
            remove(sessions.as_fd(), &new);
            Err(error)
        }
    }
}

fn fill(sessions: BorrowedFd<'_>, new: &str, facts: &Facts) -> io::Result<OwnedFd> {
    let entry = rustix::fs::openat(sessions, new, DIRECTORY, Mode::empty())?;
    let listener = socket()?;
    rustix::net::bind(&listener, &address(entry.as_fd())?)?;
    rustix::net::listen(&listener, BACKLOG)?;
    write(entry.as_fd(), FACTS, facts)?;
    Ok(listener)
}

fn write(entry: BorrowedFd<'_>, name: &str, facts: &Facts) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(entry, name, flags, Mode::RUSR | Mode::WUSR)?;
    let text = serde_json::to_vec(facts).map_err(io::Error::other)?;
    std::fs::File::from(file).write_all(&text)
}

impl Entry {
    /// Puts other facts of the same session in the place of those that are there, at once.
    ///
    /// # Errors
    /// What the file system says; the facts that were there stay.
    pub fn replace(&self, facts: &Facts) -> io::Result<()> {
        let entry = rustix::fs::openat(&self.sessions, &self.name, DIRECTORY, Mode::empty())?;
        write(entry.as_fd(), FACTS_NEW, facts)?;
        Ok(rustix::fs::renameat(&entry, FACTS_NEW, &entry, FACTS)?)
    }
}

/// Removes an entry, whose files are known by name: what else somebody put there stays, and the directory with it.
pub(crate) fn remove(sessions: BorrowedFd<'_>, name: &str) {
    if let Ok(entry) = rustix::fs::openat(sessions, name, DIRECTORY, Mode::empty()) {
        for file in [FACTS, FACTS_NEW, SOCKET] {
            // What is left over is found again by the next reader.
            let _ = rustix::fs::unlinkat(&entry, file, AtFlags::empty());
        }
    }
    let _ = rustix::fs::unlinkat(sessions, name, AtFlags::REMOVEDIR);
}

impl Drop for Entry {
    fn drop(&mut self) {
        remove(self.sessions.as_fd(), &self.name);
    }
}
