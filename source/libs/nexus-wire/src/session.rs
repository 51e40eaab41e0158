//! What anybody of the same user may ask a session's supervisor: one question a connection, one answer.
//!
//! The answer's packet brings a descriptor of an anonymous file that holds a JSON object, or says why there is none.

use crate::codec::{Bounded, DecodeError, Reader, Writer};

/// The longest answer, in bytes: a subject under the largest policy tree, every rule with its text, and room.
pub const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What policy gives the subject, line by line.
    Policy,
    /// Which syscalls the subject may make, and which filter was loaded.
    Syscalls,
    /// What the program sees, and what holds it there.
    Sandbox,
    /// What may be written, and used otherwise.
    Quotas,
    /// Where it may connect and send, and which names are open now.
    Egress,
    /// The instructions of the filter that was loaded, as an array of `[code, jt, jf, k]`.
    Filter,
}

impl Question {
    /// Every question.
    pub const ALL: [Self; 6] = [
        Self::Policy,
        Self::Syscalls,
        Self::Sandbox,
        Self::Quotas,
        Self::Egress,
        Self::Filter,
    ];

    /// Its stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Syscalls => "syscalls",
            Self::Sandbox => "sandbox",
            Self::Quotas => "quotas",
            Self::Egress => "egress",
            Self::Filter => "filter",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }

    /// The message.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        Writer::new(1).word(self.as_str()).finish()
    }

    /// The question of a message.
    ///
    /// # Errors
    /// [`DecodeError`] for everything else.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, kind) = Reader::new(packet)?;
        if kind != 1 {
            return Err(DecodeError::Kind(kind));
        }
        let question = reader.word("question", Self::from_word)?;
        reader.finish(question)
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A file with this many bytes comes along.
    File {
        /// At most [`ANSWER_BYTES_MAX`].
        bytes: u64,
    },
    /// There is no answer.
    None {
        /// Why, in words.
        why: Bounded<200>,
    },
}

impl Answer {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::File { bytes } => Writer::new(2).u64(*bytes).finish(),
            Self::None { why } => Writer::new(3).bytes(why).finish(),
        }
    }

    /// The answer of a message.
    ///
    /// # Errors
    /// [`DecodeError`] for everything else.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, kind) = Reader::new(packet)?;
        match kind {
            2 => match reader.u64()? {
                bytes @ 0..=ANSWER_BYTES_MAX => reader.finish(Self::File { bytes }),
                _ => Err(DecodeError::Field("bytes")),
            },
            3 => {
                let why = reader.bytes("why")?;
                reader.finish(Self::None { why })
            }
            other => Err(DecodeError::Kind(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_and_answers_come_back_as_they_were_sent() {
        for question in Question::ALL {
            assert_eq!(Question::decode(&question.encode()), Ok(question));
        }
        for answer in [
            Answer::File { bytes: 0 },
            Answer::File {
                bytes: ANSWER_BYTES_MAX,
            },
            Answer::None {
                why: Bounded::cut(b"no such thing"),
            },
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn an_answer_that_is_longer_than_any_is_refused() {
        let bytes = ANSWER_BYTES_MAX + 1;
        let forged = Writer::new(2).u64(bytes).finish();
        assert_eq!(Answer::decode(&forged), Err(DecodeError::Field("bytes")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(question) = Question::decode(&bytes) {
                prop_assert_eq!(question.encode(), bytes.clone());
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), bytes);
            }
        }
    }
}
