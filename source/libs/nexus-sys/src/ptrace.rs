//! Reading back the filters of another process: ptrace(2), `PTRACE_SECCOMP_GET_FILTER`. Making threads begin their calls anew.

use crate::check;
use crate::seccomp::Instruction;
use rustix::process::{Pid, WaitOptions};
use std::io;
use std::time::{Duration, Instant};

/// How many filters of a process are read: a program may stack more on the one that it was given.
pub const FILTERS_MAX: usize = 64;

/// The most instructions a filter has (`BPF_MAXINSNS`, linux/bpf_common.h).
const INSTRUCTIONS_MAX: usize = 4096;

/// `PTRACE_SECCOMP_GET_FILTER` (linux/ptrace.h), Linux 4.4.
const SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

/// Between two looks whether the process has stopped, which takes some microseconds.
const PAUSE: Duration = Duration::from_micros(200);

/// A process that is stopped for reading; it goes on when this is dropped, and also if the reader dies.
#[derive(Debug)]
struct Stopped {
    pid: libc::pid_t,
}

/// Reads every filter of a process, the one that was set first first, waiting until `wait` is over for the process to stop
/// for it. A call of it that waits meanwhile may return `EINTR`, as after SIGSTOP and SIGCONT, signal(7).
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` in the initial user namespace, or where the reader itself is filtered; `EPERM` if it may
/// not be traced; `EIO` and `EINVAL` from a kernel without `CONFIG_CHECKPOINT_RESTORE`; `ETIMEDOUT` if it does not stop;
/// `ESRCH` if it is gone.
pub fn filters(pid: i32, wait: Duration) -> io::Result<Vec<Vec<Instruction>>> {
    let until = Instant::now() + wait;
    // SAFETY: SEIZE takes no memory; the tracee goes on running.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, 0_usize) })?;
    let stopped = Stopped { pid };
    // SAFETY: INTERRUPT takes no memory.
    check(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0_usize, 0_usize) })?;
    // Also one that was made to send its parent no SIGCHLD, waitpid(2).
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    loop {
        let status = rustix::process::waitpid(Pid::from_raw(pid), options)?;
        match status {
            Some((_, status)) if status.stopped() => break,
            Some(_) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            None if Instant::now() >= until => return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            None => std::thread::sleep(PAUSE),
        }
    }
    let mut all = Vec::new();
    for index in 0..FILTERS_MAX {
        match stopped.filter(index) {
            Ok(filter) => all.push(filter),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

impl Stopped {
    fn filter(&self, index: usize) -> io::Result<Vec<Instruction>> {
        // SAFETY: with a null buffer the kernel writes nothing and returns how many instructions there are.
        let count = check(unsafe { libc::ptrace(SECCOMP_GET_FILTER, self.pid, index, 0_usize) })?;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= INSTRUCTIONS_MAX)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // As many as any filter has: were it another filter by now, it would fit all the same.
        let mut filter = vec![
            Instruction {
                code: 0,
                jump_true: 0,
                jump_false: 0,
                k: 0
            };
            INSTRUCTIONS_MAX
        ];
        // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel writes as many as the filter has, which is at most
        // `INSTRUCTIONS_MAX`, the length of `filter`, exclusively borrowed.
        check(unsafe { libc::ptrace(SECCOMP_GET_FILTER, self.pid, index, filter.as_mut_ptr()) })?;
        filter.truncate(count);
        Ok(filter)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: DETACH takes no memory; it fails where the process is gone or has not stopped yet, and then the kernel
        // detaches it when this process ends.
        let _ = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.pid, 0_usize, 0_usize) };
    }
}

/// Makes a thread that waits in a system call begin it anew, as after SIGSTOP and SIGCONT, which nobody sees: `PTRACE_SEIZE`,
/// `PTRACE_INTERRUPT`, and the end of the tracer before anything stops for long. What that ends with `EINTR` instead, signal(7) says: a
/// receive with a timeout, `epoll_wait`. One that may not be traced (somebody traces it) or is gone goes on as it was. `still` is asked in between,
/// when the number cannot become another thread's any more, and must wait for nothing that the thread has.
/// Says whether it was interrupted.
///
/// A tracer for each thread: one that has a thread and asks for the next one waits for an execve(2) of that one's process, which waits for the
/// first one to be let go of.
///
/// # Errors
/// `EAGAIN` without a thread for it.
pub fn begin_anew(thread: u32, still: impl FnOnce() -> bool + Send) -> io::Result<bool> {
    let Ok(pid) = libc::pid_t::try_from(thread) else {
        return Ok(false);
    };
    std::thread::scope(|scope| {
        // The kernel lets go of what a thread traces when it ends (`exit_ptrace`), whatever became of it.
        let tracer = std::thread::Builder::new().name("anew".into()).stack_size(STACK_BYTES);
        let tracer = tracer.spawn_scoped(scope, move || {
            // SAFETY: SEIZE takes no memory; the tracee goes on running.
            let seized = check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, 0_usize) });
            // SAFETY: INTERRUPT takes no memory.
            seized.is_ok()
                && still()
                && check(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0_usize, 0_usize) }).is_ok()
        })?;
        Ok(tracer.join().unwrap_or(false))
    })
}

const STACK_BYTES: usize = 64 * 1024;
