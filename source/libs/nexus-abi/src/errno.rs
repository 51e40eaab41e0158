use core::fmt;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The symbolic name, such as `EPERM`, where this table has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The errno of a symbolic name, such as `EPERM`.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

/// An error number as Linux gives it to a program: 1 to 4095 (errno(3); asm-generic/errno.h).
///
/// The numbers are those of x86-64, arm64 and riscv64, which share one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(u16);

impl Errno {
    /// The highest number that a syscall can return as an error (`MAX_ERRNO`, linux/err.h).
    pub const MAX: u16 = 4095;

    /// An errno from its number, `None` outside 1 to [`Errno::MAX`].
    #[must_use]
    pub const fn from_raw(raw: u16) -> Option<Self> {
        if raw >= 1 && raw <= Self::MAX {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The positive number.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

errnos! {
    /// Operation not permitted: the answer to what policy denies.
    EPERM = 1,
    /// No such file or directory.
    ENOENT = 2,
    /// No such process.
    ESRCH = 3,
    /// Interrupted system call.
    EINTR = 4,
    /// Input/output error.
    EIO = 5,
    /// Argument list too long.
    E2BIG = 7,
    /// Bad file descriptor.
    EBADF = 9,
    /// Resource temporarily unavailable.
    EAGAIN = 11,
    /// Cannot allocate memory.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad address.
    EFAULT = 14,
    /// Device or resource busy.
    EBUSY = 16,
    /// File exists.
    EEXIST = 17,
    /// Invalid cross-device link.
    EXDEV = 18,
    /// No such device.
    ENODEV = 19,
    /// Not a directory.
    ENOTDIR = 20,
    /// Is a directory.
    EISDIR = 21,
    /// Invalid argument.
    EINVAL = 22,
    /// Too many open files in the system.
    ENFILE = 23,
    /// Too many open files.
    EMFILE = 24,
    /// Inappropriate ioctl for device.
    ENOTTY = 25,
    /// File too large.
    EFBIG = 27,
    /// No space left on device: the host's, never a budget's.
    ENOSPC = 28,
    /// Read-only file system.
    EROFS = 30,
    /// Broken pipe.
    EPIPE = 32,
    /// Function not implemented: the answer to what libraries probe and fall back from.
    ENOSYS = 38,
    /// Socket operation on non-socket.
    ENOTSOCK = 88,
    /// Message too long.
    EMSGSIZE = 90,
    /// Protocol not supported.
    EPROTONOSUPPORT = 93,
    /// Operation not supported.
    EOPNOTSUPP = 95,
    /// Address family not supported by protocol.
    EAFNOSUPPORT = 97,
    /// Network is unreachable.
    ENETUNREACH = 101,
    /// No buffer space available.
    ENOBUFS = 105,
    /// Already connected.
    EISCONN = 106,
    /// Connection refused.
    ECONNREFUSED = 111,
    /// A connection is on its way already.
    EALREADY = 114,
    /// Disk quota exceeded: the answer to what does not fit a budget.
    EDQUOT = 122,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_number() {
        let mut named = 0;
        for raw in 0..=u16::MAX {
            let Some(errno) = Errno::from_raw(raw) else { continue };
            if let Some(name) = errno.name() {
                assert_eq!(Errno::from_name(name), Some(errno));
                named += 1;
            }
        }
        assert!(named > 30);
    }

    #[test]
    fn zero_and_4096_are_not_errnos() {
        assert_eq!(Errno::from_raw(0), None);
        assert!(Errno::from_raw(4095).is_some());
        assert_eq!(Errno::from_raw(4096), None);
    }
}
