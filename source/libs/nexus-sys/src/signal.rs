//! Signals as file descriptors and masks. A handler would run in the middle of anything; none is ever installed here
//! but one that does nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A set of signals, as `sigset_t`.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet")
    }
}

impl SignalSet {
    /// No signal. sigemptyset(3).
    #[must_use]
    pub fn empty() -> Self {
        // SAFETY: all zeroes is a valid `sigset_t` (a plain array of integers), and the empty one.
        Self(unsafe { std::mem::zeroed() })
    }

    /// Every signal that can be blocked. sigfillset(3).
    #[must_use]
    pub fn full() -> Self {
        let mut set = Self::empty();
        // SAFETY: `set.0` is a valid set that is exclusively borrowed.
        unsafe { libc::sigfillset(&raw mut set.0) };
        set
    }

    /// This set and `signal`. Out-of-range numbers change nothing. sigaddset(3).
    #[must_use]
    pub fn with(mut self, signal: i32) -> Self {
        // SAFETY: `self.0` is a valid set that is exclusively borrowed; the number is checked by the call.
        unsafe { libc::sigaddset(&raw mut self.0, signal) };
        self
    }

    /// Every signal but this one. sigdelset(3).
    #[must_use]
    pub fn full_without(signal: i32) -> Self {
        let mut set = Self::full();
        // SAFETY: `set.0` is a valid set that is exclusively borrowed; the number is checked by the call.
        unsafe { libc::sigdelset(&raw mut set.0, signal) };
        set
    }

    /// Whether `signal` is in the set. sigismember(3).
    #[must_use]
    pub fn contains(&self, signal: i32) -> bool {
        // SAFETY: `self.0` is a valid set; the number is checked by the call.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }
}

/// `pthread_sigmask(SIG_SETMASK, set, &old)` pthread_sigmask(3). Returns the mask before.
///
/// # Errors
/// None in practice.
pub fn set_mask(set: &SignalSet) -> io::Result<SignalSet> {
    let mut old = SignalSet::empty();
    // SAFETY: both sets are valid for the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set.0, &raw mut old.0) } {
        0 => Ok(old),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// `signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK)` signalfd(2). The signals must be blocked.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn descriptor(set: &SignalSet) -> io::Result<OwnedFd> {
    // SAFETY: the set is valid for the call; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made by the call above and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `read(fd, &info, sizeof info)` of a signalfd: the next signal's number, `None` if none is pending.
///
/// # Errors
/// As read(2).
pub fn next(fd: &OwnedFd) -> io::Result<Option<i32>> {
    // SAFETY: all zeroes is a valid `signalfd_siginfo` (plain integers).
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` is a live struct of `size` bytes, exclusively borrowed.
    let count = unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) };
    if count < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(error)
        };
    }
    Ok(i32::try_from(info.ssi_signo).ok())
}

/// `sigtimedwait(set, NULL, 0)` sigtimedwait(2): takes one pending signal of the set, if there is one.
#[must_use]
pub fn take_pending(signal: i32) -> bool {
    let set = SignalSet::empty().with(signal);
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set and the timeout are valid for the call; a null info pointer is allowed.
    unsafe { libc::sigtimedwait(&raw const set.0, std::ptr::null_mut(), &raw const now) == signal }
}

/// `signal(number, SIG_DFL)` signal(2).
pub fn set_default(signal: i32) {
    // SAFETY: SIG_DFL installs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// `signal(number, SIG_IGN)` signal(2).
pub fn set_ignored(signal: i32) {
    // SAFETY: SIG_IGN installs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

extern "C" fn nothing(_: libc::c_int) {}

/// `sigaction(number, {nothing, sa_flags = 0})` sigaction(2): the signal interrupts a blocking call with `EINTR` and
/// does nothing else.
///
/// # Errors
/// `EINVAL` for a number that cannot be caught.
pub fn set_interrupting(signal: i32) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `sigaction` (no flags, empty mask, default handler).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as libc::sighandler_t;
    // SAFETY: `action` is valid for the call; the handler is an empty function and thus async-signal-safe.
    crate::check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }.into()).map(drop)
}

/// `raise(number)` raise(3).
pub fn raise(signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::raise(signal) };
}

/// `kill(pid, number)` kill(2), where a pid is all there is: for one's own children and groups.
///
/// # Errors
/// `ESRCH`, `EPERM`.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    crate::check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// A thread of this process that [`ThreadHandle::interrupt`] can reach.
#[derive(Clone, Copy, Debug)]
pub struct ThreadHandle {
    tid: libc::pid_t,
}

impl ThreadHandle {
    /// The calling thread. gettid(2).
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: no memory is involved.
        let tid = unsafe { libc::gettid() };
        Self { tid }
    }

    /// `tgkill(getpid(), tid, number)` tgkill(2). Harmless if the thread is gone.
    pub fn interrupt(self, signal: i32) {
        // SAFETY: no memory is involved.
        let pid = unsafe { libc::getpid() };
        // SAFETY: no memory is involved; a stale tid of our own process gives ESRCH.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, self.tid, signal) };
    }
}
