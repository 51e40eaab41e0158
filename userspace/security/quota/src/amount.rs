/// What a file's length is rounded up to before it is charged: the page size of x86-64 and the block size of the
/// usual host file systems, so that a charge is close to what the host spends.
pub const BLOCK_BYTES: u64 = 4096;

/// The longest file that can be charged: the end of `loff_t`, past which the kernel refuses with `EFBIG`.
pub const LEN_BYTES_MAX: u64 = i64::MAX.unsigned_abs();

/// What a file of `len` bytes costs: its length rounded up to [`BLOCK_BYTES`], `None` past [`LEN_BYTES_MAX`].
///
/// A hole costs what data would: `INVARIANT(paid-for)`.
#[must_use]
pub const fn charged_bytes(len: u64) -> Option<u64> {
    if len > LEN_BYTES_MAX {
        return None;
    }
    // `LEN_BYTES_MAX` rounded up is 2^63, which fits.
    len.checked_next_multiple_of(BLOCK_BYTES)
}

/// Something to charge or to release, or what is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount {
    /// Bytes, each file's length rounded up by [`charged_bytes`].
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Names of inodes beyond their first.
    pub links: u64,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self {
        bytes: 0,
        inodes: 0,
        links: 0,
    };

    /// One inode without bytes: an empty file, a directory, a symbolic link, a fifo, a socket.
    pub const INODE: Self = Self {
        bytes: 0,
        inodes: 1,
        links: 0,
    };

    /// One more name of an inode.
    pub const LINK: Self = Self {
        bytes: 0,
        inodes: 0,
        links: 1,
    };

    /// `bytes` without an inode.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self {
            bytes,
            inodes: 0,
            links: 0,
        }
    }

    /// The sum, `None` if a part of it does not fit 64 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            bytes: self.bytes.checked_add(other.bytes)?,
            inodes: self.inodes.checked_add(other.inodes)?,
            links: self.links.checked_add(other.links)?,
        })
    }

    /// The difference, each part no less than zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            inodes: self.inodes.saturating_sub(other.inodes),
            links: self.links.saturating_sub(other.links),
        }
    }

    /// Whether each part is at least the other's.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.bytes >= other.bytes && self.inodes >= other.inodes && self.links >= other.links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_rounded_up_to_the_next_block_and_no_further() {
        assert_eq!(charged_bytes(0), Some(0));
        assert_eq!(charged_bytes(1), Some(4096));
        assert_eq!(charged_bytes(4096), Some(4096));
        assert_eq!(charged_bytes(4097), Some(8192));
    }

    #[test]
    fn the_longest_file_is_charged_and_the_next_is_not() {
        assert_eq!(charged_bytes(LEN_BYTES_MAX), Some(1 << 63));
        assert_eq!(charged_bytes(LEN_BYTES_MAX + 1), None);
        assert_eq!(charged_bytes(u64::MAX), None);
    }
}
