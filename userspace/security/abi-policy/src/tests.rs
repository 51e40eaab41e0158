//! Tests of the evaluator and of the compiler, each against an independent, naive second opinion.

mod evaluator;
mod exhaustive;
mod filter;
mod floor;
mod generators;
mod interpreter;
mod ledger;
mod oracle;
mod sets;
mod shape;

use alloc::vec;
use alloc::vec::Vec;

use nexus_abi::{Effect, Errno, Reason, RuleRef, Verdict};

use crate::{ArgTest, Condition, Destination, Facts, Growth, Profile, SyscallRule, Width};

/// A rule that allows.
fn allow(number: u32, conditions: Vec<Condition>, rule: u32) -> SyscallRule {
    SyscallRule {
        number,
        effect: Effect::Allow,
        errno: Errno::EPERM,
        conditions,
        rule: RuleRef(rule),
    }
}

/// A rule that denies with `EACCES`, to tell it from the default.
fn deny(number: u32, conditions: Vec<Condition>, rule: u32) -> SyscallRule {
    SyscallRule {
        number,
        effect: Effect::Deny,
        errno: Errno::EACCES,
        conditions,
        rule: RuleRef(rule),
    }
}

fn arg(index: u8, width: Width, test: ArgTest) -> Condition {
    Condition::Arg { index, width, test }
}

fn profile(rules: Vec<SyscallRule>) -> Profile {
    Profile { rules, probed: vec![] }
}

/// Judges whose answer is written in the question: port 1 and one byte are allowed.
struct Fixed;

const EGRESS_REFUSES: Verdict = Verdict::Deny {
    reason: Reason::EgressDenyRule,
    errno: Errno::EPERM,
    rule: Some(RuleRef(900)),
};
const BUDGET_REFUSES: Verdict = Verdict::Deny {
    reason: Reason::QuotaHardBytes,
    errno: Errno::EDQUOT,
    rule: Some(RuleRef(901)),
};

impl Facts for Fixed {
    fn egress(&self, destination: &Destination) -> Verdict {
        if destination.address.port() == 1 {
            Verdict::Allow {
                rule: Some(RuleRef(902)),
            }
        } else {
            EGRESS_REFUSES
        }
    }

    fn budget(&self, growth: &Growth) -> Verdict {
        if growth.bytes == 1 {
            Verdict::Allow { rule: None }
        } else {
            BUDGET_REFUSES
        }
    }
}
