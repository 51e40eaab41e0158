//! What was denied, written down: the record, its chain, the limit on its rate, and the names of the counters.
//!
//! Pure: time is an argument, text has a bound, and the same record gives the same bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod chain;
mod counters;
mod rate;
mod read;
mod record;
mod text;
mod time;
mod write;

pub use chain::{Broken, Chain, Flaw, KEY_BYTES, Key, Mac, Verified, Verifier, verify};
pub use counters::{Counter, Counters, SUBJECTS_MAX, TooManySubjects};
pub use rate::{Admission, RATE_KEYS_MAX, RateLimit, RateLimiter, Suppressed};
pub use read::{ReadError, line_of, read_line};
pub use record::{Judgement, LINE_BYTES_MAX, RECORD_VERSION, Record};
pub use text::{AT_BYTES_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX, POLICY_BYTES_MAX, RULE_BYTES_MAX, clip, object_text};
pub use time::{TimeError, UnixMillis};
