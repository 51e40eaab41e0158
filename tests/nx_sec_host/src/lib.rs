//! The harness of `nx sec`'s tests: the command as a user calls it, in a home of a test's own.

mod command;
mod golden;
mod host;

pub use command::{Said, sec, sec_json};
pub use golden::golden;
pub use host::{Attempt, Host, Outcome};
