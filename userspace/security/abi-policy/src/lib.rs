//! Syscall rules, argument predicates and the guard chain.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::vec::Vec;
use nexus_abi::{Area, Effect, Errno, RuleRef};

pub use nexus_abi::syscall::Width;

/// What one argument must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ArgTest {
    /// Exactly this.
    Equal(u64),
    /// `argument & mask == value`.
    Masked {
        /// The bits looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
    /// From `first` to `last`, both included, unsigned.
    Range {
        /// The lowest.
        first: u64,
        /// The highest.
        last: u64,
    },
    /// One of these; sorted, no duplicates, not empty.
    OneOf(Vec<u64>),
    /// `argument & mask != 0`: at least one of these bits is set.
    AnyBit(u64),
}

/// One condition of a rule; all of a rule's conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// A test of a scalar argument, judged in the kernel.
    Arg {
        /// Which argument, 0 to 5.
        index: u8,
        /// How much of it counts.
        width: Width,
        /// What it must be.
        test: ArgTest,
    },
    /// The destination address of the call is one that the subject's egress rules allow. Judged by the supervisor.
    Egress,
    /// The call's growth fits what is left of this area's budget. Judged by the supervisor.
    Budget(Area),
}

/// One rule of a profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyscallRule {
    /// The syscall's number in the native table.
    pub number: u32,
    /// Whether the rule opens or closes.
    pub effect: Effect,
    /// What a deny rule answers; ignored for allow rules.
    pub errno: Errno,
    /// All of these must hold; empty: always.
    pub conditions: Vec<Condition>,
    /// The rule's place in the policy's table.
    pub rule: RuleRef,
}

/// The syscall rules of a subject, in policy order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Profile {
    /// The rules.
    pub rules: Vec<SyscallRule>,
    /// Numbers that libraries probe and fall back from: denied with `ENOSYS`, reason `abi.unknown`. Sorted.
    pub probed: Vec<u32>,
}
