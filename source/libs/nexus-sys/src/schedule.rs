//! How a thread takes turns with others.

use crate::check;
use std::io;

/// `struct sched_attr` in its first published size (`SCHED_ATTR_SIZE_VER0`, linux/sched/types.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// How many bytes the kernel reads of it.
const SIZE: u32 = 48;

const _: () = assert!(size_of::<Attributes>() == 48, "the layout is the kernel's");

/// `sched_setattr(0, &attr, 0)` sched_setattr(2), Linux 3.14; a slice of an ordinary thread since 6.12.
///
/// Asks for turns of `slice_ns` nanoseconds for the calling thread, which has an ordinary policy and the niceness `nice`:
/// one that asks for short turns gets them sooner, and no more time in all. The kernel takes 0.1 to 100 milliseconds and
/// the nearest of them otherwise; an older one ignores it.
///
/// # Errors
/// `EPERM` if `nice` is less than the thread's own; `EINVAL`, `E2BIG` from a kernel that knows the call differently.
pub fn prefer_short_turns(slice_ns: u64, nice: i32) -> io::Result<()> {
    set(libc::SCHED_OTHER, slice_ns, nice)
}

/// `sched_setattr(0, &attr, 0)` sched_setattr(2) with `SCHED_IDLE`, sched(7): the calling thread, of niceness `nice`, steps back
/// behind all ordinary ones, in turns of `slice_ns` nanoseconds. An ordinary user has no way to take that back (`RLIMIT_NICE`).
///
/// A core that runs nothing but such threads counts as free (Linux 5.4): whom one of them wakes runs there, at once.
///
/// # Errors
/// As [`prefer_short_turns`].
pub fn step_back(slice_ns: u64, nice: i32) -> io::Result<()> {
    set(libc::SCHED_IDLE, slice_ns, nice)
}

fn set(policy: i32, slice_ns: u64, nice: i32) -> io::Result<()> {
    let attributes = Attributes {
        size: SIZE,
        policy: policy.unsigned_abs(),
        flags: 0,
        nice,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: `attributes` is a live, fully initialised struct of the size that its first field says; thread 0 is the
    // caller; no flags.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_ask_for_short_turns_and_keeps_its_niceness() {
        let nice = rustix::process::getpriority_process(None).unwrap();
        prefer_short_turns(100_000, nice).unwrap();
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), nice);
    }

    #[test]
    fn a_thread_that_steps_back_steps_back_alone() {
        let policy = || {
            // SAFETY: no memory is involved; thread 0 is the caller.
            unsafe { libc::sched_getscheduler(0) }
        };
        let nice = rustix::process::getpriority_process(None).unwrap();
        let stepped = std::thread::spawn(move || {
            step_back(100_000, nice).unwrap();
            policy()
        });
        assert_eq!(stepped.join().unwrap(), libc::SCHED_IDLE);
        assert_ne!(policy(), libc::SCHED_IDLE);
    }
}
