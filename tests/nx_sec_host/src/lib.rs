//! The harness of `nx sec`'s tests: the command as a user calls it, in a home of a test's own.

mod command;
mod entries;
mod golden;
mod host;
pub mod proof;

pub use command::{Said, said, sec, sec_json};
pub use entries::{close, ended, facts, lives, names, place, rewrite, trouble};
pub use golden::golden;
pub use host::{Attempt, Host, Outcome};
