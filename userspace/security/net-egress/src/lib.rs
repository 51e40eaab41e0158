//! Egress rules and their matcher: which addresses and ports a subject may reach.
//!
//! Pure: the same rules and the same request give the same [`Route`], on every machine and in every backend.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod cidr;
mod family;
mod layer;
mod parse;
mod ports;
mod reachable;
mod rule;
mod search;
mod set;
/// Socket addresses as programs give them.
pub mod sockaddr;
mod special;
mod table;

pub use cidr::{Cidr, CidrError};
pub use parse::{PORT_RANGES_MAX, ParseError, ParseErrorKind, TEXT_BYTES_MAX, parse_cidr, parse_ports, parse_target};
pub use ports::{PortRange, PortRangeError};
pub use reachable::Reachable;
pub use rule::EgressRule;
pub use set::{EgressPiece, EgressSet, SET_RANGES_MAX, TooComplex, prefixes};
pub use special::{
    HOST_ADDRESSES_MAX, HostAddresses, SPECIAL_BLOCKS, SpecialBlock, SpecialKind, TooManyHostAddresses, acted_on,
    judged_as, special_block,
};
pub use table::{CompileError, EGRESS_RANGES_MAX, EGRESS_RULES_MAX, EgressTable, Reach, Route};
