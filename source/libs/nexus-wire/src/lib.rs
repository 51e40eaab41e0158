//! Messages between the parts of a session.
//!
//! Services never use one another; they share this crate. Every message is bounded and every reader takes arbitrary
//! bytes: what does not decode is an error, never a guess.
#![forbid(unsafe_code)]

pub mod broker;
pub mod codec;
pub mod control;
pub mod packet;
pub mod session;
pub mod vfs;

pub use codec::{Bounded, DecodeError, PACKET_BYTES_MAX};
