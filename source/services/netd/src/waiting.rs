//! Threads that wait at a socket that moved.
//!
//! A call knows the file, not the number: one that began before the move would wait for what comes to the old socket. It is made to
//! begin anew, and then finds the new one under the same number.

use crate::caller::Caller;
use nexus_abi::syscall;
use nexus_sys::ptrace;
use rustix::fs::{CWD, Dir, Mode, OFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many threads of a program are looked at: more hardly wait at its sockets.
const THREADS_MAX: usize = 1024;

/// How many programs have moves that wait to be followed up, by one thread.
const PROGRAMS_MAX: usize = 64;

/// How many numbers of one's sockets: as many as descriptors there may be, at most.
const NUMBERS_MAX: usize = 65536;

/// Until a call that had the old file before the move waits at it.
const PAUSE: Duration = Duration::from_millis(2);

/// Looking at a program's threads takes its time, and a program may ask for it all the time: before the next look is this many times as much.
const LOOK_SHARE: u32 = 4;

/// `45 0x3 …` and eight numbers more at most, proc_pid_syscall(5).
const LINE_BYTES_MAX: u64 = 256;

const STACK_BYTES: usize = 64 * 1024;

/// A program of which sockets moved.
#[derive(Debug)]
struct Moved {
    /// Its threads: these, whoever gets their numbers later.
    tasks: OwnedFd,
    /// The sockets' numbers, and which thread's call moved each last: what that one does at it afterwards, it does at the new one.
    numbers: BTreeMap<u32, u32>,
    /// Which threads began anew.
    known: BTreeSet<u32>,
}

#[derive(Debug)]
struct Pending {
    /// By the process's number, which is looked at no more.
    moves: BTreeMap<u32, Moved>,
    /// Whether somebody takes them.
    followed: bool,
}

static PENDING: Mutex<Pending> = Mutex::new(Pending {
    moves: BTreeMap::new(),
    followed: false,
});

/// Makes the threads of the caller's process that wait at one of these numbers look at them again; nobody waits for that. Of more than
/// [`PROGRAMS_MAX`] at once they wait on.
pub(crate) fn look_again(caller: &Caller<'_>, numbers: &[u32]) {
    let own = caller.tid();
    // A link for each thread and two more, proc_pid_task(5).
    let alone = std::fs::metadata(format!("/proc/{own}/task")).is_ok_and(|tasks| tasks.nlink() <= 3);
    if alone {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(process) = caller.process() else { return };
    let tasks = rustix::fs::openat(CWD, format!("/proc/{process}/task"), flags, Mode::empty());
    let (Ok(tasks), Ok(())) = (tasks, caller.still()) else {
        return;
    };
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    if pending.moves.len() >= PROGRAMS_MAX && !pending.moves.contains_key(&process) {
        return;
    }
    let moved = pending.moves.entry(process).or_insert(Moved {
        tasks,
        numbers: BTreeMap::new(),
        known: BTreeSet::new(),
    });
    if moved.numbers.len().saturating_add(numbers.len()) <= NUMBERS_MAX {
        moved.numbers.extend(numbers.iter().map(|number| (*number, own)));
    }
    if !pending.followed {
        let thread = thread::Builder::new().name("look-again".into()).stack_size(STACK_BYTES);
        pending.followed = thread.spawn(follow).is_ok();
        if !pending.followed {
            pending.moves.clear();
        }
    }
}

/// Until no move is left.
fn follow() {
    loop {
        let mut moves = {
            let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
            pending.followed = !pending.moves.is_empty();
            if !pending.followed {
                return;
            }
            std::mem::take(&mut pending.moves)
        };
        let mut took = Duration::ZERO;
        for pause in [Duration::ZERO, PAUSE] {
            thread::sleep(pause);
            let start = Instant::now();
            moves.values_mut().for_each(Moved::wake);
            took = took.saturating_add(start.elapsed());
        }
        thread::sleep(took.saturating_mul(LOOK_SHARE));
    }
}

impl Moved {
    /// Makes those that wait, and are not known yet, look again; they are known then.
    fn wake(&mut self) {
        let Ok(entries) = Dir::read_from(&self.tasks) else {
            return;
        };
        let threads = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        for thread in threads.take(THREADS_MAX) {
            if !self.known.contains(&thread) && self.waits(thread) {
                // Looked at once more, since the number may be another thread's by now. Without a thread for it, it waits on.
                if ptrace::begin_anew(thread, || self.waits(thread)).unwrap_or(false) {
                    self.known.insert(thread);
                }
            }
        }
    }

    fn waits(&self, thread: u32) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut line = String::new();
        rustix::fs::openat(&self.tasks, format!("{thread}/syscall"), flags, Mode::empty())
            .is_ok_and(|file| File::from(file).take(LINE_BYTES_MAX).read_to_string(&mut line).is_ok())
            && waits_at(&line, thread, &self.numbers)
    }
}

/// What begins anew with the same arguments and looks at its numbers then. epoll_wait(2) does not: its registrations are moved.
const AT_ONE: [&str; 7] = ["recvfrom", "recvmsg", "recvmmsg", "read", "readv", "preadv2", "splice"];
/// `restart_syscall` is a poll that was interrupted before, or a sleep, which loses nothing by it.
const AT_MANY: [&str; 5] = ["poll", "ppoll", "select", "pselect6", "restart_syscall"];

/// `45 0x3 0x7ffc… 0x9 0x0 0x0 0x0 0x7ffc… 0x7f1b…`, proc_pid_syscall(5): of a thread that runs there is no number.
fn waits_at(call: &str, thread: u32, numbers: &BTreeMap<u32, u32>) -> bool {
    let mut words = call.split_ascii_whitespace();
    let Some(name) = words.next().and_then(|word| word.parse().ok()).and_then(syscall::name) else {
        return false;
    };
    let first = words
        .next()
        .and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let at_one = || {
        let number = first.and_then(|register| u32::try_from(crate::int(register)).ok());
        let mover = number.and_then(|number| numbers.get(&number));
        mover.is_some_and(|mover| *mover != thread)
    };
    let at_many = || numbers.values().any(|mover| *mover != thread);
    (AT_MANY.contains(&name) && at_many()) || (AT_ONE.contains(&name) && at_one())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, first: u64) -> String {
        format!(
            "{} {first:#x} 0x7ffc 0x9 0x0 0x0 0x0 0x7ffc 0x7f1b\n",
            syscall::number(name).unwrap()
        )
    }

    fn at(call: &str, numbers: &[u32]) -> bool {
        waits_at(call, 7, &numbers.iter().map(|number| (*number, 8)).collect())
    }

    #[test]
    fn who_moved_a_socket_is_at_the_new_one_and_may_be_at_an_old_one_of_another() {
        let moved = BTreeMap::from([(3, 7), (4, 8)]);
        for (number, thread, waits) in [(3, 7, false), (3, 8, true), (4, 7, true), (4, 8, false), (4, 9, true)] {
            assert_eq!(waits_at(&line("recvfrom", number), thread, &moved), waits);
        }
        let own = BTreeMap::from([(3, 7)]);
        assert!(waits_at(&line("poll", 0), 8, &own) && !waits_at(&line("poll", 0), 7, &own));
    }

    #[test]
    fn a_receive_at_the_number_waits_and_one_at_another_does_not() {
        for name in ["recvfrom", "recvmsg", "recvmmsg", "read", "readv", "preadv2", "splice"] {
            assert!(at(&line(name, 3), &[2, 3]), "{name}");
            // The kernel takes an int.
            assert!(at(&line(name, 3 | 1 << 32), &[3]));
            assert!(!at(&line(name, 4), &[2, 3]) && !at(&line(name, u64::MAX), &[2, 3]));
        }
        for name in ["poll", "ppoll", "select", "pselect6", "restart_syscall"] {
            assert!(at(&line(name, 9), &[3]), "{name}");
        }
    }

    #[test]
    fn who_runs_or_waits_for_something_else_is_left_alone() {
        for name in [
            "epoll_wait",
            "epoll_pwait2",
            "connect",
            "sendto",
            "accept",
            "futex",
            "write",
        ] {
            assert!(!at(&line(name, 3), &[3]), "{name}");
        }
        for text in ["running\n", "-1 0x7ffc 0x7f1b\n", "", "4294967296 0x3"] {
            assert!(!at(text, &[3]), "{text}");
        }
    }

    /// A process that waits for what it is sent.
    fn cat() -> (std::process::Child, u32) {
        let piped = std::process::Stdio::piped;
        let child = std::process::Command::new("cat").stdin(piped()).stdout(piped()).spawn();
        let child = child.unwrap();
        let read = format!("{} 0x0 ", syscall::number("read").unwrap());
        while !std::fs::read_to_string(format!("/proc/{}/syscall", child.id()))
            .unwrap()
            .starts_with(&read)
        {
            thread::yield_now();
        }
        let thread = child.id();
        (child, thread)
    }

    #[test]
    fn a_thread_that_waits_at_the_number_begins_anew_and_one_of_another_program_by_the_same_number_does_not() {
        use std::io::Write;
        let ((one, own), (two, other)) = (cat(), cat());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut moved = Moved {
            tasks: rustix::fs::openat(CWD, format!("/proc/{own}/task"), flags, Mode::empty()).unwrap(),
            numbers: BTreeMap::from([(0, 1)]),
            known: BTreeSet::new(),
        };
        // As if the number had become the other's between the look and the act.
        assert!(!ptrace::begin_anew(other, || moved.waits(other)).unwrap());
        moved.wake();
        assert_eq!(moved.known, BTreeSet::from([own]));
        // Both go on.
        for mut child in [one, two] {
            child.stdin.take().unwrap().write_all(b"heard").unwrap();
            assert_eq!(child.wait_with_output().unwrap().stdout, b"heard");
        }
    }
}
