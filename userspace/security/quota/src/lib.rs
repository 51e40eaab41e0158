//! Budgets and the ledger of a subject's bytes and inodes.
//!
//! The ledger is the judge of a quota. It is pure: no I/O, no clock, no allocation; the same requests in the same
//! order give the same verdicts. What it knows:
//!
//! * **bytes**: each file's length, rounded up to [`BLOCK_BYTES`]. `INVARIANT(paid-for)`: what is inside a file's
//!   length is paid for, so a later write inside it, through a mapping too, is never refused by the ledger.
//! * **inodes**: each file, directory, symbolic link, fifo and socket once, however many names it has.
//! * **links**: the names of an inode beyond its first. They cost neither bytes nor inodes, but a name takes room in
//!   a directory of the host, so they are bounded by the same number as the inodes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod account;
mod amount;
mod budget;
mod ledger;

pub use account::{Account, Decision, Underflow};
pub use amount::{Amount, BLOCK_BYTES, LEN_BYTES_MAX, charged_bytes};
pub use budget::{Budget, BudgetError};
pub use ledger::Ledger;
