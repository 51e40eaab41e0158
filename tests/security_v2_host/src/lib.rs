//! What live tests need: a place to run `nx` in, as root and as an ordinary user, and a terminal.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helper fails the test")]

pub mod place;
pub mod terminal;
