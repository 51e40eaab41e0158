//! The kernel interfaces that nexus uses, and the only crate with unsafe code.

pub mod counters;
