//! A process beside the view that gives the terminal back where the view can not: killed by `SIGKILL`, or by a fault of its own.
//!
//! The kernel closes what a process had open before it tells its parent of its end: what is done here mostly comes before a
//! shell looks at the terminal again. Where the shell is first, its settings stay.

use super::{LEAVE, write_all};
use nexus_sys::process::{Child, CloneFlags, Fork, clone, exit_now};
use nexus_sys::signal::{SignalSet, set_mask};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, setpgid, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long it is waited for: it does nothing but answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

const REMEMBER: u8 = b'R';
const FORGET: u8 = b'F';

/// The view's side.
#[derive(Debug)]
pub(super) struct Guardian {
    line: UnixStream,
    child: Child,
}

impl Guardian {
    /// Starts it. The caller must have one thread.
    pub(super) fn start() -> io::Result<Self> {
        let (line, other) = UnixStream::pair()?;
        line.set_read_timeout(Some(ANSWER_WAIT))?;
        match clone(CloneFlags::NONE)? {
            Fork::Child => {
                drop(line);
                watch(other);
                exit_now(0)
            }
            Fork::Parent(child) => Ok(Self { line, child }),
        }
    }

    /// Has it remember the terminal's settings as they are, which are changed after this.
    pub(super) fn remember(&mut self) -> io::Result<()> {
        self.line.write_all(&[REMEMBER])?;
        self.line.read_exact(&mut [0])
    }

    /// They are given back.
    pub(super) fn forget(&mut self) {
        // One that is gone has nothing to forget.
        let _ = self.line.write_all(&[FORGET]);
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Also one that somebody stopped ends so, and nothing is waited for.
        let _ = pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

fn watch(mut line: UnixStream) {
    // Whatever ends the view, this stays: with SIGTTOU blocked it may set the terminal from the background (termios(3)), and in
    // a group of its own it is not meant where the job is.
    let _ = set_mask(&SignalSet::full());
    let _ = setpgid(None, None);
    let (mut before, mut order) = (None, [0]);
    while matches!(line.read(&mut order), Ok(1)) {
        before = if order == [REMEMBER] {
            tcgetattr(io::stdin()).ok()
        } else {
            None
        };
        if order == [REMEMBER] && line.write_all(&order).is_err() {
            break;
        }
    }
    // The view ended, and did not say that it gave back what it took.
    if let Some(before) = before {
        give_back(&before);
    }
}

fn give_back(before: &Termios) {
    let mut taken = before.clone();
    taken.make_raw();
    let modes = |one: &Termios| (one.input_modes, one.output_modes, one.local_modes);
    // Only what the view set itself: a shell that was quicker has set what it wants.
    if tcgetattr(io::stdin()).is_ok_and(|now| modes(&now) == modes(&taken)) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    }
    let _ = write_all(LEAVE);
}
