//! The controlling terminal and whose turn it is. tty_ioctl(4), setpgid(2).

use nexus_sys::process::group_of;
use rustix::process::Pid;
use std::os::fd::{AsFd, OwnedFd};

/// The controlling terminal, if this process has one.
pub(crate) struct Terminal {
    fd: OwnedFd,
    group: Pid,
}

impl Terminal {
    pub(crate) fn of_this_process() -> Option<Self> {
        use rustix::fs::{Mode, OFlags};
        // A group from outside a container has no number here, and no terminal can be given to it.
        let group = Pid::from_raw(group_of(0).ok()?)?;
        let fd = rustix::fs::open(
            "/dev/tty",
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )
        .ok()?;
        Some(Self { fd, group })
    }

    pub(crate) fn is_ours(&self) -> bool {
        rustix::termios::tcgetpgrp(self.fd.as_fd()) == Ok(self.group)
    }

    /// The foreground group, if it is one inside the sandbox: a shell there made it.
    pub(crate) fn foreground_inside(&self) -> Option<Pid> {
        let group = rustix::termios::tcgetpgrp(self.fd.as_fd()).ok()?;
        (group != self.group && depth(group) > depth(rustix::process::getpid())).then_some(group)
    }

    pub(crate) fn give_to(&self, group: Pid) {
        // SIGTTOU is blocked, as all signals are; a group that is gone is no loss.
        let _ = rustix::termios::tcsetpgrp(self.fd.as_fd(), group);
    }

    /// A job-control shell inside gave the terminal to groups of its own; the kernel does not give it back.
    pub(crate) fn reclaim(&self) {
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
        self.release();
    }

    /// Takes back what would outlast the program: output that it stopped, behind which our own last words would wait for ever,
    /// and a terminal that nobody may open any more. Neither was so when this one was opened. tty_ioctl(4).
    fn release(&self) {
        // A terminal that has gone away needs neither.
        let _ = rustix::termios::tcflow(self.fd.as_fd(), rustix::termios::Action::OOn);
        let _ = rustix::termios::ioctl_tiocnxcl(self.fd.as_fd());
    }
}

/// In how many pid namespaces a process has a number, 0 for one that is gone. proc_pid_status(5), `NSpid`.
fn depth(pid: Pid) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map_or(0, |numbers| numbers.split_ascii_whitespace().count())
}
