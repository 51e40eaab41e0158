//! What a waiting call's thread holds: looked at once, while the thread waits.

use crate::away::status;
use crate::taken::Taken;
use crate::{Stop, int};
use nexus_abi::Errno;
use nexus_sys::seccomp::{Listener, Notification};
use nexus_sys::{memory, process, procfs, socket::ADDRESS_BYTES_MAX};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;

/// How many threads' descriptors are kept.
const KEPT_MAX: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// A descriptor for a thread, as its call still waited when it was made.
struct Kept {
    tid: u32,
    whose: Whose,
    pidfd: OwnedFd,
}

/// Whose life a descriptor tells of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Thread,
    Process,
}

/// The thread behind a notification.
pub(crate) struct Caller<'a> {
    call: &'a Notification,
    listener: &'a Listener,
    /// Nothing was learnt by the thread's number since it was last known to live.
    known: Cell<bool>,
}

impl<'a> Caller<'a> {
    pub(crate) fn of(call: &'a Notification, listener: &'a Listener) -> Self {
        Self {
            call,
            listener,
            known: Cell::new(false),
        }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.call.id
    }

    /// Its number; whoever asks for it is about to look at the thread.
    pub(crate) fn tid(&self) -> u32 {
        self.known.set(false);
        self.call.tid
    }

    /// Whatever was learnt by the thread's number was about the right thread only if its call still waits now. Asked once,
    /// after the last look and before the first act: who waits now has waited all the time, and its number was nobody
    /// else's meanwhile.
    ///
    /// The kernel is not asked where [`Self::take`] was the last look: it then found the thread alive by a descriptor that is
    /// this thread's and no other's, and a number stays its thread's for as long as that lives. Only death ends a call that
    /// was read (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`).
    pub(crate) fn still(&self) -> Result<(), Stop> {
        // Nobody hears the answer of a call that is gone.
        if self.known.get() || self.listener.is_waiting(self.call.id) {
            Ok(())
        } else {
            Err(Errno::ESRCH.into())
        }
    }

    /// Our own descriptor for the file behind the caller's: what we judge and what we act on are one thing, whatever
    /// the caller does to its table. pidfd_getfd(2). Whose it is, [`Self::still`] says.
    pub(crate) fn take(&self, register: u64) -> Result<Taken, Stop> {
        let number = int(register);
        if number < 0 {
            return Err(Errno::EBADF.into());
        }
        self.get(number)
    }

    /// A descriptor for a thread stays good as long as the thread lives, and no other gets its number before: the last few
    /// are kept, because a program makes many calls from few threads.
    fn get(&self, number: i32) -> Result<Taken, Stop> {
        let from = |pidfd: &OwnedFd| process::descriptor_of(pidfd, number);
        let kept = KEPT.with_borrow(|kept| {
            let kept = kept.iter().find(|kept| kept.tid == self.call.tid);
            kept.map(|kept| (kept.whose, from(&kept.pidfd)))
        });
        match kept {
            // It was another thread of that number.
            None | Some((_, Err(rustix::io::Errno::SRCH))) => {}
            Some((whose, Ok(fd))) => {
                if whose == Whose::Thread {
                    self.known.set(true);
                }
                return Ok(fd.into());
            }
            Some((_, Err(error))) => return Err(error.into()),
        }
        let (whose, pidfd) = self.name()?;
        let fd = from(&pidfd).map(Taken::from);
        // What is kept is this caller's, and no other's who got the number meanwhile.
        self.known.set(false);
        self.still()?;
        let tid = self.call.tid;
        KEPT.with_borrow_mut(|kept| {
            kept.retain(|kept| kept.tid != tid);
            kept.truncate(KEPT_MAX - 1);
            kept.insert(0, Kept { tid, whose, pidfd });
        });
        self.known.set(true);
        fd.map_err(Into::into)
    }

    /// For the caller's thread where the kernel can name it (Linux 6.9), else for its process.
    pub(crate) fn pidfd(&self) -> Result<OwnedFd, Stop> {
        self.known.set(false);
        self.name().map(|(_, pidfd)| pidfd)
    }

    fn name(&self) -> Result<(Whose, OwnedFd), Stop> {
        match process::thread_pidfd(self.call.tid) {
            Err(error) if error.raw_os_error() == Some(i32::from(Errno::EINVAL.raw())) => {}
            other => return other.map(|pidfd| (Whose::Thread, pidfd)).map_err(Into::into),
        }
        // Before Linux 6.9 only a group's leader has a pidfd; its table is the thread's, for all that the filter lets
        // threads do.
        let group = self
            .status("Tgid:")?
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Errno::ESRCH)?;
        let pidfd = rustix::process::pidfd_open(group, PidfdFlags::empty())?;
        Ok((Whose::Process, pidfd))
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
            memory::read(self.tid(), pointer, &mut bytes)?
        };
        if read == length {
            Ok(bytes)
        } else {
            Err(Errno::EFAULT.into())
        }
    }

    /// The caller's working directory. proc_pid_cwd(5).
    pub(crate) fn directory(&self) -> Result<OwnedFd, Stop> {
        let path = format!("/proc/{}/cwd", self.tid());
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

    /// The caller's process. proc_pid_status(5).
    pub(crate) fn process(&self) -> Result<u32, Stop> {
        Ok(self.status("Tgid:")?.parse().map_err(|_| Errno::ESRCH)?)
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
        let text = procfs::read(self.tid(), &format!("fdinfo/{}", int(register)));
        let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        let flags = text
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap_or_default();
        u64::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & u64::from(OFlags::CLOEXEC.bits()) != 0)
    }

    fn status(&self, field: &str) -> Result<String, Stop> {
        let text = status(self.tid())?;
        self.still()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .ok_or(Errno::EIO)?;
        Ok(value.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call of this thread that does not wait: nobody is filtered here.
    fn over() -> (Notification, Listener) {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let call = Notification {
            id: 1,
            tid,
            arch: 0,
            number: 0,
            args: [0; 6],
        };
        (
            call,
            Listener::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap())),
        )
    }

    fn keep(whose: Whose) {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let pidfd = match whose {
            Whose::Thread => process::thread_pidfd(tid).unwrap(),
            Whose::Process => rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap(),
        };
        KEPT.with_borrow_mut(|kept| kept.insert(0, Kept { tid, whose, pidfd }));
    }

    #[test]
    fn nothing_is_learnt_of_and_nothing_kept_for_a_call_that_is_over() {
        let (call, listener) = over();
        let caller = Caller::of(&call, &listener);
        let here = [1_u8; 4];
        assert_eq!(caller.bytes(here.as_ptr().addr() as u64, 4).unwrap(), here);
        assert!(caller.still().is_err() && caller.umask().is_err() && caller.directory().is_err());
        assert!(caller.take(0).is_err());
        assert!(KEPT.with_borrow(Vec::is_empty));
    }

    #[test]
    fn a_descriptor_that_was_taken_of_the_thread_itself_vouches_for_what_was_read_before_it_and_not_after() {
        let (call, listener) = over();
        let caller = Caller::of(&call, &listener);
        let here = std::ptr::from_ref(&call).addr() as u64;
        keep(Whose::Thread);
        caller.bytes(here, 4).unwrap();
        assert!(caller.still().is_err());
        caller.take(0).unwrap();
        assert!(caller.still().is_ok());
        let looks: [fn(&Caller<'_>, u64); 6] = [
            |caller, here| drop(caller.bytes(here, 4)),
            |caller, _| _ = caller.tid(),
            |caller, _| _ = caller.closes_on_exec(0),
            |caller, _| drop(caller.umask()),
            |caller, _| drop(caller.directory()),
            |caller, _| drop(caller.pidfd()),
        ];
        for look in looks {
            caller.take(0).unwrap();
            look(&caller, here);
            assert!(caller.still().is_err());
        }
        assert!(caller.take(u64::from(u32::MAX)).is_err() && caller.take(9999).is_err());
        assert!(caller.still().is_err());
    }

    #[test]
    fn a_descriptor_of_the_process_says_nothing_of_its_thread() {
        let (call, listener) = over();
        let caller = Caller::of(&call, &listener);
        keep(Whose::Process);
        caller.take(0).unwrap();
        assert!(caller.still().is_err());
    }
}
