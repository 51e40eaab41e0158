//! A thread's calls that must not wait for long: a timer of its own interrupts them.

use crate::check;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

/// Sends the thread that made it a signal, again and again, while it is on.
#[derive(Debug)]
pub struct Hurry {
    timer: libc::timer_t,
    /// It is the thread's.
    _here: PhantomData<*const ()>,
}

impl Hurry {
    /// `timer_create(CLOCK_MONOTONIC, SIGEV_THREAD_ID, &timer)` timer_create(2), for the calling thread. The signal needs a
    /// handler ([`crate::signal::set_interrupting`]), or it ends the process.
    ///
    /// # Errors
    /// `EAGAIN` where the user has as many signals and timers as `RLIMIT_SIGPENDING` says, `EINVAL` for a number that is no
    /// signal.
    pub fn here(signal: i32) -> io::Result<Self> {
        // SAFETY: all zeroes is a valid `sigevent` (integers, and a pointer that nobody follows).
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: no memory is involved.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both are live, and exclusively borrowed by the call.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) }.into())?;
        Ok(Self {
            timer,
            _here: PhantomData,
        })
    }

    /// From now on, each time that so long has passed: a call that had not begun yet at the first is interrupted by the next.
    /// `timer_settime(timer, 0, &every, NULL)` timer_settime(2).
    ///
    /// # Errors
    /// None in practice.
    pub fn on(&self, every: Duration) -> io::Result<()> {
        let nanoseconds = every.subsec_nanos().into();
        self.set(libc::timespec {
            tv_sec: every.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: nanoseconds,
        })
    }

    /// No more: what was sent is taken before this returns. `timer_settime(timer, 0, &zero, NULL)` timer_settime(2).
    pub fn off(&self) {
        // A timer that is there can be stopped.
        let _ = self.set(libc::timespec { tv_sec: 0, tv_nsec: 0 });
    }

    fn set(&self, every: libc::timespec) -> io::Result<()> {
        let times = libc::itimerspec {
            it_interval: every,
            it_value: every,
        };
        // SAFETY: the timer is this value's, `times` lives over the call, and what was set before is not asked for.
        check(unsafe { libc::timer_settime(self.timer, 0, &raw const times, std::ptr::null_mut()) }.into()).map(drop)
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's, and nobody uses it afterwards.
        unsafe { libc::timer_delete(self.timer) };
    }
}
