//! Who runs.

use super::facts::{FACTS_BYTES_MAX, FACTS_VERSION, Facts};
use super::kernel::{self, Process, ProcessState, Status};
use super::left::{Left, clear_unfinished, left};
use super::publish::{DIRECTORY, address, facts_name, is_bound_under, remove, unfinished_name};
use super::{FACTS, NEW, SESSIONS};
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How many entries are looked at; a machine that runs more than this many sessions of one user has other troubles.
pub const SESSIONS_MAX: usize = 16_384;

/// The running sessions, by subject and then by session.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sessions that the kernel vouches for.
    pub live: Vec<Live>,
    /// Entries of which nothing certain can be said, by name.
    pub troubles: Vec<Trouble>,
}

/// A running session.
#[derive(Clone, Debug)]
pub struct Live {
    /// What does not change.
    pub facts: Facts,
    /// The supervisor is stopped: it will not answer, and neither is any call of the program that has to be judged.
    pub stopped: bool,
    /// The program, as the kernel has it; `None` if it has ended or the kernel does not say.
    pub program: Option<Program>,
}

/// A session's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number in the reader's pid namespace.
    pub pid: i32,
    /// Its name for ps(1), which it may choose itself.
    pub name: String,
    /// Who it runs as.
    pub uid: u32,
    /// Whether a filter is on; `None` if the kernel does not say.
    pub filtered: Option<bool>,
    /// How many filters are on, where the kernel says (Linux 5.9).
    pub filters: Option<u32>,
    /// Whether it can gain privileges by executing a program: it must not.
    pub no_new_privs: Option<bool>,
    /// Whether it lives in a pid namespace of its own.
    pub nested: bool,
    /// Whether it is stopped.
    pub stopped: bool,
}

/// An entry of which nothing certain can be said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The session's name.
    pub session: String,
    /// What is wrong.
    pub why: String,
}

/// What became of an entry.
enum Seen {
    Live(Box<Live>),
    /// Nothing of it lives, and whoever finds that removes it.
    Gone,
    /// It begins or ends right now, and its supervisor sees to its entry.
    Passing,
    Trouble(String),
}

impl From<Left> for Seen {
    fn from(left: Left) -> Self {
        match left {
            Left::Nothing => Self::Gone,
            Left::Passing => Self::Passing,
            Left::Doubt(why) => Self::Trouble(why),
        }
    }
}

/// Looks at every entry of the runtime directory. Waits for nobody. A directory that is not there holds no session.
///
/// # Errors
/// The directory cannot be read, or is not the caller's alone.
pub fn list(runtime: &Path) -> io::Result<Listing> {
    let sessions = match rustix::fs::openat(CWD, runtime.join(SESSIONS), DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Listing::default()),
        other => other?,
    };
    let stat = rustix::fs::fstat(&sessions)?;
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me || stat.st_mode & 0o077 != 0 {
        let why = format!(
            "`{}` is not the caller's alone (uid {}, mode {:o})",
            runtime.join(SESSIONS).display(),
            stat.st_uid,
            stat.st_mode & 0o7777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut out = Listing::default();
    let names = names(&sessions)?;
    if names.cut || names.sessions.len() > SESSIONS_MAX {
        out.troubles.push(Trouble {
            session: "…".to_owned(),
            why: format!(
                "there are more than {SESSIONS_MAX} entries or what was left of them, and no more are looked at"
            ),
        });
    }
    for name in names.unfinished.into_iter().take(SESSIONS_MAX) {
        clear_unfinished(sessions.as_fd(), &name);
    }
    let mut looked: Vec<String> = names.sessions;
    looked.truncate(SESSIONS_MAX);
    let seen = look_at_all(sessions.as_fd(), &looked);
    for (name, seen) in looked.into_iter().zip(seen) {
        match seen {
            Seen::Live(live) => out.live.push(*live),
            Seen::Gone => {
                remove(sessions.as_fd(), &name);
                // It may have been killed while it exchanged its facts.
                remove(sessions.as_fd(), &unfinished_name(&name));
            }
            Seen::Passing => {}
            Seen::Trouble(why) => out.troubles.push(Trouble { session: name, why }),
        }
    }
    out.live
        .sort_by(|a, b| (&a.facts.subject, &a.facts.session).cmp(&(&b.facts.subject, &b.facts.session)));
    out.troubles.sort();
    Ok(out)
}

/// What lies in the directory.
#[derive(Default)]
struct Names {
    sessions: Vec<String>,
    /// Files that somebody began and did not give their name.
    unfinished: Vec<String>,
    /// There is more, which was not read.
    cut: bool,
}

fn names(sessions: &OwnedFd) -> io::Result<Names> {
    let mut names = Names::default();
    let mut facts = BTreeSet::new();
    let mut space = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(sessions, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(NEW) {
            names.unfinished.push(name);
        } else if name.ends_with(FACTS) {
            facts.insert(name);
        } else if name != "." && name != ".." {
            names.sessions.push(name);
        }
        if names.sessions.len() > SESSIONS_MAX || names.unfinished.len().max(facts.len()) > 2 * SESSIONS_MAX {
            names.cut = true;
            return Ok(names);
        }
    }
    for session in &names.sessions {
        facts.remove(&facts_name(session));
    }
    // Facts without a socket: what became of their session, the kernel is asked.
    let alone = facts.iter().filter_map(|name| name.strip_suffix(FACTS));
    names.sessions.extend(alone.map(str::to_owned));
    Ok(names)
}

/// How many entries a thread looks at: to look at one costs some seventy microseconds, most of it the kernel's, and a thread about as
/// much as one.
const ENTRIES_PER_THREAD: usize = 64;

/// How many threads look at most, each for a descriptor or two at a time.
const THREADS_MAX: usize = 4;

/// Looks at each, in their order: where there are many, on several processors.
fn look_at_all(sessions: BorrowedFd<'_>, names: &[String]) -> Vec<Seen> {
    let look_at = |names: &[String]| -> Vec<Seen> { names.iter().map(|name| look(sessions, name)).collect() };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = names
        .len()
        .div_ceil(ENTRIES_PER_THREAD)
        .min(processors)
        .min(THREADS_MAX);
    if threads < 2 {
        return look_at(names);
    }
    let mut parts = names.chunks(names.len().div_ceil(threads));
    let mine = parts.next().unwrap_or_default();
    std::thread::scope(|scope| {
        // Where no thread is to be had, this one looks.
        let others: Vec<_> = parts
            .map(|part| {
                let begun = std::thread::Builder::new().spawn_scoped(scope, move || look_at(part));
                (part, begun)
            })
            .collect();
        let mut seen = look_at(mine);
        for (part, begun) in others {
            let looked = begun.ok().and_then(|thread| thread.join().ok());
            seen.extend(looked.unwrap_or_else(|| look_at(part)));
        }
        seen
    })
}

fn look(sessions: BorrowedFd<'_>, name: &str) -> Seen {
    let peer = match knock(sessions, name) {
        Ok(peer) => peer,
        // The kernel's word for whatever is no socket, too.
        Err(Errno::CONNREFUSED) if !is_socket(sessions, name) => return Seen::Trouble("it is no socket".to_owned()),
        Err(error @ (Errno::CONNREFUSED | Errno::NOENT)) => return unheard(sessions, name, error),
        Err(error) => return Seen::Trouble(format!("its socket cannot be reached: {error}")),
    };
    // It may have ended between two looks.
    let again = |why| match knock(sessions, name) {
        Err(error @ (Errno::CONNREFUSED | Errno::NOENT)) => unheard(sessions, name, error),
        _ => Seen::Trouble(why),
    };
    match read_facts(sessions, name) {
        Ok(facts) => vouch(name, facts, peer).unwrap_or_else(again),
        Err(why) => again(why),
    }
}

/// Nobody listens any more, or there is no socket.
fn unheard(sessions: BorrowedFd<'_>, name: &str, error: Errno) -> Seen {
    left(sessions, name, error == Errno::CONNREFUSED).into()
}

/// Whether a name is no longer there.
pub(super) fn removed(sessions: BorrowedFd<'_>, name: &str) -> bool {
    let looked = rustix::fs::statat(sessions, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    matches!(looked, Err(Errno::NOENT))
}

/// Whether it is a socket, or already gone.
fn is_socket(sessions: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(sessions, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_or(true, |stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
    })
}

/// Who listens: connect(2) to a Unix socket is done once the connection is queued, whatever the other side does.
/// `Ok(None)` if somebody does whose queue is full.
fn knock(sessions: BorrowedFd<'_>, name: &str) -> Result<Option<Listens>, Errno> {
    let Some(socket) = connect(sessions, name)? else {
        return Ok(None);
    };
    let peer = peer(socket.as_fd())?;
    if peer.uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    Ok(Some(Listens { pid: peer.pid, socket }))
}

/// Who listens at an entry.
struct Listens {
    pid: i32,
    /// Connected to it: the kernel tells what it was bound to.
    socket: OwnedFd,
}

/// Who a socket's other end is, by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) pid: i32,
    pub(super) uid: u32,
}

impl Peer {
    /// A process of the caller's own user.
    pub(super) fn this_user(pid: i32) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self { pid, uid }
    }
}

/// `SO_PEERCRED`, unix(7): who listened, as of then.
pub(super) fn peer(socket: BorrowedFd<'_>) -> Result<Peer, Errno> {
    let peer = nexus_sys::socket::peer(socket).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Peer {
        pid: peer.pid,
        uid: peer.uid,
    })
}

/// Connects without waiting; `None` if the queue is full.
pub(super) fn connect(sessions: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match rustix::net::connect(&socket, &address(sessions, name)?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What stands in a session's facts.
pub(super) fn read_bytes(sessions: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(sessions, facts_name(name), flags, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::from(file)
        .take(FACTS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(bytes)
}

fn read_facts(sessions: BorrowedFd<'_>, name: &str) -> Result<Facts, String> {
    let bytes = read_bytes(sessions, name).map_err(|error| format!("its facts cannot be read: {error}"))?;
    match serde_json::from_slice::<Facts>(&bytes) {
        Ok(facts) if facts.version == FACTS_VERSION => Ok(facts),
        _ => Err(match version(&bytes) {
            Some(version) if version != u64::from(FACTS_VERSION) => format!(
                "another version of nx started it: its facts are of version {version}, this nx reads {FACTS_VERSION}"
            ),
            _ => "its facts are damaged".to_owned(),
        }),
    }
}

fn version(bytes: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(bytes)
        .ok()?
        .get("version")?
        .as_u64()
}

/// Holds the facts to what the kernel says.
fn vouch(name: &str, facts: Facts, peer: Option<Listens>) -> Result<Seen, String> {
    if facts.session != name {
        return Err("its facts are another session's".to_owned());
    }
    let supervisor = Process::of(facts.supervisor.pid).map_err(|error| format!("its supervisor is hidden: {error}"))?;
    if !supervisor.is(facts.supervisor) || peer.as_ref().is_some_and(|peer| peer.pid != facts.supervisor.pid) {
        return Err("who listens is not the supervisor that its facts name".to_owned());
    }
    // Of one whose queue is full, which is stopped or hangs, the kernel tells nothing.
    if let Some(peer) = &peer {
        let seal = facts
            .seal()
            .map_err(|error| format!("its facts cannot be compared: {error}"))?;
        match is_bound_under(peer.socket.as_fd(), name, &seal) {
            Ok(true) => {}
            Ok(false) => {
                return Err("its facts are not those that its supervisor gave: somebody changed them".to_owned());
            }
            Err(error) => {
                return Err(format!(
                    "the kernel does not say which facts its supervisor gave: {error}"
                ));
            }
        }
    }
    let live = |program| {
        Seen::Live(Box::new(Live {
            stopped: supervisor.state == ProcessState::Stopped,
            program,
            facts: facts.clone(),
        }))
    };
    let Ok(init) = Process::of(facts.init.pid) else {
        // The program has ended; the supervisor writes the last records.
        return Ok(live(None));
    };
    if !init.is(facts.init) {
        return Ok(live(None));
    }
    if init.parent != facts.front.pid || supervisor.parent != facts.front.pid {
        return Err("init and supervisor are not of one session".to_owned());
    }
    let program = kernel::first_child(facts.init.pid)
        .ok()
        .flatten()
        .and_then(|pid| program(pid, facts.init.pid));
    Ok(live(program))
}

fn program(pid: i32, init: i32) -> Option<Program> {
    let status = Status::of(pid).ok().filter(|status| status.parent == init)?;
    if status.state == ProcessState::Zombie {
        return None;
    }
    Some(Program {
        pid,
        name: status.name,
        uid: status.uid,
        filtered: status.seccomp.map(|mode| mode == 2),
        filters: status.filters,
        no_new_privs: status.no_new_privs,
        nested: status.nested,
        stopped: status.state == ProcessState::Stopped,
    })
}
