//! Egress rules and their matcher.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::vec::Vec;
use core::net::IpAddr;
use nexus_abi::{Effect, Protocol, RuleRef};

/// An address prefix with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// An inclusive range of ports, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// One rule: these ports of these addresses over this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// Whether the rule opens or closes.
    pub effect: Effect,
    /// Over which protocol.
    pub protocol: Protocol,
    /// To which addresses.
    pub cidr: Cidr,
    /// To which ports; sorted, not overlapping, not adjacent, not empty.
    pub ports: Vec<PortRange>,
    /// The rule's place in the policy's table.
    pub rule: RuleRef,
}
