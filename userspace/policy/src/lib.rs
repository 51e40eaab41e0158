//! The policy tree.
#![forbid(unsafe_code)]
