//! What the tests of this crate read the repository with. A rule exists only if a test runs it.
#![forbid(unsafe_code)]

mod files;
mod manifest;
mod source;
mod workspace;

pub use files::{File, files, root};
pub use manifest::{Lints, lints};
pub use source::{code_only, has_word};
pub use workspace::{Crate, Dependency, crates};
