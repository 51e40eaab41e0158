//! Why a verdict is what it is, step by step.

use alloc::vec::Vec;
use nexus_abi::{Effect, Reason, RuleRef, Verdict};

use crate::limits::TRACE_STEPS_MAX;

/// What became of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All conditions held: the rule decided.
    Matched,
    /// This condition, counted from 0, failed.
    Failed {
        /// Which.
        condition: u8,
    },
    /// This condition is one that another judge decides, and it refused for this reason.
    Refused {
        /// Which.
        condition: u8,
        /// Why.
        reason: Reason,
    },
    /// This condition needs a destination or a growth that is not known. An allow rule then fails, a deny rule holds.
    Unknown {
        /// Which.
        condition: u8,
    },
}

/// One step of a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The call came through another ABI.
    Foreign,
    /// A rule of the profile at this place was looked at.
    Rule {
        /// Which profile, 0 the ceiling.
        profile: u8,
        /// The rule's place in the policy's table.
        rule: RuleRef,
        /// Whether it opens or closes.
        effect: Effect,
        /// What became of it.
        outcome: Outcome,
    },
    /// The profile at this place lists the call as probed.
    Probed {
        /// Which profile.
        profile: u8,
    },
    /// No rule of the profile at this place matched.
    NoRule {
        /// Which profile.
        profile: u8,
        /// What that means.
        reason: Reason,
    },
}

/// The steps of one judgement, at most [`TRACE_STEPS_MAX`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    steps: Vec<Step>,
    cut: bool,
    on: bool,
}

impl Trace {
    /// A trace that keeps steps.
    pub(crate) const fn on() -> Self {
        Self {
            steps: Vec::new(),
            cut: false,
            on: true,
        }
    }

    /// A trace that keeps nothing and allocates nothing.
    pub(crate) const fn off() -> Self {
        Self {
            steps: Vec::new(),
            cut: false,
            on: false,
        }
    }

    pub(crate) fn push(&mut self, step: Step) {
        if !self.on {
            return;
        }
        if self.steps.len() < TRACE_STEPS_MAX {
            self.steps.push(step);
        } else {
            self.cut = true;
        }
    }

    /// The steps, in the order in which they were taken.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether there were more steps than the trace keeps.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict; the same that [`Guard::judge`](crate::Guard::judge) gives.
    pub verdict: Verdict,
    /// How it came about.
    pub trace: Trace,
}
