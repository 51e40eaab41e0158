//! Filters and their notifications: seccomp(2), seccomp_unotify(2).

use crate::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of a classic BPF program (`struct sock_filter`, linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How far to jump if true.
    pub jump_true: u8,
    /// How far to jump if false.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV, &prog)` seccomp(2), Linux 5.19.
///
/// Filters the calling thread from now on and returns the number of the listener's descriptor, which is closed on
/// exec. It is returned as a number because after this call the thread may no longer be able to close it.
///
/// # Errors
/// `EINVAL` for a program that the kernel refuses or before Linux 5.19; `EBUSY` if a listener exists already;
/// `EACCES` without no_new_privs.
pub fn install_with_listener(program: &[Instruction]) -> io::Result<i32> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let fprog = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: `Instruction` has the layout of `sock_filter` (repr(C), same fields); the kernel copies `len` of them
    // from `program`, which lives over the call, and does not write through the pointer.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const fprog,
        )
    })?;
    i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// Takes the descriptor number that [`install_with_listener`] gave in another task sharing the table.
///
/// # Errors
/// `EBADF` if no such descriptor is open.
pub fn adopt_listener(number: i32) -> io::Result<Listener> {
    // SAFETY: F_GETFD only asks whether the descriptor is open.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    // SAFETY: the descriptor is open, and the task that made it leaves it alone: it ends or executes a program, which
    // gives it a table of its own.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(Listener { fd })
}

/// A call that waits for its verdict (`struct seccomp_notif`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The cookie to answer with.
    pub id: u64,
    /// The calling thread, in the pid namespace of whoever reads this. 0 if it cannot be seen from there.
    pub tid: u32,
    /// `AUDIT_ARCH_*` of the calling convention.
    pub arch: u32,
    /// The syscall's number in that convention.
    pub number: i32,
    /// The six argument registers.
    pub args: [u64; 6],
}

/// The end at which notifications are read and answered.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const SECCOMP_IOC_MAGIC: u64 = 0x21;
const fn ioc(direction: u64, number: u64, size: usize) -> libc::c_ulong {
    (direction << 30) | ((size as u64) << 16) | (SECCOMP_IOC_MAGIC << 8) | number
}
const IOCTL_NOTIF_RECV: libc::c_ulong = ioc(3, 0, size_of::<libc::seccomp_notif>());
const IOCTL_NOTIF_SEND: libc::c_ulong = ioc(3, 1, size_of::<libc::seccomp_notif_resp>());
const IOCTL_NOTIF_ID_VALID: libc::c_ulong = ioc(1, 2, size_of::<u64>());
const IOCTL_NOTIF_ADDFD: libc::c_ulong = ioc(1, 3, size_of::<libc::seccomp_notif_addfd>());
const IOCTL_NOTIF_SET_FLAGS: libc::c_ulong = ioc(1, 4, size_of::<u64>());
const USER_NOTIF_FD_SYNC_WAKE_UP: libc::c_ulong = 1;

/// Makes a request again that a signal kept from its turn: these wait for a lock of the filter's, which whoever asks or
/// answers at the same time has for a moment (`mutex_lock_interruptible`, kernel/seccomp.c). An answer that was lost by
/// that would leave its caller waiting for ever, and a call that waits would seem gone.
fn until_told(mut request: impl FnMut() -> libc::c_int) -> io::Result<libc::c_long> {
    loop {
        match check(request().into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Listener {
    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP)` Linux 6.6. Returns whether the kernel has it.
    #[must_use]
    pub fn set_sync_wake_up(&self) -> bool {
        // SAFETY: this request takes its argument by value.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), IOCTL_NOTIF_SET_FLAGS, USER_NOTIF_FD_SYNC_WAKE_UP) == 0 }
    }

    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &notif)` seccomp_unotify(2). Waits for a call.
    ///
    /// # Errors
    /// `ENOENT` if the call was given up before it was read or nobody is filtered any more; `EINTR`.
    pub fn receive(&self) -> io::Result<Notification> {
        // SAFETY: all zeroes is a valid `seccomp_notif`, and what the kernel asks for.
        let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request writes a `seccomp_notif`, which `notif` is; its size is in the request's number.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), IOCTL_NOTIF_RECV, &raw mut notif) }.into())?;
        Ok(Notification {
            id: notif.id,
            tid: notif.pid,
            arch: notif.data.arch,
            number: notif.data.nr,
            args: notif.data.args,
        })
    }

    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id)` seccomp_unotify(2): whether the call still waits, so that what
    /// was learnt about its thread in the meantime was about the right one.
    #[must_use]
    pub fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the request reads a u64, which `id` is.
        until_told(|| unsafe { libc::ioctl(self.fd.as_raw_fd(), IOCTL_NOTIF_ID_VALID, &raw const id) }).is_ok()
    }

    fn send(&self, id: u64, value: i64, error: i32) -> io::Result<()> {
        let response = libc::seccomp_notif_resp {
            id,
            val: value,
            error,
            flags: 0,
        };
        // SAFETY: the request reads a `seccomp_notif_resp`, which `response` is.
        until_told(|| unsafe { libc::ioctl(self.fd.as_raw_fd(), IOCTL_NOTIF_SEND, &raw const response) }).map(drop)
    }

    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, …)`: the call returns `value`. The call itself never runs; this module has
    /// no way to let it (`SECCOMP_USER_NOTIF_FLAG_CONTINUE`), because its arguments may have changed since.
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone.
    pub fn succeed(&self, id: u64, value: i64) -> io::Result<()> {
        self.send(id, value, 0)
    }

    /// The call fails with this errno, 1 to 4095.
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone.
    pub fn fail(&self, id: u64, errno: u16) -> io::Result<()> {
        self.send(id, 0, -i32::from(errno))
    }

    /// The call gives way to a signal that is pending: it is restarted after a handler with `SA_RESTART`, else it
    /// returns `EINTR` (`ERESTARTSYS`, linux/errno.h).
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone.
    pub fn interrupt(&self, id: u64) -> io::Result<()> {
        const ERESTARTSYS: i32 = 512;
        self.send(id, 0, -ERESTARTSYS)
    }

    fn add(&self, id: u64, fd: BorrowedFd<'_>, at: Option<u32>, cloexec: bool, answer: bool) -> io::Result<i32> {
        let mut flags = 0;
        if at.is_some() {
            flags |= libc::SECCOMP_ADDFD_FLAG_SETFD as u32;
        }
        if answer {
            flags |= libc::SECCOMP_ADDFD_FLAG_SEND as u32;
        }
        let request = libc::seccomp_notif_addfd {
            id,
            flags,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: at.unwrap_or(0),
            newfd_flags: if cloexec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        // SAFETY: the request reads a `seccomp_notif_addfd`, which `request` is.
        until_told(|| unsafe { libc::ioctl(self.fd.as_raw_fd(), IOCTL_NOTIF_ADDFD, &raw const request) })
            .and_then(|fd| i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW)))
    }

    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, {SEND})` Linux 5.14: gives the caller a descriptor of its own for `fd`
    /// and makes that the call's result, in one step.
    ///
    /// # Errors
    /// `EMFILE` if the caller has no room, `ENOENT` if it is gone.
    pub fn succeed_with_descriptor(&self, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<i32> {
        self.add(id, fd, None, cloexec, true)
    }

    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD)` Linux 5.9: puts `fd` into the caller's lowest free descriptor and returns its
    /// number. The call still waits for its answer, so that the one who gives can let go before the caller goes on.
    ///
    /// # Errors
    /// `EMFILE` past the caller's limit, `ENOENT` if it is gone.
    pub fn give_descriptor(&self, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<i32> {
        self.add(id, fd, None, cloexec, false)
    }

    /// `ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, {SETFD})` Linux 5.9: puts `fd` over the caller's descriptor `number`. The
    /// call still waits for its answer.
    ///
    /// # Errors
    /// `EBADF` past the caller's limit, `ENOENT` if it is gone.
    pub fn replace_descriptor(&self, id: u64, fd: BorrowedFd<'_>, number: u32, cloexec: bool) -> io::Result<i32> {
        self.add(id, fd, Some(number), cloexec, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_a_signal_stopped_is_made_again_and_another_error_is_told() {
        let set = |errno: i32| {
            // SAFETY: it takes nothing and gives the place of this thread's `errno`.
            let place = unsafe { libc::__errno_location() };
            // SAFETY: the place is this thread's own, and lives as long as it.
            unsafe { *place = errno };
            -1
        };
        let mut tries = 0;
        let answered = until_told(|| {
            tries += 1;
            if tries < 3 { set(libc::EINTR) } else { 7 }
        });
        assert_eq!((answered.unwrap(), tries), (7, 3));
        assert_eq!(
            until_told(|| set(libc::ENOENT)).unwrap_err().raw_os_error(),
            Some(libc::ENOENT)
        );
    }
}
