use alloc::vec::Vec;
use core::fmt;

use crate::model::Snapshot;
use crate::tree_hash::TreeHash;
use crate::wire::{Malformed, Reader, Wire as _};

/// How every snapshot begins.
pub const MAGIC: [u8; 8] = *b"nxpolicy";

/// The version of the format. Another one is refused: who has the tree makes the snapshot again.
pub const FORMAT: u32 = 1;

/// The most bytes of a snapshot. A tree has at most 32 MiB of text; its rules' texts and its canonical form stand here once
/// each, besides the rules themselves.
pub const SNAPSHOT_BYTES_MAX: usize = 128 << 20;

/// Magic, format, zero, length, tree, policy.
const HEADER_BYTES: usize = 88;
const CHECKSUM_BYTES: usize = 32;

/// A snapshot with what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The files that it was made of.
    pub tree: TreeHash,
    /// What they say: the SHA-256 of [`Snapshot::canonical`].
    pub policy: [u8; 32],
    /// What it says.
    pub snapshot: Snapshot<'a>,
}

/// Why bytes are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// They begin with something else than [`MAGIC`].
    NoSnapshot,
    /// The format is another one.
    Format {
        /// Which.
        format: u32,
    },
    /// There are more bytes than [`SNAPSHOT_BYTES_MAX`].
    TooLong,
    /// There are fewer or more bytes than the header says.
    Length,
    /// The checksum is another one: the bytes were changed.
    Checksum,
    /// The checksum holds, and what it covers still is no snapshot.
    Malformed,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshot => f.write_str("it is no policy snapshot"),
            Self::Format { format } => write!(f, "it has format `{format}`, and `{FORMAT}` is known"),
            Self::TooLong => write!(f, "it has more than {SNAPSHOT_BYTES_MAX} bytes"),
            Self::Length => f.write_str("it is cut, or something was added"),
            Self::Checksum => f.write_str("it was changed after it was made"),
            Self::Malformed => f.write_str("it was not made by nexus"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Sealed<'_> {
    /// The bytes of `policy.bin`.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] where nobody would read them.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        FORMAT.put(&mut out);
        0_u32.put(&mut out);
        0_u64.put(&mut out);
        out.extend_from_slice(self.tree.as_bytes());
        out.extend_from_slice(&self.policy);
        self.snapshot.put(&mut out);
        let length = out.len().saturating_add(CHECKSUM_BYTES);
        if length > SNAPSHOT_BYTES_MAX {
            return Err(DecodeError::TooLong);
        }
        let field = u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes();
        for (to, from) in out.iter_mut().skip(16).zip(field) {
            *to = from;
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        Ok(out)
    }
}

impl<'a> Snapshot<'a> {
    /// Reads the bytes of `policy.bin`. What is read is exactly what was made: every changed bit is refused.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Sealed<'a>, DecodeError> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(DecodeError::TooLong);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(DecodeError::NoSnapshot);
        }
        let mut header = Reader::new(bytes.get(MAGIC.len()..HEADER_BYTES).ok_or(DecodeError::Length)?);
        let short = |_: Malformed| DecodeError::Length;
        let format = u32::get(&mut header).map_err(short)?;
        if format != FORMAT {
            return Err(DecodeError::Format { format });
        }
        let zero = u32::get(&mut header).map_err(short)?;
        let length = u64::get(&mut header).map_err(short)?;
        if usize::try_from(length) != Ok(bytes.len()) {
            return Err(DecodeError::Length);
        }
        let end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(DecodeError::Length)?;
        let (covered, checksum) = bytes.split_at_checked(end).ok_or(DecodeError::Length)?;
        if blake3::hash(covered).as_bytes() != checksum {
            return Err(DecodeError::Checksum);
        }
        let hash = |from: usize| -> Result<[u8; 32], DecodeError> {
            let bytes = covered.get(from..from.saturating_add(32)).ok_or(DecodeError::Length)?;
            bytes.try_into().map_err(|_| DecodeError::Length)
        };
        let (tree, policy) = (TreeHash::from_bytes(hash(24)?), hash(56)?);
        let mut body = Reader::new(covered.get(HEADER_BYTES..).ok_or(DecodeError::Length)?);
        let malformed = |_: Malformed| DecodeError::Malformed;
        let snapshot = Self::get(&mut body).map_err(malformed)?;
        if !body.is_empty() || zero != 0 {
            return Err(DecodeError::Malformed);
        }
        Ok(Sealed { tree, policy, snapshot })
    }
}
