//! Whether a thread whose call waits here is called away from it.
//!
//! Nothing tells a supervisor that a signal is pending for a thread that waits for it, so it has to look: proc_pid_status(5).
//! A call that gives way is answered with `ERESTARTSYS`, which only a thread that the kernel has marked for a signal turns
//! into a restart or `EINTR`; any other would see a number that is no errno. So it matters whom a signal will interrupt.

use nexus_abi::Errno;
use nexus_sys::procfs;
use std::{fs, io};

/// How a call gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// The thread is marked for a signal or a stop, or is gone: the kernel decides between restart and `EINTR`.
    Marked,
    /// A signal waits for the process and nothing says which of its threads is marked: `EINTR`, which is safe for all.
    Perhaps,
}

/// What /proc says of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    group: u32,
    state: char,
    own: u64,
    shared: u64,
    blocked: u64,
    ignored: u64,
}

/// proc_pid_status(5).
pub(crate) fn status(tid: u32) -> io::Result<String> {
    let text = procfs::read(tid, "status")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Status {
    /// `Ok(None)` where it is gone. An error says nothing of it: there may be no descriptor or memory to look with.
    fn of(text: io::Result<String>) -> io::Result<Option<Self>> {
        match text {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if [Errno::ENOENT, Errno::ESRCH].map(raw).contains(&error.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim());
        let bits = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            group: field("Tgid:")?.parse().ok()?,
            state: field("State:")?.chars().next()?,
            own: bits("SigPnd:")?,
            shared: bits("ShdPnd:")?,
            blocked: bits("SigBlk:")?,
            ignored: bits("SigIgn:")?,
        })
    }

    fn is_stopped(self) -> bool {
        self.state == 'T'
    }

    fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// `leader` is the status of the group's first thread, `stopped` whether another of its threads is stopped.
    fn away(self, is_leader: bool, leader: Self, stopped: bool) -> Option<Away> {
        let takes = |bits: u64| bits & !self.blocked & !self.ignored;
        // A stop marks every thread, and its process counts as stopped when the last one has noticed.
        if takes(self.own) != 0 || stopped {
            return Some(Away::Marked);
        }
        let shared = takes(self.shared);
        if is_leader {
            // The kernel gives a process's signal to the first thread if that does not block it (`complete_signal`).
            return (shared != 0).then_some(Away::Marked);
        }
        let others = if leader.is_dead() {
            shared
        } else {
            shared & leader.blocked
        };
        (others != 0).then_some(Away::Perhaps)
    }
}

fn raw(errno: Errno) -> Option<i32> {
    Some(errno.raw().into())
}

/// Looks whether this thread is called away; returns its process with how. Where that cannot be seen it is not: a call that gives way
/// for nothing ends with a number that is no errno.
pub(crate) fn look(tid: u32) -> Option<(u32, Away)> {
    look_by(tid, status)
}

fn look_by(tid: u32, say: impl Fn(u32) -> io::Result<String>) -> Option<(u32, Away)> {
    let Some(status) = Status::of(say(tid)).ok()? else {
        return Some((tid, Away::Marked));
    };
    let is_leader = status.group == tid;
    let leader = if is_leader {
        Some(status)
    } else {
        Status::of(say(status.group)).ok()?
    };
    let leader = leader.unwrap_or(Status {
        state: 'X',
        ..Status::default()
    });
    // Who stops a process is its first thread, unless that is the one that waits here.
    let stopped = if is_leader {
        another_is_stopped(tid, &say)
    } else {
        leader.is_stopped()
    };
    status.away(is_leader, leader, stopped).map(|away| (status.group, away))
}

fn another_is_stopped(leader: u32, say: impl Fn(u32) -> io::Result<String>) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{leader}/task")) else {
        return false;
    };
    let mut others = threads
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    others
        .find(|tid| *tid != leader)
        .and_then(|tid| Status::of(say(tid)).ok()?)
        .is_some_and(Status::is_stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALARM: u64 = 1 << 13;

    fn waiting() -> Status {
        Status {
            group: 1,
            state: 'D',
            ..Status::default()
        }
    }

    #[test]
    fn a_threads_own_signal_marks_it_unless_blocked_or_ignored() {
        let own = Status {
            own: ALARM,
            ..waiting()
        };
        assert_eq!(own.away(false, waiting(), false), Some(Away::Marked));
        assert_eq!(Status { blocked: ALARM, ..own }.away(false, waiting(), false), None);
        assert_eq!(Status { ignored: ALARM, ..own }.away(true, own, false), None);
    }

    #[test]
    fn a_processes_signal_marks_the_first_thread_and_no_other_that_waits() {
        let shared = Status {
            shared: ALARM,
            ..waiting()
        };
        assert_eq!(shared.away(true, shared, false), Some(Away::Marked));
        assert_eq!(shared.away(false, shared, false), None);
    }

    #[test]
    fn a_processes_signal_that_the_first_thread_does_not_take_may_be_anybodys() {
        let shared = Status {
            shared: ALARM,
            ..waiting()
        };
        assert_eq!(
            shared.away(
                false,
                Status {
                    blocked: ALARM,
                    ..shared
                },
                false
            ),
            Some(Away::Perhaps)
        );
        assert_eq!(
            shared.away(false, Status { state: 'Z', ..shared }, false),
            Some(Away::Perhaps)
        );
    }

    #[test]
    fn a_stop_marks_all() {
        assert_eq!(waiting().away(false, waiting(), true), Some(Away::Marked));
        assert_eq!(waiting().away(true, waiting(), false), None);
    }

    #[test]
    fn who_is_gone_is_called_away_and_who_cannot_be_looked_at_is_not() {
        use rustix::io::Errno;
        const OTHER: &str = "State:\tS\nTgid:\t9\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\n";
        let gone = [Errno::NOENT, Errno::SRCH];
        let unseen = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::INTR];
        for error in gone {
            assert_eq!(look_by(10, |_| Err(error.into())), Some((10, Away::Marked)));
            // Nor does the group's first thread, which is gone, take the place of the one that waits.
            let only_itself = |tid| if tid == 10 { Ok(OTHER.into()) } else { Err(error.into()) };
            assert_eq!(look_by(10, only_itself), None);
        }
        for error in unseen {
            assert_eq!(look_by(10, |_| Err(error.into())), None);
            let signal = OTHER.replace("ShdPnd:\t0", "ShdPnd:\t2000");
            let only_itself = |tid| {
                if tid == 10 {
                    Ok(signal.clone())
                } else {
                    Err(error.into())
                }
            };
            assert_eq!(look_by(10, only_itself), None);
        }
    }

    #[test]
    fn the_kernels_words_are_read_and_others_are_not() {
        let own = Status::of(status(std::process::id())).unwrap().unwrap();
        assert_eq!((own.group, own.own), (std::process::id(), 0));
        assert_eq!(Status::parse("State:\tR (running)\n"), None);
        assert_eq!(Status::parse(""), None);
    }
}
