//! Syscall rules, argument predicates and the guard chain.
//!
//! A [`Profile`] is a list of rules; a [`Guard`] judges a call by one or more of them, with egress and budgets as
//! predicates of the same language; [`compile`] turns the same profiles into the filter that the kernel runs. The filter
//! lets through exactly what the guard allows without knowing more than the registers, and asks the supervisor about
//! everything else [INVARIANT filter-is-guard]; a property test compares the two.
//!
//! Pure: no I/O, no clock; the same profile gives the same bytes and the same call the same verdict.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod check;
mod compile;
mod floor;
mod guard;
mod limits;
mod listing;
mod profile;
mod program;
mod sets;
mod trace;

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows panics, and so fails"
)]
mod tests;

pub use check::ProfileError;
pub use compile::{CompileError, Mediated, compile};
pub use floor::{FLOOR_RULE_FIRST, INTERFACE_QUESTIONS, PORT_SHARING, floor, floor_rule_name};
pub use guard::{Destination, Fact, Facts, Growth, Guard, NoFacts, Request};
pub use limits::{
    ARGUMENTS, CONDITIONS_MAX, MEDIATED_MAX, PROBED_MAX, PROFILES_MAX, PROGRAM_MAX, RULES_MAX, SET_MAX, TRACE_STEPS_MAX,
};
pub use nexus_abi::syscall::Width;
pub use profile::{ArgTest, Call, Condition, Profile, ScalarVerdict, SyscallRule};
pub use program::{Program, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SockFilter};
pub use sets::{
    Answers, ArgumentSet, Asked, AskedSet, CallAlgebra, CallSet, PATTERNS_MAX, Pattern, Patterns, SET_NODES_MAX,
    TooComplex,
};
pub use trace::{Judgement, Outcome, Step, Trace};
