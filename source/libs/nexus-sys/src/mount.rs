//! Mount attributes; the rest of the mount interface is rustix's.

use crate::check;
use crate::process::{CloneFlags, Fork, clone, exit_now};
use rustix::mount::OpenTreeFlags;
use rustix::process::{Signal, WaitOptions};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What a mount forbids (`MOUNT_ATTR_*`, mount_setattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Nothing can be changed through this mount.
    pub read_only: bool,
    /// Set-id bits and file capabilities mean nothing.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Programs cannot be started.
    pub no_exec: bool,
}

impl Attributes {
    fn bits(self) -> u64 {
        let mut bits = 0;
        for (on, bit) in [
            (self.read_only, libc::MOUNT_ATTR_RDONLY),
            (self.no_suid, libc::MOUNT_ATTR_NOSUID),
            (self.no_dev, libc::MOUNT_ATTR_NODEV),
            (self.no_exec, libc::MOUNT_ATTR_NOEXEC),
        ] {
            if on {
                bits |= bit;
            }
        }
        bits
    }
}

/// `mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE?, &attr, sizeof attr)` mount_setattr(2), Linux 5.12.
///
/// Sets the attributes that are true on the mount that `mount` is the root of, and with `recursive` on every mount
/// below; also makes them private, so that nothing mounted on the host later appears.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over the mount's user namespace, `EINVAL` if `mount` is not a mount's root.
pub fn restrict(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    const EMPTY: &CStr = c"";
    let attr = libc::mount_attr {
        attr_set: attributes.bits(),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated static; `attr` is a live, fully initialised struct of the size passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// A detached mount of a directory on which what belongs to `owner` (user, group) belongs to `borrower`, and what
/// `borrower` makes is `owner`'s on disk; what belongs to anybody else belongs to nobody. Mounts inside the directory are
/// not part of it. mount_setattr(2) with `MOUNT_ATTR_IDMAP`, Linux 5.12.
///
/// Needs root, and a process with one thread.
///
/// # Errors
/// `EINVAL` where the file system cannot do that, `EPERM` without `CAP_SYS_ADMIN` over the file system; as clone3(2).
pub fn lend(directory: impl AsFd, owner: (u32, u32), borrower: (u32, u32)) -> io::Result<OwnedFd> {
    const EMPTY: &CStr = c"";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(&directory, EMPTY, flags)?;
    // A user namespace lives with its first process, or with a descriptor of it.
    let child = match clone(CloneFlags::USER_NAMESPACE)? {
        Fork::Child => {
            rustix::event::pause();
            exit_now(0)
        }
        Fork::Parent(child) => child,
    };
    let namespace = (|| {
        let map = |file: &str, (from, to): (u32, u32)| {
            std::fs::write(format!("/proc/{}/{file}", child.pid), format!("{from} {to} 1\n"))
        };
        map("uid_map", (owner.0, borrower.0))?;
        map("gid_map", (owner.1, borrower.1))?;
        std::fs::File::open(format!("/proc/{}/ns/user", child.pid))
    })();
    // It fails only if it is gone.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(rustix::process::Pid::from_raw(child.pid), WaitOptions::empty())
    });
    let namespace = namespace?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?,
    };
    // SAFETY: the path is a NUL-terminated static; `attr` is a live, fully initialised struct of the size passed, and the
    // descriptor in it is open over the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(mount)
}
