//! Audit records, counters, rate limit and hash chain.
#![no_std]
#![forbid(unsafe_code)]
