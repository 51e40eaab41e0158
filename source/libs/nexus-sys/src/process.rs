//! Making processes.

use crate::check;
use crate::hurry::Hurried;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent(Child),
}

/// A process that this one made.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace; safe to use until it is waited for.
    pub pid: i32,
    /// The process itself, whatever becomes of the number. pidfd_open(2).
    pub pidfd: OwnedFd,
}

/// What a new process gets of its own (`CLONE_NEW*`, namespaces(7)) or shares (`CLONE_FILES`, clone(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// Nothing special: fork(2).
    pub const NONE: Self = Self(0);
    /// One table of file descriptors for both until the child executes a program, and the parent waits (killable) until
    /// it did or ended.
    pub const UNTIL_EXEC: Self = Self((libc::CLONE_FILES | libc::CLONE_VFORK) as u64);
    /// User, mount, pid, IPC, host name, network and cgroup namespaces of its own.
    pub const ALL_NAMESPACES: Self = Self(
        (libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWCGROUP) as u64,
    );
    /// User, mount, pid, host name and cgroup namespaces of its own: the others, which take longer to make, are the child's
    /// to make ([`new_network_namespace`], [`new_ipc_namespace`]) while its parent does something else.
    pub const SESSION: Self = Self(
        (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP)
            as u64,
    );
    /// A user namespace and an IPC namespace of it.
    pub const USER_AND_IPC: Self = Self((libc::CLONE_NEWUSER | libc::CLONE_NEWIPC) as u64);
    /// Only a user namespace of its own: what a machine forbids first.
    pub const USER_NAMESPACE: Self = Self(libc::CLONE_NEWUSER as u64);
}

/// `clone3({flags | CLONE_PIDFD, SIGCHLD})` clone3(2), Linux 5.3. Like fork(2), without running fork handlers.
///
/// The calling process must have one thread: a lock that another thread holds would stay held in the child for ever.
///
/// # Errors
/// `EAGAIN` past a process limit; `EPERM`, `ENOSPC` or `EUSERS` where namespaces are refused or used up; `EBUSY` if
/// this process has more than one thread.
pub fn clone(flags: CloneFlags) -> io::Result<Fork> {
    make(flags, None)
}

/// As [`clone()`], with the child in the cgroup whose directory is open as `cgroup` from its first moment on:
/// `CLONE_INTO_CGROUP`, Linux 5.7. Unlike moving it there afterwards this waits for nobody. A cgroup namespace that is
/// made along with it still begins at the caller's cgroup.
///
/// # Errors
/// Also `EACCES` where the caller may not write to `cgroup.procs` there and in the nearest cgroup that holds both, `EBUSY`
/// or `EOPNOTSUPP` for a cgroup that takes no processes, `ENODEV` for one that was removed, `EAGAIN` past its `pids.max`.
pub fn clone_into_cgroup(flags: CloneFlags, cgroup: impl AsFd) -> io::Result<Fork> {
    make(flags, Some(cgroup.as_fd()))
}

/// linux/sched.h. libc has it as a C `int`, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn make(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    if thread_count() > 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all zeroes is a valid `clone_args` (plain integers): no stack, no TLS, no tids.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd).addr() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup.and_then(|fd| u64::try_from(fd.as_raw_fd()).ok()) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup;
    }
    // SAFETY: without CLONE_VM the child runs on a copy of this thread's stack and memory, as after fork(2); the
    // process has one thread, so no lock is held by somebody who does not exist in the child; `args` is live, and a
    // descriptor in it is only looked up.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    let pid = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: the kernel has just stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent(Child { pid, pidfd }))
}

fn thread_count() -> usize {
    // Without /proc (a container may hide it) the caller's word has to do: it forks before it starts threads.
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// `execve(path, argv, envp)` execve(2). Returns only on failure.
///
/// # Errors
/// As execve(2).
pub fn execve(path: &CStr, argv: &CStringArray, envp: &CStringArray) -> io::Result<Infallible> {
    // SAFETY: path and both arrays are NUL-terminated and live over the call, which only reads them.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Strings as execve(2) wants them; made ahead, so that nothing is allocated between a filter and exec.
#[derive(Debug)]
pub struct CStringArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    /// The array of these strings.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// `_exit(code)` _exit(2): ends the process at once, flushing nothing and running no destructor.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; no memory is used after.
    unsafe { libc::_exit(code) }
}

/// `close_range(first, ~0, 0)` close_range(2), Linux 5.9: closes every descriptor from `first` on that is not in
/// `keep`.
///
/// # Errors
/// `EMFILE` only.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    kept.dedup();
    let mut next = first;
    for fd in kept.into_iter().filter(|fd| *fd >= first) {
        if next < fd {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller of `close_all_but` named every descriptor that is still used; ones owned elsewhere in this
    // freshly forked process are given up with the code that owned them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// `pidfd_open(tid, PIDFD_THREAD)` pidfd_open(2), Linux 6.9, of a thread that need not be a group's leader.
///
/// # Errors
/// `EINVAL` before Linux 6.9 (use the leader's number then), `ESRCH`.
pub fn thread_pidfd(tid: u32) -> io::Result<OwnedFd> {
    // `PIDFD_THREAD` is `O_EXCL` (linux/pidfd.h).
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, libc::O_EXCL) })?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: `fd` was just made by the call above and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `unshare(CLONE_NEWCGROUP)` unshare(2), Linux 4.6: a cgroup namespace whose root is the cgroup that this process is in.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in this process's user namespace, `ENOSPC` past a limit of such namespaces.
pub fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: no memory is involved, and neither the descriptor table nor anything else that Rust relies on is unshared.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// `unshare(CLONE_NEWNET)` unshare(2): a network namespace of this process's user namespace, with nothing in it but a loopback
/// interface that is down.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in this process's user namespace, `ENOSPC` past a limit of such namespaces.
pub fn new_network_namespace() -> io::Result<()> {
    // SAFETY: no memory is involved, and neither the descriptor table nor anything else that Rust relies on is unshared.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()).map(drop)
}

/// `unshare(CLONE_NEWIPC)` unshare(2): an empty IPC namespace of this process's user namespace.
///
/// # Errors
/// As [`new_network_namespace`].
pub fn new_ipc_namespace() -> io::Result<()> {
    // SAFETY: no memory is involved, and neither the descriptor table nor anything else that Rust relies on is unshared.
    check(unsafe { libc::unshare(libc::CLONE_NEWIPC) }.into()).map(drop)
}

/// `pidfd_getfd(process, number, 0)` pidfd_getfd(2), Linux 5.6: one more descriptor for the file that the number means there.
///
/// Where the number ceases to mean it meanwhile the kernel lets go of the file again, and may be the last: so this thread hurries
/// ([`Hurried`]), where somebody looks after it. Closing what is returned may wait as well.
///
/// # Errors
/// `EBADF` if the number means nothing, `ESRCH` if the process is gone, `EPERM` if the caller may not trace it.
pub fn descriptor_of(process: impl AsFd, number: i32) -> rustix::io::Result<OwnedFd> {
    let _hurried = Hurried::now();
    rustix::process::pidfd_getfd(process, number, rustix::process::PidfdGetfdFlags::empty())
}

/// `kcmp(thread, thread, KCMP_FILE, one, other)` kcmp(2): whether two numbers of a thread's mean one file.
///
/// The kernel takes both for a moment, and may be the last to let go of them: so this thread hurries ([`Hurried`]), where somebody
/// looks after it.
///
/// # Errors
/// `EBADF` if one means nothing, `ESRCH`, `EPERM` if the caller may not trace it, `ENOSYS` of a kernel without `CONFIG_KCMP`.
pub fn is_same_file(thread: u32, one: u32, other: u32) -> io::Result<bool> {
    const KCMP_FILE: libc::c_int = 0;
    let _hurried = Hurried::now();
    // SAFETY: no memory is involved.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            thread,
            thread,
            KCMP_FILE,
            u64::from(one),
            u64::from(other),
        )
    };
    check(order).map(|order| order == 0)
}

/// `getpgid(pid)` getpgid(2): the process group, 0 for one that cannot be seen from the caller's pid namespace. Unlike
/// `/proc/PID/stat` it does not hold the process's memory meanwhile, nor what is mapped in it. A `pid` of
/// 0 asks for the caller's own.
///
/// # Errors
/// `ESRCH`.
pub fn group_of(pid: i32) -> io::Result<i32> {
    // SAFETY: no memory is involved.
    let group = check(unsafe { libc::getpgid(pid) }.into())?;
    i32::try_from(group).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)` keyctl(2): a new, empty session keyring for this process.
///
/// # Errors
/// `ENOSYS` where the kernel has no keyrings, `EDQUOT`.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is involved.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::while_closed;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    #[test]
    fn two_numbers_mean_one_file_where_one_is_a_copy_of_the_other() {
        use std::os::fd::AsRawFd;
        let number = |file: &std::fs::File| u32::try_from(file.as_raw_fd()).unwrap();
        let open = || std::fs::File::open("/dev/null").unwrap();
        let (one, other) = (open(), open());
        let copy = one.try_clone().unwrap();
        let own = std::process::id();
        assert!(is_same_file(own, number(&one), number(&one)).unwrap());
        assert!(is_same_file(own, number(&one), number(&copy)).unwrap());
        assert!(!is_same_file(own, number(&one), number(&other)).unwrap());
        let nothing = is_same_file(own, number(&one), 1 << 20).map_err(|error| error.raw_os_error());
        assert_eq!(nothing, Err(Some(libc::EBADF)));
    }

    #[test]
    fn who_is_just_not_given_a_descriptor_any_more_does_not_wait_for_its_peer() {
        for _ in 0..2 {
            let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
            while_closed(3000, move |_, number| {
                let given = descriptor_of(&process, i32::try_from(number).unwrap());
                // Closing it may wait by itself.
                let _hurried = Hurried::now();
                given.map(drop).is_ok()
            });
        }
    }
}
