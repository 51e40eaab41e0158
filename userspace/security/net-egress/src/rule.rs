use crate::{Cidr, PortRange};
use alloc::vec::Vec;
use nexus_abi::{Effect, Protocol, RuleRef};

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
