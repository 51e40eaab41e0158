//! The format of `policy.bin`: a policy tree that was read and checked, ready to load.
//!
//! An artifact, never a second source: it carries the hash of the files that it was made of ([`TreeHash`]), and who has
//! these files makes it again and compares. The same files give the same bytes on any machine: syscalls and groups stand
//! in it by name, numbers in little-endian order.
//!
//! ```text
//! magic      8 bytes   "nxpolicy"
//! format     4 bytes   1
//! zero       4 bytes
//! length     8 bytes   of everything, the checksum included
//! tree      32 bytes   BLAKE3 over the files: see TreeHash
//! policy    32 bytes   the PolicyVersion: the SHA-256 of policy.json
//! body                 the fields of Snapshot, in their order
//! checksum  32 bytes   BLAKE3 over all that stands before it
//! ```
//! A list is its length (4 bytes) and its entries, a text its length (4 bytes) and its UTF-8, what may be missing a byte 0,
//! or 1 and the value.
//!
//! Pure: no I/O, no clock. [`Snapshot::decode`] takes any bytes, refuses every flipped bit, and uses memory in proportion to
//! what it is given.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod frame;
mod model;
mod tree_hash;
mod wire;

#[cfg(test)]
mod tests;

pub use frame::{DecodeError, FORMAT, MAGIC, SNAPSHOT_BYTES_MAX, Sealed};
pub use model::{
    Abi, BindRule, Condition, Egress, EgressRule, File, Fixed, Ipc, IpcLimit, NameRule, Path, Pattern, Probe, Quota,
    Quotas, Rule, Ruled, Sandbox, Scope, Setting, Snapshot, SyscallRule,
};
pub use tree_hash::{TreeHash, file_hash};
