//! `nx`: runs a program that you do not trust under one policy, and says what it did.
//!
//! One binary, several roles: `nx run` is what the shell started, forks the session's supervisor and, if none runs yet,
//! the subject's file server, and makes the program's init. See ARCHITECTURE.md.
#![forbid(unsafe_code)]

mod cli;
mod completions;
mod diagnostics;
pub mod doctor;
mod man;
mod plain;
mod policy;
pub mod registry;
mod run;
mod screen;
mod sec;

pub use cli::main;
#[doc(hidden)]
pub use sec::test::{Tamper, prove_with};
