//! Trying something in a process of its own, so that nothing is left behind and nothing waits for ever.

use nexus_sys::process::{Child, CloneFlags, Fork, clone, exit_now};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a probe may take. Each is a handful of syscalls; what takes longer hangs.
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a killed probe may take to be gone. One that waits in the kernel without heeding signals is left behind
/// rather than waited for.
const KILL_TIME_MAX: Duration = Duration::from_millis(500);

/// The longest answer: what a pipe takes in one piece (`PIPE_BUF`, pipe(7)), so that none is ever read half.
const ANSWER_BYTES_MAX: usize = 4096;

/// Where a probe ended without having seen what it looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What was tried, as "cannot …" goes on.
    pub(crate) step: String,
    /// The kernel's answer.
    pub(crate) errno: Errno,
}

impl Refused {
    pub(crate) fn at(step: &str) -> impl Fn(Errno) -> Self + '_ {
        move |errno| Self {
            step: step.to_owned(),
            errno,
        }
    }

    pub(crate) fn io(step: &str) -> impl Fn(std::io::Error) -> Self + '_ {
        move |error| Self {
            step: step.to_owned(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step, reason(self.errno))
    }
}

/// A process that may not open one more file: says nothing of the machine.
pub(crate) const TOO_MANY_OPEN: &str = "EMFILE";

/// An errno in words, with its number's name: what a reader knows and what a search finds.
pub(crate) fn reason(errno: Errno) -> String {
    let name = match errno {
        Errno::PERM => "EPERM",
        Errno::ACCESS => "EACCES",
        Errno::NOSPC => "ENOSPC",
        Errno::USERS => "EUSERS",
        Errno::NOSYS => "ENOSYS",
        Errno::INVAL => "EINVAL",
        Errno::NODEV => "ENODEV",
        Errno::NOENT => "ENOENT",
        Errno::BUSY => "EBUSY",
        Errno::ROFS => "EROFS",
        Errno::AGAIN => "EAGAIN",
        Errno::DQUOT => "EDQUOT",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::NOPROTOOPT => "ENOPROTOOPT",
        Errno::NOTDIR => "ENOTDIR",
        Errno::NXIO => "ENXIO",
        Errno::IO => "EIO",
        Errno::MFILE => TOO_MANY_OPEN,
        other => return std::io::Error::from(other).to_string().to_lowercase(),
    };
    let words = std::io::Error::from(errno).to_string();
    let words = words.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("{words} ({name})")
}

/// Why a probe gave no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The process could not be made.
    Clone(Errno),
    /// Its user could not be mapped into its user namespace.
    Map(Errno),
    /// It was made, and refused later.
    Refused(Refused),
    /// It did not answer within [`PROBE_TIME_MAX`] and was killed.
    Stuck,
    /// It ended without an answer.
    Died,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clone(errno) => write!(f, "cannot make a process for it: {}", reason(*errno)),
            Self::Map(errno) => write!(f, "cannot map the user into the namespace: {}", reason(*errno)),
            Self::Refused(refused) => refused.fmt(f),
            Self::Stuck => write!(f, "no answer within {} s", PROBE_TIME_MAX.as_secs()),
            Self::Died => f.write_str("the probe ended without an answer"),
        }
    }
}

impl Failure {
    /// The kernel's answer, where there was one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Clone(errno) | Self::Map(errno) | Self::Refused(Refused { errno, .. }) => Some(*errno),
            Self::Stuck | Self::Died => None,
        }
    }
}

/// Runs `probe` in a child made with `flags`, as the same user, and returns what it saw.
///
/// The calling process must have one thread.
pub(crate) fn run(flags: CloneFlags, probe: impl FnOnce() -> Result<String, Refused>) -> Result<String, Failure> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Failure::Clone);
    let (answer, answer_end) = pipe()?;
    let (go, go_end) = pipe()?;
    match clone(flags).map_err(|error| Failure::Clone(Refused::io("")(error).errno))? {
        Fork::Child => {
            drop((answer, go_end));
            child(&answer_end, &go, probe)
        }
        Fork::Parent(child) => {
            drop((answer_end, go));
            let child = Running(child);
            if flags != CloneFlags::NONE {
                map_user(child.0.pid).map_err(|error| Failure::Map(Refused::io("")(error).errno))?;
            }
            // A child that is gone already is seen below.
            let _ = rustix::io::write(&go_end, &[1]);
            drop(go_end);
            listen(&answer)
        }
    }
}

/// A probe's process; gone when this is.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        if readable(self.0.pidfd.as_fd(), KILL_TIME_MAX) {
            let _ = rustix::process::waitid(WaitId::PidFd(self.0.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

fn child(answer: &OwnedFd, go: &OwnedFd, probe: impl FnOnce() -> Result<String, Refused>) -> ! {
    /// Ends the process where a panic would run on into the parent's copy of the stack.
    struct Barrier;
    impl Drop for Barrier {
        fn drop(&mut self) {
            exit_now(1);
        }
    }
    let _barrier = Barrier;
    // Without it a probe would outlive a doctor that is killed; a kernel that refuses it is no reason to stop.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut byte = [0];
    if rustix::io::read(go, &mut byte) != Ok(1) {
        exit_now(1);
    }
    let message = encode(&probe());
    // Nobody to tell if the parent is gone.
    let _ = rustix::io::write(answer, &message);
    exit_now(0)
}

fn listen(answer: &OwnedFd) -> Result<String, Failure> {
    if !readable(answer.as_fd(), PROBE_TIME_MAX) {
        return Err(Failure::Stuck);
    }
    let mut message = [0; ANSWER_BYTES_MAX];
    let count = rustix::io::read(answer, &mut message).unwrap_or(0);
    decode(message.get(..count).unwrap_or_default())
}

/// Whether there is something to read within the time.
pub(crate) fn readable(fd: BorrowedFd<'_>, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) if !left.is_zero() => {}
            Err(_) => return false,
        }
    }
}

/// user_namespaces(7), "Defining user and group ID mappings": the caller, as itself.
pub(crate) fn map_user(pid: i32) -> std::io::Result<()> {
    let write = |file: &str, text: String| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/{file}"))?
            .write_all(text.as_bytes())
    };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

// "+detail", or "-errno step".
fn encode(result: &Result<String, Refused>) -> Vec<u8> {
    let mut text = match result {
        Ok(detail) => format!("+{detail}"),
        Err(Refused { step, errno }) => format!("-{} {step}", errno.raw_os_error()),
    };
    while text.len() > ANSWER_BYTES_MAX {
        text.pop();
    }
    text.into_bytes()
}

fn decode(message: &[u8]) -> Result<String, Failure> {
    let text = str::from_utf8(message).map_err(|_| Failure::Died)?;
    if let Some(detail) = text.strip_prefix('+') {
        return Ok(detail.to_owned());
    }
    let (errno, step) = text
        .strip_prefix('-')
        .and_then(|rest| rest.split_once(' '))
        .ok_or(Failure::Died)?;
    let errno = errno
        .parse()
        .ok()
        .filter(|errno| (1..4096).contains(errno))
        .ok_or(Failure::Died)?;
    Err(Failure::Refused(Refused {
        step: step.to_owned(),
        errno: Errno::from_raw_os_error(errno),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_answer_of_arbitrary_bytes_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn an_answer_arrives_as_it_was_sent(text in ".{0,100}", errno in 1..4096_i32) {
            prop_assert_eq!(decode(&encode(&Ok(text.clone()))), Ok(text.clone()));
            let refused = Refused { step: text, errno: Errno::from_raw_os_error(errno) };
            prop_assert_eq!(decode(&encode(&Err(refused.clone()))), Err(Failure::Refused(refused)));
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_between_characters() {
        let message = encode(&Ok("ä".repeat(ANSWER_BYTES_MAX)));
        assert!(message.len() <= ANSWER_BYTES_MAX);
        assert!(decode(&message).is_ok());
    }

    #[test]
    fn an_errno_is_said_in_words_and_by_name() {
        assert_eq!(reason(Errno::PERM), "operation not permitted (EPERM)");
        assert!(reason(Errno::NAMETOOLONG).contains("os error 36"));
    }
}
