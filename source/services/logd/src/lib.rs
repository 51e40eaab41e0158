//! The journal of what was denied, and what a session uses to write into it.
//!
//! [`Journal`] is the file: bounded, rotated, chained, mended. [`Recorder`] stands before it: it never blocks the one
//! that denies, keeps the counters exact and limits the rate. [`read`] and [`verify`] are for readers.
#![forbid(unsafe_code)]

mod clock;
mod directory;
mod error;
mod event;
mod files;
mod follow;
mod journal;
mod key;
mod limits;
mod lock;
mod notices;
mod read;
mod recorder;
mod sink;
mod summary;
mod tail;
mod verify;

pub use clock::{Clock, SystemClock};
pub use error::{AppendError, JournalError};
pub use event::{Event, Outcome};
pub use follow::{Followed, Follower, follow};
pub use journal::{Anchor, Appended, Journal};
pub use key::{KEY_FILE, load_key};
pub use limits::{FILE_BYTES_MIN, FILES_MIN, FILES_MOST, JournalLimits, LimitsError};
pub use read::{Entry, Filter, Problem, Records, Unreadable, read};
pub use recorder::{Handle, Recorder, RecorderError, Settings};
pub use sink::{BoundedSink, Sink};
pub use summary::{Summary, TOP_KEYS_MAX, TopDeny};
pub use verify::{AnchorState, VerifyError, VerifyReport, verify, verify_newest};
