//! The public face of the crate, against oracles.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

mod chain;
mod counters;
mod rate;
mod record;
