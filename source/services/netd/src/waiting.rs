//! Threads that wait at a socket that moved.
//!
//! A call knows the file, not the number: one that began before the move would wait for what comes to the old socket. It is made to
//! begin anew, and then finds the new one under the same number.

use crate::caller::Caller;
use nexus_abi::syscall;
use nexus_sys::ptrace;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How many threads of a program are looked at: more hardly wait at its sockets.
const THREADS_MAX: usize = 1024;

/// How many moves are followed up at once; a thread in the middle of execve(2) may hold one up.
const MOVES_MAX: usize = 8;
static MOVES: AtomicUsize = AtomicUsize::new(0);

/// Until a call that had the old file before the move waits at it.
const PAUSE: Duration = Duration::from_millis(2);

const STACK_BYTES: usize = 64 * 1024;

/// Makes the threads of the caller's process that wait at one of these numbers look at them again; nobody waits for that.
pub(crate) fn look_again(caller: &Caller<'_>, numbers: &[u32]) {
    let tasks = format!("/proc/{}/task", caller.tid());
    // A link for each thread and two more, proc_pid_task(5).
    let alone = fs::metadata(&tasks).is_ok_and(|tasks| tasks.nlink() <= 3);
    if alone {
        return;
    }
    if MOVES.fetch_add(1, Ordering::AcqRel) < MOVES_MAX {
        let (own, numbers) = (caller.tid(), numbers.to_vec());
        let follow = move || {
            let mut known = BTreeSet::from([own]);
            for pause in [Duration::ZERO, PAUSE] {
                thread::sleep(pause);
                let waiting = waiting(&tasks, &numbers, &mut known);
                if !waiting.is_empty() {
                    // Without a thread for it they wait on.
                    let _ = ptrace::begin_anew(waiting);
                }
            }
            MOVES.fetch_sub(1, Ordering::AcqRel);
        };
        let thread = thread::Builder::new().name("look-again".into()).stack_size(STACK_BYTES);
        if thread.spawn(follow).is_ok() {
            return;
        }
    }
    MOVES.fetch_sub(1, Ordering::AcqRel);
}

/// Those that wait and are not known yet; they are known then.
fn waiting(tasks: &str, numbers: &[u32], known: &mut BTreeSet<u32>) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    entries
        .flatten()
        .take(THREADS_MAX)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|thread| !known.contains(thread) && waits(tasks, *thread, numbers))
        .collect::<Vec<_>>()
        .into_iter()
        .filter(|thread| known.insert(*thread))
        .collect()
}

fn waits(tasks: &str, thread: u32, numbers: &[u32]) -> bool {
    fs::read_to_string(format!("{tasks}/{thread}/syscall")).is_ok_and(|call| waits_at(&call, numbers))
}

/// What begins anew with the same arguments and looks at its numbers then. epoll_wait(2) does not: its registrations are moved.
const AT_ONE: [&str; 5] = ["recvfrom", "recvmsg", "recvmmsg", "read", "readv"];
const AT_MANY: [&str; 4] = ["poll", "ppoll", "select", "pselect6"];

/// `45 0x3 0x7ffc… 0x9 0x0 0x0 0x0 0x7ffc… 0x7f1b…`, proc_pid_syscall(5): of a thread that runs there is no number.
fn waits_at(call: &str, numbers: &[u32]) -> bool {
    let mut words = call.split_ascii_whitespace();
    let Some(name) = words.next().and_then(|word| word.parse().ok()).and_then(syscall::name) else {
        return false;
    };
    let first = words
        .next()
        .and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let at_one = || {
        first.is_some_and(|register| u32::try_from(crate::int(register)).is_ok_and(|number| numbers.contains(&number)))
    };
    AT_MANY.contains(&name) || (AT_ONE.contains(&name) && at_one())
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

    #[test]
    fn a_receive_at_the_number_waits_and_one_at_another_does_not() {
        for name in AT_ONE {
            assert!(waits_at(&line(name, 3), &[2, 3]));
            // The kernel takes an int.
            assert!(waits_at(&line(name, 3 | 1 << 32), &[3]));
            assert!(!waits_at(&line(name, 4), &[2, 3]) && !waits_at(&line(name, u64::MAX), &[2, 3]));
        }
        for name in AT_MANY {
            assert!(waits_at(&line(name, 9), &[3]));
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
            assert!(!waits_at(&line(name, 3), &[3]), "{name}");
        }
        for text in ["running\n", "-1 0x7ffc 0x7f1b\n", "", "4294967296 0x3"] {
            assert!(!waits_at(text, &[3]), "{text}");
        }
    }
}
