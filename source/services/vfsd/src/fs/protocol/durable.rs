//! What is to be on the disk by when.

/// `O_DSYNC` (asm-generic/fcntl.h). Not rustix's, which is `O_SYNC`: that is this bit and one more.
const O_DSYNC: u32 = 0o1_0000;

/// `__O_SYNC`.
const O_SYNC_ONLY: u32 = 0o400_0000;

/// What of a write is on the disk when it is answered (open(2), pwritev2(2)); each is more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durable {
    /// Nothing.
    No,
    /// The data, and what is needed to find it (`O_DSYNC`, `RWF_DSYNC`).
    Data,
    /// The times as well (`O_SYNC`, `RWF_SYNC`).
    Whole,
}

impl Durable {
    /// What an open file's flags say, or a write's.
    pub(crate) const fn of(flags: u32) -> Self {
        match (flags & O_DSYNC != 0, flags & O_SYNC_ONLY != 0) {
            (false, _) => Self::No,
            (true, false) => Self::Data,
            (true, true) => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_of_libc_means_what_its_manual_says() {
        let of = |flags: i32| Durable::of(flags.unsigned_abs());
        assert_eq!(of(libc::O_WRONLY | libc::O_APPEND | libc::O_DIRECT), Durable::No);
        assert_eq!(of(libc::O_WRONLY | libc::O_DSYNC), Durable::Data);
        assert_eq!(of(libc::O_WRONLY | libc::O_SYNC), Durable::Whole);
        assert!(Durable::No < Durable::Data && Durable::Data < Durable::Whole);
    }
}
