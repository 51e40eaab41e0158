//! The words that every part of nexus shares and that must mean the same everywhere.
//!
//! Pure: no I/O, no allocation, no clock. Every type is `Copy` and free of strings that a confined program chose.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod area;
mod errno;
mod operation;
mod reason;
pub mod syscall;
mod verdict;

pub use area::Area;
pub use errno::Errno;
pub use operation::Operation;
pub use reason::Reason;
pub use verdict::{Effect, Protocol, RuleRef, Verdict};
