//! `--status-fd`: what became of the run, for a program that started it.
//!
//! One JSON object a line, with `"version": 1`: `started` with the session and the pid of
//! its init, then `exited` with `code` or `signaled`
//! with `signal`; or `failed` with nx's own exit code, which the program cannot fake.

use super::failure::Failure;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags};
use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;

pub(crate) struct Status {
    file: Option<File>,
}

impl Status {
    pub(crate) fn new(fd: Option<RawFd>) -> Self {
        // A copy by the kernel, so that no number is taken for an owned descriptor; the original is closed in every
        // process that this one makes.
        let file = fd.and_then(|fd| copy(fd).ok());
        Self { file }
    }

    /// Whether the descriptor that was asked for can be written to.
    pub(crate) fn is_missing(&self, fd: Option<RawFd>) -> bool {
        fd.is_some() && self.file.is_none()
    }

    fn tell(&mut self, event: &serde_json::Value) {
        if let Some(file) = &mut self.file {
            // Who closed its end does not want to know.
            let _ = writeln!(file, "{event}");
        }
    }

    pub(crate) fn started(&mut self, session: &str, init: i32) {
        self.tell(&serde_json::json!({"version": 1, "event": "started", "session": session, "init_pid": init}));
    }

    pub(crate) fn exited(&mut self, code: i32) {
        self.tell(&serde_json::json!({"version": 1, "event": "exited", "code": code}));
    }

    pub(crate) fn signaled(&mut self, signal: i32) {
        self.tell(&serde_json::json!({"version": 1, "event": "signaled", "signal": signal}));
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.tell(&serde_json::json!({
            "version": 1, "event": "failed", "exit": failure.exit.code(),
            "message": failure.message, "help": failure.help,
        }));
    }
}

/// A copy of this process's own descriptor, if it can be written to.
fn copy(fd: RawFd) -> std::io::Result<File> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let copy = match rustix::process::pidfd_getfd(own, fd, PidfdGetfdFlags::empty()) {
        Ok(copy) => File::from(copy),
        // A container's filter may deny the call. What another user made cannot be opened again.
        Err(Errno::PERM | Errno::NOSYS) => File::options().append(true).open(format!("/proc/self/fd/{fd}"))?,
        Err(error) => return Err(error.into()),
    };
    let mode = rustix::fs::fcntl_getfl(&copy)? & OFlags::RWMODE;
    if mode == OFlags::RDONLY {
        Err(Errno::BADF.into())
    } else {
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_descriptor_that_can_be_written_is_taken_and_one_that_can_only_be_read_is_not() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(copy(writer.as_raw_fd()).is_ok());
        assert!(copy(reader.as_raw_fd()).is_err());
        let null = File::open("/dev/null").unwrap();
        assert!(copy(null.as_raw_fd()).is_err());
        let status = Status::new(Some(null.as_raw_fd()));
        assert!(status.is_missing(Some(null.as_raw_fd())));
    }
}
