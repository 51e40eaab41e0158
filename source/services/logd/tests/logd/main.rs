//! The journal and the recorder on a real disk, with processes that are killed.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint knows only functions that are tests themselves"
)]

mod broken;
mod follow;
mod full;
mod journal;
mod killed;
mod read;
mod recorder;
mod support;
mod torn;
