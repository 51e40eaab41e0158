use core::fmt;

/// The BLAKE3 of a file's content.
#[must_use]
pub fn file_hash(content: &[u8]) -> [u8; 32] {
    *blake3::hash(content).as_bytes()
}

/// The hash of a tree's files: BLAKE3 over each path, with its length before it (8 bytes, little-endian), and the hash of its
/// content, in the order in which the files are read. Two trees with the same hash are the same, comments and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash([u8; 32]);

impl TreeHash {
    /// The hash of these files: path, and content by [`file_hash`].
    pub fn of<'f>(files: impl IntoIterator<Item = (&'f str, [u8; 32])>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (path, content) in files {
            hasher.update(&u64::try_from(path.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(&content);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// A hash that was read from somewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
