//! The process: how it starts, what it gives up, how it serves sessions and how it ends.

mod attribute;
mod drop;
mod marker;
mod mount;
mod place;
mod sessions;
mod start;
mod work;

pub(crate) use start::{Start, run};
