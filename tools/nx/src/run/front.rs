//! The process that the shell started: it looks to the shell as the program would.
//!
//! It stays in the shell's process group and so does the program, so that the terminal treats both alike. It stops when
//! the program stops, passes on what is sent to it alone, and ends as the program ends.

use super::supervisor::DONE;
use execd::Spawned;
use nexus_sys::signal::{SignalSet, descriptor, next, raise, set_default, set_mask, take_pending};
use nexus_wire::control::{Command, Event};
use nexus_wire::packet::{Packet, PacketSocket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use std::os::fd::{AsFd, OwnedFd};

/// How the session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The program ended with this code.
    Exited(i32),
    /// The program was ended by this signal.
    Signaled(i32),
    /// The program could not be executed.
    ExecFailed(i32),
    /// The sandbox could not be built.
    SetupFailed {
        /// The step's number.
        step: u32,
        /// Why.
        errno: i32,
    },
    /// Init ended without a word.
    InitLost,
    /// The supervisor ended before the program, which was ended with it.
    SupervisorLost {
        /// Its last words, if it had any.
        words: Option<String>,
    },
}

/// Signals as a descriptor; made before anything is forked, so that none is missed.
pub(crate) struct Signals {
    fd: OwnedFd,
    /// What was blocked when `nx` was started.
    pub(crate) inherited: SignalSet,
    terminal_interrupt: bool,
}

impl Signals {
    pub(crate) fn take_over() -> std::io::Result<Self> {
        let all = SignalSet::full();
        let inherited = set_mask(&all)?;
        Ok(Self {
            fd: descriptor(&all)?,
            inherited,
            terminal_interrupt: false,
        })
    }
}

/// Follows the program until it and everything that it left behind is gone.
pub(crate) fn follow(
    spawned: &Spawned,
    control: &PacketSocket,
    supervisor: &PacketSocket,
    signals: &mut Signals,
    mut on_start: impl FnMut(),
) -> End {
    let terminal = Terminal::of_this_process();
    let mut end = None;
    // Its end is told: what is left is for its namespaces to be taken down.
    let mut silent = false;
    let mut supervised = true;
    loop {
        let (signal, event, gone, word) = {
            let mut fds = [
                PollFd::new(&signals.fd, PollFlags::IN),
                PollFd::from_borrowed_fd(
                    if silent {
                        spawned.init.pidfd.as_fd()
                    } else {
                        control.as_fd()
                    },
                    PollFlags::IN,
                ),
                PollFd::new(&spawned.init.pidfd, PollFlags::IN),
                PollFd::new(supervisor, PollFlags::IN),
            ];
            let watched = if supervised { fds.len() } else { fds.len() - 1 };
            if fds.get_mut(..watched).is_none_or(|fds| poll(fds, None).is_err()) {
                continue;
            }
            let [signal, event, gone, word] = fds.map(|fd| !fd.revents().is_empty());
            (signal, event, gone, word)
        };
        // Everything that init said before it ended is there once its end is seen.
        let told = || {
            control
                .try_receive()
                .ok()
                .and_then(|packet| Event::decode(packet.bytes()))
        };
        while let Some(word) = (event || gone).then(told).flatten() {
            match word {
                Event::Started => on_start(),
                Event::Stopped(signal) => stop_too(signal, control, terminal.as_ref()),
                Event::Continued => {}
                Event::Exited(code) => end = Some(End::Exited(code)),
                Event::Signaled(signal) => end = Some(End::Signaled(signal)),
                Event::ExecFailed(errno) => end = Some(End::ExecFailed(errno)),
                Event::SetupFailed { step, errno } => end = Some(End::SetupFailed { step, errno }),
            }
        }
        silent |= event && end.is_some();
        if gone {
            // The kernel has ended whatever was left in the namespace by now.
            spawned.kill();
            if let Some(terminal) = &terminal {
                terminal.reclaim();
            }
            return end.unwrap_or(End::InitLost);
        }
        if word {
            // It sees the last process end before init has reaped it, and then goes on without being watched.
            let said = supervisor.try_receive().ok();
            let said = said.as_ref().map(Packet::bytes).unwrap_or_default();
            if said != DONE && end.is_none() {
                spawned.kill();
                let words = (!said.is_empty()).then(|| String::from_utf8_lossy(said).into_owned());
                return End::SupervisorLost { words };
            }
            supervised = false;
        }
        if signal {
            while let Ok(Some(number)) = next(&signals.fd) {
                if number == Signal::CHILD.as_raw() {
                    continue;
                }
                signals.terminal_interrupt |= number == Signal::INT.as_raw();
                // If init is gone, its end is the next thing seen.
                let _ = control.send(&Command::Signal(number).encode(), &[]);
            }
        }
    }
}

/// Stops this process as its program was stopped, so that the shell sees a stopped job; returns when it is continued.
fn stop_too(signal: i32, control: &PacketSocket, terminal: Option<&Terminal>) {
    let inner = terminal.and_then(Terminal::foreground_of_others);
    // The same key press may still be pending here; it must not stop us a second time.
    while take_pending(signal) {}
    set_default(signal);
    let unblocked = SignalSet::full_without(signal);
    if let Ok(blocked) = set_mask(&unblocked) {
        raise(signal);
        let _ = set_mask(&blocked);
    }
    if let (Some(terminal), Some(group)) = (terminal, inner)
        && terminal.is_ours()
    {
        terminal.give_to(group);
    }
    let _ = take_pending(Signal::CONT.as_raw());
    let _ = control.send(&Command::Signal(Signal::CONT.as_raw()).encode(), &[]);
}

/// The controlling terminal, if this process has one.
struct Terminal {
    fd: OwnedFd,
    group: Pid,
}

impl Terminal {
    fn of_this_process() -> Option<Self> {
        use rustix::fs::{Mode, OFlags};
        let fd = rustix::fs::open(
            "/dev/tty",
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )
        .ok()?;
        Some(Self {
            fd,
            group: rustix::process::getpgrp(),
        })
    }

    fn is_ours(&self) -> bool {
        rustix::termios::tcgetpgrp(self.fd.as_fd()) == Ok(self.group)
    }

    /// The foreground group, if it is not ours.
    fn foreground_of_others(&self) -> Option<Pid> {
        rustix::termios::tcgetpgrp(self.fd.as_fd())
            .ok()
            .filter(|group| *group != self.group)
    }

    fn give_to(&self, group: Pid) {
        // SIGTTOU is blocked, as all signals are; a group that is gone is no loss.
        let _ = rustix::termios::tcsetpgrp(self.fd.as_fd(), group);
    }

    /// A job-control shell inside gave the terminal to groups of its own; the kernel does not give it back.
    fn reclaim(&self) {
        let foreground = rustix::termios::tcgetpgrp(self.fd.as_fd());
        let abandoned = match foreground {
            Ok(group) => {
                group != self.group && rustix::process::test_kill_process_group(group) == Err(rustix::io::Errno::SRCH)
            }
            Err(_) => true,
        };
        if abandoned {
            self.give_to(self.group);
        }
    }
}

impl Signals {
    /// The exit status for the shell. A program that a terminal's interrupt ended takes this process along by the same
    /// signal, because that is how a shell knows to stop its loop; the shell's `$?` is 130 either way.
    pub(crate) fn leave(&self, signal: i32) -> u8 {
        if signal == Signal::INT.as_raw() && self.terminal_interrupt {
            set_default(signal);
            while take_pending(signal) {}
            if set_mask(&SignalSet::full_without(signal)).is_ok() {
                raise(signal);
            }
        }
        u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX)
    }
}
