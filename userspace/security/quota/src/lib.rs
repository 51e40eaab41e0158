//! Budgets and the ledger of a subject's bytes and inodes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

/// The limits of one area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// Past this many bytes a warning is recorded; a multiple of 4096, at most `hard_bytes`. `None`: no warning.
    pub soft_bytes: Option<u64>,
    /// Past this many bytes nothing grows; a multiple of 4096.
    pub hard_bytes: u64,
    /// Past this many inodes nothing is made.
    pub hard_inodes: u64,
}
