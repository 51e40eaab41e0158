//! The public face of the crate: parsers, table, and the naive judge that the table is compared with.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

mod judge;
mod naive;
mod oracle;
mod parse;
mod sets;
