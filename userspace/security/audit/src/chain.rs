use crate::read::{Placed, ReadError, placed};
use crate::record::Record;
use crate::text::hex;
use crate::write::body;
use alloc::string::String;
use core::fmt;
use thiserror::Error;

/// How long a chain's key is, in bytes.
pub const KEY_BYTES: usize = 32;

/// The key of a chain. Shown as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// A key of these bytes, which should be random.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A chain value: keyed BLAKE3 of a line and of the value before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 32]);

/// How long a [`Mac`] is in hex.
const HEX_BYTES: usize = 64;

impl Mac {
    /// The value before the first record of a journal.
    #[must_use]
    pub const fn genesis() -> Self {
        Self([0; 32])
    }

    /// The value of 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != HEX_BYTES {
            return None;
        }
        let mut out = [0_u8; 32];
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Some(Self(out))
    }

    /// The end of a line with this value.
    pub(crate) fn as_line_end(self) -> String {
        let mut out = String::with_capacity(HEX_BYTES.saturating_add(12));
        out.push_str(",\"prev\":\"");
        for byte in self.0 {
            out.push(hex(byte >> 4));
            out.push(hex(byte & 0xf));
        }
        out.push_str("\"}");
        out
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}

/// Chains lines: a line's `prev` is the keyed BLAKE3 of the line without its `prev` and of the `prev` of the line before.
/// So each line vouches for itself and for every line before it.
///
/// Finds accidents and clumsy edits. Who has the key, such as the user whose journal it is, can make a new chain; and a
/// cut tail leaves a shorter chain that holds. Both are found only against a [`Verified::head`] kept out of reach.
#[derive(Clone, Debug)]
pub struct Chain {
    key: Key,
    next_seq: u64,
    head: Mac,
}

impl Chain {
    /// A chain from its start: the first record gets sequence number 1.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self {
            key,
            next_seq: 1,
            head: Mac::genesis(),
        }
    }

    /// The chain that goes on after record `last_seq`, whose `prev` is `head`.
    #[must_use]
    pub const fn resume(key: Key, last_seq: u64, head: Mac) -> Self {
        Self {
            key,
            next_seq: last_seq.saturating_add(1),
            head,
        }
    }

    /// The line of the next record, with its newline; at most [`crate::LINE_BYTES_MAX`] bytes.
    pub fn seal(&mut self, record: &Record) -> String {
        let mut line = body(self.next_seq, record);
        self.head = mac(&self.key, line.as_bytes(), self.head);
        self.next_seq = self.next_seq.saturating_add(1);
        line.push_str(&self.head.as_line_end());
        line.push('\n');
        line
    }

    /// The sequence number of the last record; 0 before the first.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.next_seq.saturating_sub(1)
    }

    /// The last record's value: with [`Chain::last_seq`] the anchor to be kept out of reach.
    #[must_use]
    pub const fn head(&self) -> Mac {
        self.head
    }
}

fn mac(key: &Key, body: &[u8], before: Mac) -> Mac {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(body);
    hasher.update(&before.0);
    Mac(*hasher.finalize().as_bytes())
}

/// What a chain that holds goes from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many records.
    pub records: u64,
    /// The first one's sequence number; 0 where there is none.
    pub first_seq: u64,
    /// The last one's sequence number.
    pub last_seq: u64,
    /// The last one's value.
    pub head: Mac,
}

/// The first record that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("line {line} does not hold: {flaw}")]
pub struct Broken {
    /// Which line, from 1.
    pub line: u64,
    /// Which sequence number it should have; `None` for the first line of a journal whose start is unknown.
    pub expected_seq: Option<u64>,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// Its sequence number does not follow: records are missing, doubled, or in another order.
    #[error("it has sequence number `{found}` and not the next one")]
    Sequence {
        /// Its own.
        found: u64,
    },
    /// Its chain value is wrong: it or a line before it was changed, or the key is another one.
    #[error("its chain value does not fit it and the lines before it")]
    Chain,
}

/// Follows a chain line by line, in constant memory.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: Key,
    /// The last line's sequence number and value; `None` where the line before the first is unknown.
    last: Option<(u64, Mac)>,
    verified: Verified,
}

impl Verifier {
    /// From the start of a journal, or after record `last_seq` with value `head`.
    #[must_use]
    pub const fn new(key: Key, last_seq: u64, head: Mac) -> Self {
        let verified = Verified {
            records: 0,
            first_seq: 0,
            last_seq,
            head,
        };
        Self {
            key,
            last: Some((last_seq, head)),
            verified,
        }
    }

    /// From a first line that itself says what came before it ([`nexus_abi::Reason::JournalStart`], whose object
    /// [`crate::Record`] holds `after SEQ MAC`): what a rotated journal starts with.
    #[must_use]
    pub const fn from_stated_start(key: Key) -> Self {
        let verified = Verified {
            records: 0,
            first_seq: 0,
            last_seq: 0,
            head: Mac::genesis(),
        };
        Self {
            key,
            last: None,
            verified,
        }
    }

    /// Checks the next line, without its newline.
    ///
    /// # Errors
    /// [`Broken`]; the verifier then stays where it was.
    pub fn line(&mut self, line: &[u8]) -> Result<Record, Broken> {
        let (expected_seq, number) = (self.last.map(|(seq, _)| seq.saturating_add(1)), self.verified.records);
        let broken = |flaw| Broken {
            line: number.saturating_add(1),
            expected_seq,
            flaw,
        };
        let Placed { seq, record, prev } = placed(line).map_err(|error| broken(Flaw::Unreadable(error)))?;
        let (last_seq, head) = match self.last {
            Some(last) => last,
            None => stated_start(&record).ok_or(broken(Flaw::Chain))?,
        };
        if seq != last_seq.saturating_add(1) {
            return Err(broken(Flaw::Sequence { found: seq }));
        }
        if mac(&self.key, body(seq, &record).as_bytes(), head) != prev {
            return Err(broken(Flaw::Chain));
        }
        if self.verified.records == 0 {
            self.verified.first_seq = seq;
        }
        self.verified.records = self.verified.records.saturating_add(1);
        self.verified.last_seq = seq;
        self.verified.head = prev;
        self.last = Some((seq, prev));
        Ok(record)
    }

    /// What holds so far.
    #[must_use]
    pub const fn verified(&self) -> Verified {
        self.verified
    }
}

/// The last sequence number and value before a file, as its first record states them: `after SEQ MAC`.
pub(crate) fn stated_start(record: &Record) -> Option<(u64, Mac)> {
    if record.reason != nexus_abi::Reason::JournalStart {
        return None;
    }
    let (seq, mac) = record.object.strip_prefix("after ")?.split_once(' ')?;
    Some((seq.parse().ok()?, Mac::from_hex(mac)?))
}

/// Checks a whole chain of lines, without their newlines, from its start.
///
/// # Errors
/// The first record that does not hold.
pub fn verify<'a>(key: &Key, lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Verified, Broken> {
    let mut verifier = Verifier::new(key.clone(), 0, Mac::genesis());
    for line in lines {
        verifier.line(line)?;
    }
    Ok(verifier.verified())
}
