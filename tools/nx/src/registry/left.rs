//! What is to be said of an entry at which nobody listens.
//!
//! That nobody listens says that the supervisor is gone, or that somebody removed its socket; not that the program ended. The
//! kernel is asked for the first process that the facts name, with which everything of the session ends.

use super::SESSIONS;
use super::facts::{Facts, Named, ProcessFact};
use super::kernel::{Process, ProcessState, Status};
use super::list::{connect, read_bytes, removed};
use super::publish::{bound_name, facts_name, unfinished_name};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

/// What is left of a session at whose entry nobody listens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing of it lives: the entry is left over.
    Nothing,
    /// It begins or ends right now: the entry is its supervisor's.
    Passing,
    /// Something of it lives, or nobody knows.
    Doubt(String),
}

/// How a process that a fact names fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Lives(ProcessState),
    Ended,
    /// There is one of that number, of which `/proc` does not tell.
    Hidden,
}

/// How the process fares that was started at that time. A process of another user is another: that of a session is `user`'s,
/// or not yet.
fn life(fact: ProcessFact, user: u32) -> Life {
    // In this order: if it is the very process at the second look, it was at the first.
    let status = Status::of(fact.pid);
    match Process::of(fact.pid) {
        Ok(process) if !process.is(fact) => Life::Ended,
        Ok(process) => match status {
            Ok(status) if status.uid != user && status.uid != rustix::process::geteuid().as_raw() => Life::Ended,
            _ => Life::Lives(process.state),
        },
        Err(_) if is_there(fact.pid) => Life::Hidden,
        Err(_) => Life::Ended,
    }
}

/// Whether there is a process of that number, also where `/proc` hides it (`hidepid`, proc(5)). kill(2)
fn is_there(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
}

/// What is left where nobody listens at the socket (`there`), or where there is none.
pub(super) fn left(sessions: BorrowedFd<'_>, name: &str, there: bool) -> Left {
    let bytes = match read_bytes(sessions, name) {
        Ok(bytes) => bytes,
        // The socket goes before the facts.
        Err(Errno::NOENT) if removed(sessions, name) => return Left::Nothing,
        Err(Errno::NOENT) => return unknown(sessions, name, "its facts are gone"),
        Err(error) => return unknown(sessions, name, &format!("its facts cannot be read: {error}")),
    };
    let Ok(named) = serde_json::from_slice::<Named>(&bytes) else {
        return match removed(sessions, &facts_name(name)) {
            true => Left::Nothing,
            false => unknown(sessions, name, "its facts are damaged"),
        };
    };
    let supervisor = life(named.supervisor, rustix::process::geteuid().as_raw());
    match (life(named.init, named.uid), supervisor) {
        // It writes its last records, or gives up.
        (Life::Ended, Life::Lives(_)) => Left::Passing,
        (Life::Ended, _) => Left::Nothing,
        _ if !there && is_passing(sessions, name, &bytes) => Left::Passing,
        (Life::Hidden, _) => Left::Doubt(format!(
            "nobody listens at its socket, and `/proc` hides whether its first process (pid {}) still runs",
            named.init.pid
        )),
        (Life::Lives(_), supervisor) => Left::Doubt(lives_on(&named, supervisor, there)),
    }
}

/// Whether somebody is in the middle of making the entry, or of removing it: the facts have their name before the socket has
/// its own, and a socket that is given up has another before the facts are gone. Each look is later than the one above it.
fn is_passing(sessions: BorrowedFd<'_>, name: &str, facts: &[u8]) -> bool {
    let there = |name: &str| !removed(sessions, name);
    // Another version's seal is not known; that it begins in this very moment is told as a doubt then.
    let seal = serde_json::from_slice::<Facts>(facts)
        .ok()
        .and_then(|facts| facts.seal().ok());
    seal.is_some_and(|seal| there(&bound_name(name, &seal)))
        || there(name)
        || there(&unfinished_name(name))
        || !there(&facts_name(name))
}

fn lives_on(named: &Named, supervisor: Life, there: bool) -> String {
    let init = named.init.pid;
    let socket = if there {
        "nobody listens at its socket"
    } else {
        "its socket is gone"
    };
    let (who, what) = match supervisor {
        Life::Ended => (
            "its supervisor has ended".to_owned(),
            "its program may run on with what needs nobody's judgement, and nobody is there to say what that is",
        ),
        _ => (
            format!("its supervisor (pid {}) lives", named.supervisor.pid),
            "its program may run on, and nobody can ask what holds it",
        ),
    };
    let next = match life(named.front, rustix::process::geteuid().as_raw()) {
        Life::Lives(ProcessState::Stopped) => format!(
            "its `nx run` (pid {front}) is stopped: `kill -CONT {front}` lets it go on",
            front = named.front.pid
        ),
        Life::Lives(_) => format!("`kill -TERM {}` asks its `nx run` to end it", named.front.pid),
        _ => format!("`kill -KILL {init}` ends all of it"),
    };
    format!(
        "{socket}, {who}, and its first process (pid {init}) lives on: {what}. Its facts, for which nobody vouches, name subject \
         `{}`; {next}",
        named.subject
    )
}

/// Nothing says which processes were its own. None of them is older than the machine's start.
fn unknown(sessions: BorrowedFd<'_>, name: &str, why: &str) -> Left {
    let made = |name: &str| rustix::fs::statat(sessions, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ctime);
    let made = made(name).or_else(|_| made(&facts_name(name)));
    match (made, booted()) {
        (Err(Errno::NOENT), _) => Left::Nothing,
        (Ok(made), Some(booted)) if made < booted => Left::Nothing,
        _ => Left::Doubt(format!(
            "nobody listens at its socket, and {why}: whether its program still runs is not known; where it does not, remove \
             `{SESSIONS}/{name}` and `{SESSIONS}/{}` of the runtime directory",
            facts_name(name)
        )),
    }
}

/// When the machine started, in seconds since 1970 as its clock has it now. clock_gettime(2)
fn booted() -> Option<i64> {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(now.as_secs()).ok()?.checked_sub(up)
}

/// After how long a file that is still being made was given up by who made it: making one takes less than a millisecond.
const MAKING: Duration = Duration::from_secs(60);

/// Removes a file that is older than any that is still being made, and of whose session nothing lives.
pub(super) fn clear_unfinished(sessions: BorrowedFd<'_>, name: &str) {
    let Ok(stat) = rustix::fs::statat(sessions, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return;
    };
    let old = u64::try_from(stat.st_mtime)
        .ok()
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .and_then(|made| SystemTime::now().duration_since(made).ok());
    if old.is_none_or(|age| age <= MAKING) {
        return;
    }
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    // Stopped in the middle of it, and alive.
    let lives = is_socket && !matches!(connect(sessions, name), Err(Errno::CONNREFUSED | Errno::NOENT));
    if !lives {
        let _ = rustix::fs::unlinkat(sessions, name, AtFlags::empty());
    }
}
