//! How fields are put into a packet and taken out.
//!
//! A packet is a version, a kind, and fields in a fixed order, little-endian, strings with their length before them.
//! One that is cut, too long, of another version or with bytes left over is refused; nothing in a packet makes a
//! reader allocate more than the packet's own length.

use core::fmt;

pub use crate::packet::PACKET_BYTES_MAX;

/// The version of every message. A peer of another version is refused, not guessed at: both ends of a socket are
/// parts of one installed binary, and only an upgrade between two sessions makes them differ.
pub const VERSION: u8 = 1;

/// Why a packet is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends inside a field.
    Truncated,
    /// It goes on after its last field.
    Trailing,
    /// It is longer than [`PACKET_BYTES_MAX`].
    TooLong,
    /// It is of this version.
    Version(u8),
    /// There is no message of this kind in this direction.
    Kind(u8),
    /// A field holds what it must not.
    Field(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends inside a field"),
            Self::Trailing => f.write_str("the message goes on after its last field"),
            Self::TooLong => write!(f, "the message is longer than {PACKET_BYTES_MAX} bytes"),
            Self::Version(version) => write!(f, "the message is of version `{version}`, not {VERSION}"),
            Self::Kind(kind) => write!(f, "there is no message of kind `{kind}`"),
            Self::Field(field) => write!(f, "the field `{field}` holds what it must not"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// At most `N` bytes (`N` at most 255), whatever they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<const N: usize>(Vec<u8>);

impl<const N: usize> Bounded<N> {
    /// The first `N` of `bytes`: for names that are shown, where a cut is better than none.
    #[must_use]
    pub fn cut(bytes: &[u8]) -> Self {
        Self(bytes.get(..N).unwrap_or(bytes).to_vec())
    }

    /// `bytes`, `None` if they are more than `N`: for names that decide something.
    #[must_use]
    pub fn exact(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= N).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Bounded<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Puts fields into a packet.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn option_u64(self, value: Option<u64>) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => self.u8(1).u64(value),
        }
    }

    pub(crate) fn bytes<const N: usize>(mut self, value: &Bounded<N>) -> Self {
        const { assert!(N <= 255, "the length is one byte") };
        let bytes = value.as_bytes();
        self.0.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(bytes);
        self
    }

    /// A word of a table that all parts share, by its stable text.
    pub(crate) fn word(self, text: &'static str) -> Self {
        self.bytes(&Bounded::<32>::cut(text.as_bytes()))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes fields out of a packet.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The reader of a packet's fields, and the packet's kind.
    pub(crate) fn new(packet: &'a [u8]) -> Result<(Self, u8), DecodeError> {
        if packet.len() > PACKET_BYTES_MAX {
            return Err(DecodeError::TooLong);
        }
        let mut reader = Self(packet);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let kind = reader.u8()?;
        Ok((reader, kind))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Field(field)),
        }
    }

    pub(crate) fn option_u64(&mut self, field: &'static str) -> Result<Option<u64>, DecodeError> {
        if self.flag(field)? {
            self.u64().map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<Bounded<N>, DecodeError> {
        let length = usize::from(self.u8()?);
        Bounded::exact(self.take(length)?).ok_or(DecodeError::Field(field))
    }

    pub(crate) fn word<T>(
        &mut self,
        field: &'static str,
        find: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let text = self.bytes::<32>(field)?;
        core::str::from_utf8(text.as_bytes())
            .ok()
            .and_then(find)
            .ok_or(DecodeError::Field(field))
    }

    pub(crate) fn finish<T>(self, message: T) -> Result<T, DecodeError> {
        if self.0.is_empty() {
            Ok(message)
        } else {
            Err(DecodeError::Trailing)
        }
    }
}
