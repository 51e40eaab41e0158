//! Messages between the parts of a session.
//!
//! Each message is one packet of a `SOCK_SEQPACKET` Unix socket: a version, a kind, and fields in a fixed order,
//! little-endian, strings with their length before them. A packet that is cut, too long, of another version or with
//! bytes left over is refused; nothing in a packet makes a reader allocate more than the packet's own length.
#![forbid(unsafe_code)]

pub mod codec;
pub mod vfs;

pub use codec::{Bounded, DecodeError, PACKET_BYTES_MAX};
