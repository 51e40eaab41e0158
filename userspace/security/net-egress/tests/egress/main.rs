//! The public face of the crate: parsers, table, and the naive judge that the table is compared with.

mod judge;
mod naive;
mod oracle;
mod parse;
