//! Mount attributes; the rest of the mount interface is rustix's.

use crate::check;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
