//! What a waiting call's thread holds: looked at once, while the thread waits.

use crate::{Stop, int};
use nexus_abi::Errno;
use nexus_sys::seccomp::{Listener, Notification};
use nexus_sys::{memory, process, socket::ADDRESS_BYTES_MAX};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use std::os::fd::OwnedFd;

/// How many threads' descriptors are kept.
const KEPT_MAX: usize = 8;

thread_local! {
    static KEPT: std::cell::RefCell<Vec<(u32, OwnedFd)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The thread behind a notification.
pub(crate) struct Caller<'a> {
    call: &'a Notification,
    listener: &'a Listener,
}

impl<'a> Caller<'a> {
    pub(crate) fn of(call: &'a Notification, listener: &'a Listener) -> Self {
        Self { call, listener }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.call.id
    }

    pub(crate) const fn tid(&self) -> u32 {
        self.call.tid
    }

    /// Whatever was learnt by the thread's number was about the right thread only if its call still waits now. Asked once,
    /// after the last look and before the first act: who waits now has waited all the time, and its number was nobody
    /// else's meanwhile.
    pub(crate) fn still(&self) -> Result<(), Stop> {
        // Nobody hears the answer of a call that is gone.
        if self.listener.is_waiting(self.call.id) {
            Ok(())
        } else {
            Err(Errno::ESRCH.into())
        }
    }

    /// Our own descriptor for the file behind the caller's: what we judge and what we act on are one thing, whatever
    /// the caller does to its table. pidfd_getfd(2). Whose it is, [`Self::still`] says.
    pub(crate) fn take(&self, register: u64) -> Result<OwnedFd, Stop> {
        let number = int(register);
        if number < 0 {
            return Err(Errno::EBADF.into());
        }
        self.get(number)
    }

    /// A descriptor for a thread stays good as long as the thread lives, and no other gets its number before: the last few
    /// are kept, because a program makes many calls from few threads.
    fn get(&self, number: i32) -> Result<OwnedFd, Stop> {
        let from = |pidfd: &OwnedFd| rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty());
        let kept = KEPT.with_borrow(|kept| {
            kept.iter()
                .find(|(tid, _)| *tid == self.call.tid)
                .map(|(_, fd)| from(fd))
        });
        match kept {
            // It was another thread of that number.
            None | Some(Err(rustix::io::Errno::SRCH)) => {}
            Some(other) => return other.map_err(Into::into),
        }
        let pidfd = self.pidfd()?;
        let fd = from(&pidfd);
        KEPT.with_borrow_mut(|kept| {
            kept.retain(|(tid, _)| *tid != self.call.tid);
            kept.truncate(KEPT_MAX - 1);
            kept.insert(0, (self.call.tid, pidfd));
        });
        fd.map_err(Into::into)
    }

    /// For the caller's thread where the kernel can name it (Linux 6.9), else for its process.
    pub(crate) fn pidfd(&self) -> Result<OwnedFd, Stop> {
        match process::thread_pidfd(self.call.tid) {
            Err(error) if error.raw_os_error() == Some(i32::from(Errno::EINVAL.raw())) => {}
            other => return other.map_err(Into::into),
        }
        // Before Linux 6.9 only a group's leader has a pidfd; its table is the thread's, for all that the filter lets
        // threads do.
        let group = self
            .status("Tgid:")?
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Errno::ESRCH)?;
        rustix::process::pidfd_open(group, PidfdFlags::empty()).map_err(Into::into)
    }

    /// The address that the caller gave, copied once, as [`Self::bytes`] does.
    pub(crate) fn address(&self, pointer: u64, length: u64) -> Result<Vec<u8>, Stop> {
        let length = usize::try_from(int(length)).map_err(|_| Errno::EINVAL)?;
        if length > ADDRESS_BYTES_MAX {
            return Err(Errno::EINVAL.into());
        }
        self.bytes(pointer, length)
    }

    /// Bytes of the caller's memory, copied once, all or none. `length` is bounded by whoever asks. Whose they are,
    /// [`Self::still`] says.
    pub(crate) fn bytes(&self, pointer: u64, length: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = vec![0; length];
        let read = if length == 0 {
            0
        } else {
            memory::read(self.call.tid, pointer, &mut bytes)?
        };
        if read == length {
            Ok(bytes)
        } else {
            Err(Errno::EFAULT.into())
        }
    }

    /// The caller's working directory. proc_pid_cwd(5).
    pub(crate) fn directory(&self) -> Result<OwnedFd, Stop> {
        let path = format!("/proc/{}/cwd", self.call.tid);
        let fd = rustix::fs::openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        self.still()?;
        fd.map_err(Into::into)
    }

    /// The caller's umask. proc_pid_status(5), Linux 4.7.
    pub(crate) fn umask(&self) -> Result<u32, Stop> {
        u32::from_str_radix(&self.status("Umask:")?, 8).map_err(|_| Errno::EIO.into())
    }

    /// The caller's number in the innermost pid namespace. proc_pid_status(5).
    pub(crate) fn inner_number(&self) -> Result<i32, Stop> {
        self.innermost("NSpid:")
    }

    /// The caller's process there.
    pub(crate) fn inner_process(&self) -> Result<i32, Stop> {
        self.innermost("NStgid:")
    }

    fn innermost(&self, field: &str) -> Result<i32, Stop> {
        let numbers = self.status(field)?;
        numbers
            .split_ascii_whitespace()
            .last()
            .and_then(|number| number.parse().ok())
            .ok_or(Errno::ESRCH.into())
    }

    /// Whether the caller's descriptor is closed on exec. proc_pid_fdinfo(5).
    pub(crate) fn closes_on_exec(&self, register: u64) -> bool {
        let path = format!("/proc/{}/fdinfo/{}", self.call.tid, int(register));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let flags = text
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap_or_default();
        u64::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & u64::from(OFlags::CLOEXEC.bits()) != 0)
    }

    fn status(&self, field: &str) -> Result<String, Stop> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.call.tid))?;
        self.still()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .ok_or(Errno::EIO)?;
        Ok(value.trim().to_owned())
    }
}
