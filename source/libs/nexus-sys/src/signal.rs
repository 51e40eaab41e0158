//! Signals as file descriptors and masks. A handler would run in the middle of anything; none is ever installed here
//! but one that does nothing.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A signal that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub number: i32,
    /// Whether the kernel itself sent it, as it does for the keys of a terminal (`SI_KERNEL`, sigaction(2)).
    pub from_kernel: bool,
    /// Who sent it, 0 for the kernel and for a process that cannot be seen from here.
    pub sender: i32,
}

/// `sigtimedwait(set, &info, 0)` sigtimedwait(2): takes one pending signal of the set, if there is one. The signals must
/// be blocked.
#[must_use]
pub fn take(set: &SignalSet) -> Option<Taken> {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: all zeroes is a valid `siginfo_t` (plain integers and pointers that nobody follows).
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set and the timeout are valid for the call, and `info` is exclusively borrowed.
    let number = unsafe { libc::sigtimedwait(&raw const set.0, &raw mut info, &raw const now) };
    if number <= 0 {
        return None;
    }
    // SAFETY: the kernel has filled the whole struct; for a signal that no process sent these bytes are other integers.
    let pid = unsafe { info.si_pid() };
    // kill(2), tgkill(2), sigqueue(3).
    let from_process = matches!(info.si_code, libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE);
    Some(Taken {
        number,
        from_kernel: info.si_code == libc::SI_KERNEL,
        sender: if from_process { pid } else { 0 },
    })
}

/// The bit of a signal in a set of 64: bit n-1 for signal n, as /proc shows it. 0 for a number that is none.
#[must_use]
pub fn bit(signal: i32) -> u64 {
    u32::try_from(signal)
        .ok()
        .and_then(|number| number.checked_sub(1))
        .and_then(|shift| 1_u64.checked_shl(shift))
        .unwrap_or(0)
}

/// `sigpending(&set)` sigpending(2): what waits for the calling thread, as bits.
#[must_use]
pub fn pending() -> u64 {
    let mut set = SignalSet::empty();
    // SAFETY: the set is exclusively borrowed.
    unsafe { libc::sigpending(&raw mut set.0) };
    (1..=SIGNAL_MAX)
        .filter(|signal| set.contains(*signal))
        .fold(0, |bits, signal| bits | bit(signal))
}

/// `_NSIG` (asm-generic/signal.h).
pub const SIGNAL_MAX: i32 = 64;

/// `sigaction(number, NULL, &old)` sigaction(2): whether the signal is ignored.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeroes is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `action` is exclusively borrowed.
    let failed = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } != 0;
    !failed && action.sa_sigaction == libc::SIG_IGN
}

static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

extern "C" fn look_at_pipe() {
    PIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

// Rust's runtime ignores SIGPIPE before `main`, so what was inherited must be looked at earlier.
// SAFETY: the dynamic linker calls the functions of this section once, before `main`, on the only thread; this one makes
// one system call and stores a flag.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_PIPE: extern "C" fn() = look_at_pipe;

/// Whether this process was started with `SIGPIPE` ignored, which a program that it executes should find as it was.
#[must_use]
pub fn pipe_was_ignored() -> bool {
    PIPE_WAS_IGNORED.load(Ordering::Relaxed)
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

    /// The thread of this process with this number for the kernel.
    #[must_use]
    pub const fn of(tid: i32) -> Self {
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
