//! Signals of the first process: taken one after the other, and passed on once.

use nexus_sys::signal::{SignalSet, Taken, bit, descriptor, is_ignored, pending, pipe_was_ignored, raise};
use nexus_sys::signal::{set_default, set_mask, take};
use rustix::process::Signal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// All signals, blocked and read as a descriptor; made before anything is forked, so that none is missed.
pub(crate) struct Signals {
    fd: OwnedFd,
    /// What was blocked when `nx` was started.
    pub(crate) inherited: SignalSet,
    /// Whether the terminal's interrupt key was pressed.
    interrupted: bool,
    /// What init has seen and this process has not yet.
    ahead: u64,
}

/// What a signal does to a program that was just started and has no handlers yet. signal(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    Nothing,
    Stop,
    End,
    /// It is blocked, and stays pending over exec.
    Wait,
}

impl Signals {
    pub(crate) fn take_over() -> std::io::Result<Self> {
        let all = SignalSet::full();
        let inherited = set_mask(&all)?;
        Ok(Self {
            fd: descriptor(&all)?,
            inherited,
            interrupted: false,
            ahead: 0,
        })
    }

    /// Waits for somebody before there is a program: signals do to this process what they would have done to that. What was
    /// begun ends by itself.
    pub(crate) fn while_open<T>(&self, wait: impl FnOnce() -> T) -> T {
        let closed = set_mask(&self.inherited);
        let result = wait();
        if let Ok(closed) = closed {
            let _ = set_mask(&closed);
        }
        result
    }

    /// What to wait on.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes what is there, in the order in which the kernel gives it.
    pub(crate) fn take_all(&mut self) -> Vec<Taken> {
        let all = SignalSet::full();
        let mut taken = Vec::new();
        // Real-time signals queue up: not more than this at once, so that a sender cannot keep this loop going.
        const AT_ONCE_MAX: usize = 256;
        while let Some(signal) = take(&all) {
            self.interrupted |= signal.number == Signal::INT.as_raw() && signal.from_kernel;
            if signal.number != Signal::CHILD.as_raw() {
                taken.push(signal);
            }
            if taken.len() >= AT_ONCE_MAX {
                break;
            }
        }
        taken
    }

    /// Which of the taken signals went to the whole process group, and not to this process alone.
    ///
    /// Init stands in the same group and takes no signals. It was asked for its pending ones `before` this process took
    /// its own and `after`. The kernel signals a group's members from the youngest to the oldest, init before this
    /// process: so whatever went to all and was taken here is in one of the two. What init saw last and waits here
    /// belongs to the next round.
    pub(crate) fn of_everybody(&mut self, before: u64, taken: &[Taken], after: u64) -> u64 {
        let taken = taken.iter().fold(0, |bits, signal| bits | bit(signal.number));
        let before = before | self.ahead;
        self.ahead = ((before & !taken) | after) & pending();
        taken & (before | after)
    }

    /// What a signal does before the program has begun.
    pub(crate) fn default_of(&self, signal: i32) -> Default {
        let is = |known: Signal| signal == known.as_raw();
        let ignored = if is(Signal::PIPE) {
            pipe_was_ignored()
        } else {
            is_ignored(signal)
        };
        if self.inherited.contains(signal) {
            Default::Wait
        } else if ignored || is(Signal::CHILD) || is(Signal::CONT) || is(Signal::URG) || is(Signal::WINCH) {
            Default::Nothing
        } else if is(Signal::TSTP) || is(Signal::TTIN) || is(Signal::TTOU) {
            Default::Stop
        } else {
            Default::End
        }
    }

    /// The signal that would have ended a program by now that was just started, if one came.
    pub(crate) fn end_of_start(&mut self) -> Option<i32> {
        let taken = self.take_all();
        let mut ends = taken
            .iter()
            .filter(|signal| self.default_of(signal.number) == Default::End);
        ends.next().map(|signal| signal.number)
    }

    /// Stops this process by this signal until it is continued: by this one and not by `SIGSTOP`, because the shell's `$?`
    /// tells them apart. Until the continued process runs again the signal is not blocked; a key press in that instant
    /// stops it ahead of the program. False if it cannot be stopped by it: the kernel does not
    /// stop a group that no shell waits for, but by `SIGSTOP`.
    pub(crate) fn stop_by(&self, signal: i32) -> bool {
        // The same key press may still be pending here; it must not stop us a second time.
        while take(&SignalSet::empty().with(signal)).is_some() {}
        set_default(signal);
        if let Ok(blocked) = set_mask(&SignalSet::full_without(signal)) {
            raise(signal);
            let _ = set_mask(&blocked);
        }
        // Whatever continued us is pending, because it is blocked; unless the next stop has taken its place already.
        const SEEN: [Signal; 4] = [Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        pending() & SEEN.iter().fold(0, |bits, signal| bits | bit(signal.as_raw())) != 0
    }

    /// The exit status for the shell. A program that a terminal's interrupt ended takes this process along by the same
    /// signal, because that is how a shell knows to stop its loop; the shell's `$?` is 130 either way.
    pub(crate) fn leave(&mut self, signal: i32) -> u8 {
        // It may have ended the program before this process looked.
        self.take_all();
        if signal == Signal::INT.as_raw() && self.interrupted {
            set_default(signal);
            if set_mask(&SignalSet::full_without(signal)).is_ok() {
                raise(signal);
            }
        }
        u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_sys::signal::SIGNAL_MAX;

    fn signals() -> Signals {
        let all = SignalSet::empty();
        Signals {
            fd: descriptor(&all).unwrap(),
            inherited: all,
            interrupted: false,
            ahead: 0,
        }
    }

    fn taken(number: i32) -> Taken {
        Taken {
            number,
            from_kernel: false,
            sender: 1,
        }
    }

    #[test]
    fn what_init_saw_too_went_to_everybody_and_what_only_this_process_saw_did_not() {
        let mut signals = signals();
        assert_eq!(signals.of_everybody(bit(10), &[taken(10), taken(12)], 0), bit(10));
        assert_eq!(signals.of_everybody(0, &[taken(10)], bit(10)), bit(10));
        assert_eq!(signals.of_everybody(0, &[taken(10)], 0), 0);
    }

    #[test]
    fn what_init_saw_alone_says_nothing_of_a_later_one() {
        let mut signals = signals();
        assert_eq!(signals.of_everybody(bit(10), &[], 0), 0);
        assert_eq!(signals.of_everybody(0, &[taken(10)], 0), 0);
    }

    #[test]
    fn a_fresh_program_ends_by_most_signals_and_stops_by_a_terminals() {
        let signals = signals();
        assert_eq!(signals.default_of(Signal::TERM.as_raw()), Default::End);
        assert_eq!(signals.default_of(SIGNAL_MAX), Default::End);
        assert_eq!(signals.default_of(Signal::TSTP.as_raw()), Default::Stop);
        assert_eq!(signals.default_of(Signal::WINCH.as_raw()), Default::Nothing);
        let blocked = Signals {
            inherited: SignalSet::full(),
            ..signals
        };
        assert_eq!(blocked.default_of(Signal::TERM.as_raw()), Default::Wait);
    }
}
