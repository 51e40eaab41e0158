//! What each fuzz target does with its input: one function a parser, which panics where a claim about it does not hold.
//!
//! `fuzz/` runs them under cargo-fuzz for as long as one likes; `tests/seeded.rs` runs them on some thousand mutated inputs,
//! always the same ones, wherever `cargo test` runs.
#![forbid(unsafe_code)]

mod audit;
mod bpf;
mod dns;
mod egress;
mod mutate;
mod policy;
mod wire;

pub use audit::{audit_journal, audit_line};
pub use bpf::filter;
pub use dns::dns_message;
pub use egress::{address_text, sockaddr};
pub use mutate::{Mutator, Seed};
pub use policy::{policy_seeds, policy_snapshot, policy_tree, snapshot_seed};
pub use wire::{vfs_messages, wire_messages};

/// A fuzz target's body; it says whether the input was accepted as what the parser reads, so that a run can see that it
/// tried both.
pub type Body = fn(&[u8]) -> bool;

/// Every body, by the name of its fuzz target.
pub const BODIES: &[(&str, Body)] = &[
    ("address_text", address_text),
    ("audit_journal", audit_journal),
    ("audit_line", audit_line),
    ("dns_message", dns_message),
    ("filter", filter),
    ("policy_snapshot", policy_snapshot),
    ("policy_tree", policy_tree),
    ("sockaddr", sockaddr),
    ("vfs_messages", vfs_messages),
    ("wire_messages", wire_messages),
];
