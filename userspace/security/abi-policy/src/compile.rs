//! From profiles to the filter that the kernel runs.
//!
//! The filter first looks at the architecture, then finds the number in a balanced tree of ranges, and only then looks at
//! arguments. A call that every profile allows whatever its arguments never gets to a load of one: the kernel runs the
//! filter once over each number when it is set, follows loads of `nr` and `arch`, `AND` and the jumps used here
//! (`seccomp_is_const_allow`, kernel/seccomp.c, Linux 5.11), and from then on lets such calls through by a bit in a map.

use alloc::vec::Vec;
use core::fmt;

use nexus_abi::syscall::Arch;
use nexus_abi::{Effect, RuleRef};

use crate::check::{ProfileError, check_conditions};
use crate::guard::check_profiles;
use crate::limits::{MEDIATED_MAX, PROFILES_MAX, PROGRAM_MAX};
use crate::profile::{Condition, Profile, SyscallRule};
use crate::program::{
    Assembler, JMP_JEQ_K, JMP_JGE_K, Label, OFFSET_ARCH, OFFSET_NUMBER, Program, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF,
};

mod condition;

/// A call that the supervisor wants to see although the profiles may allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mediated {
    /// Which call.
    pub number: u32,
    /// Only where all of these hold; empty: always. What the registers can't tell is taken to hold.
    pub conditions: Vec<Condition>,
}

/// Why there is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileError {
    /// No profile at all: that would allow everything.
    NoProfile,
    /// More than [`PROFILES_MAX`] profiles.
    TooManyProfiles {
        /// How many.
        profiles: usize,
    },
    /// More than [`MEDIATED_MAX`] mediated patterns.
    TooManyMediated {
        /// How many.
        mediated: usize,
    },
    /// A profile is out of bounds.
    Profile(ProfileError),
    /// A mediated pattern is out of bounds. The rule in the error means nothing.
    Mediated(ProfileError),
    /// The filter would have more than [`PROGRAM_MAX`] instructions, which the kernel refuses.
    TooLong,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProfile => f.write_str("no syscall profile to judge by"),
            Self::TooManyProfiles { profiles } => {
                write!(
                    f,
                    "`{profiles}` syscall profiles, at most {PROFILES_MAX} are judged together"
                )
            }
            Self::TooManyMediated { mediated } => {
                write!(f, "`{mediated}` mediated patterns, at most {MEDIATED_MAX} fit")
            }
            Self::Profile(error) => write!(f, "{error}"),
            Self::Mediated(error) => write!(f, "mediated pattern: {error}"),
            Self::TooLong => write!(
                f,
                "the syscall filter would be longer than the {PROGRAM_MAX} instructions that Linux takes; \
                 write fewer rules with conditions, or smaller sets"
            ),
        }
    }
}

impl core::error::Error for CompileError {}

/// What the filter must do for one number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan<'p> {
    /// Let it through.
    Allow,
    /// Ask.
    Ask,
    /// It depends on the arguments.
    Test(Tests<'p>),
}

/// All conditions of one rule.
type Pattern<'p> = &'p [Condition];

/// Allow if no pattern of `ask` holds, and of each list in `allow` at least one does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tests<'p> {
    ask: Vec<Pattern<'p>>,
    allow: Vec<Vec<Pattern<'p>>>,
}

/// Compiles profiles that are judged together, and what the supervisor wants to see besides, into one filter.
///
/// The filter answers [`SECCOMP_RET_ALLOW`] exactly where no mediated pattern matches and
/// [`Profile::judge_scalar`] of every profile says `Known(Allow)`; otherwise [`SECCOMP_RET_USER_NOTIF`]
/// [INVARIANT filter-is-guard]. A denied call is asked about too, so that the supervisor records it and gives its errno.
///
/// # Errors
/// What is out of bounds, or that the filter would be too long.
pub fn compile(profiles: &[&Profile], mediated: &[Mediated]) -> Result<Program, CompileError> {
    check_profiles(profiles)?;
    if mediated.len() > MEDIATED_MAX {
        return Err(CompileError::TooManyMediated {
            mediated: mediated.len(),
        });
    }
    for pattern in mediated {
        check_conditions(&pattern.conditions, RuleRef(u32::MAX)).map_err(CompileError::Mediated)?;
    }
    assemble(&ranges(profiles, mediated))
}

/// The plan of each range of numbers, sorted; a range goes up to the next one's first number.
fn ranges<'p>(profiles: &[&'p Profile], mediated: &'p [Mediated]) -> Vec<(u32, Plan<'p>)> {
    // Only a number that every profile has an allow rule for can be anything but `Ask`.
    let mut numbers: Vec<u32> = profiles
        .iter()
        .flat_map(|profile| &profile.rules)
        .filter(|rule| rule.effect == Effect::Allow)
        .map(|rule| rule.number)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut ranges: Vec<(u32, Plan<'p>)> = Vec::new();
    let mut add = |first: u32, plan: Plan<'p>| match ranges.last_mut() {
        Some((_, last)) if *last == plan => {}
        Some((start, last)) if *start == first => *last = plan,
        _ => ranges.push((first, plan)),
    };
    let sorted: Vec<Sorted<'p>> = profiles.iter().map(|profile| Sorted::new(profile)).collect();
    add(0, Plan::Ask);
    for number in numbers {
        add(number, plan(&sorted, mediated, number));
        add(number.saturating_add(1), Plan::Ask);
    }
    merge(ranges)
}

/// Joins neighbours that became equal.
fn merge(ranges: Vec<(u32, Plan<'_>)>) -> Vec<(u32, Plan<'_>)> {
    let mut merged: Vec<(u32, Plan<'_>)> = Vec::with_capacity(ranges.len());
    for (first, plan) in ranges {
        if merged.last().is_none_or(|(_, last)| *last != plan) {
            merged.push((first, plan));
        }
    }
    merged
}

/// A profile's rules by number, of each number in policy order: to look through all rules for every number is what would
/// take longest about making a filter.
struct Sorted<'p> {
    rules: Vec<&'p SyscallRule>,
    probed: &'p [u32],
}

impl<'p> Sorted<'p> {
    fn new(profile: &'p Profile) -> Self {
        let mut rules: Vec<&SyscallRule> = profile.rules.iter().collect();
        rules.sort_by_key(|rule| rule.number);
        Self {
            rules,
            probed: &profile.probed,
        }
    }

    fn of(&self, number: u32) -> impl Iterator<Item = &'p SyscallRule> {
        let first = self.rules.partition_point(|rule| rule.number < number);
        self.rules
            .iter()
            .copied()
            .skip(first)
            .take_while(move |rule| rule.number == number)
    }
}

fn plan<'p>(profiles: &[Sorted<'p>], mediated: &'p [Mediated], number: u32) -> Plan<'p> {
    let mut tests = Tests {
        ask: Vec::new(),
        allow: Vec::new(),
    };
    for pattern in mediated.iter().filter(|pattern| pattern.number == number) {
        push_new(&mut tests.ask, &pattern.conditions);
    }
    for profile in profiles {
        if profile.probed.binary_search(&number).is_ok() {
            return Plan::Ask;
        }
        let mut allow = Vec::new();
        for rule in profile.of(number) {
            match rule.effect {
                Effect::Deny => push_new(&mut tests.ask, &rule.conditions),
                Effect::Allow if rule.conditions.iter().all(is_scalar) => push_new(&mut allow, &rule.conditions),
                // Whether it holds only the supervisor can tell.
                Effect::Allow => {}
            }
        }
        if allow.is_empty() {
            return Plan::Ask;
        }
        if !allow.iter().any(|pattern| pattern.is_empty()) && !tests.allow.contains(&allow) {
            tests.allow.push(allow);
        }
    }
    // A pattern without scalar conditions may always hold.
    if tests.ask.iter().any(|pattern| !pattern.iter().any(is_scalar)) {
        return Plan::Ask;
    }
    if tests.ask.is_empty() && tests.allow.is_empty() {
        Plan::Allow
    } else {
        Plan::Test(tests)
    }
}

fn push_new<'p>(patterns: &mut Vec<Pattern<'p>>, pattern: Pattern<'p>) {
    if !patterns.contains(&pattern) {
        patterns.push(pattern);
    }
}

fn is_scalar(condition: &Condition) -> bool {
    matches!(condition, Condition::Arg { .. })
}

/// Where a leaf of the dispatch tree goes.
struct Targets<'r, 'p> {
    allow: Label,
    ask: Label,
    blocks: Vec<(&'r Tests<'p>, Label)>,
}

fn assemble(ranges: &[(u32, Plan<'_>)]) -> Result<Program, CompileError> {
    let mut program = Assembler::default();
    let mut targets = Targets {
        allow: program.ret(SECCOMP_RET_ALLOW),
        ask: program.ret(SECCOMP_RET_USER_NOTIF),
        blocks: Vec::new(),
    };
    for (_, plan) in ranges {
        let Plan::Test(tests) = plan else { continue };
        // Calls with the same tests share one block.
        if !targets.blocks.iter().any(|(other, _)| *other == tests) {
            targets.refresh(&mut program);
            let label = block(&mut program, tests, targets.allow, targets.ask);
            targets.blocks.push((tests, label));
        }
        if program.is_full() {
            return Err(CompileError::TooLong);
        }
    }
    targets.refresh(&mut program);
    let dispatch = tree(&mut program, ranges, &mut targets);
    let native = program.load_at(OFFSET_NUMBER, dispatch);
    let by_arch = program.branch(JMP_JEQ_K, Arch::NATIVE.audit(), native, targets.ask);
    program.load_at(OFFSET_ARCH, by_arch);
    if program.len() > PROGRAM_MAX {
        Err(CompileError::TooLong)
    } else {
        Ok(program.finish())
    }
}

impl Targets<'_, '_> {
    /// Writes the two returns again where the last ones are getting out of reach: cheaper than a stepping stone a jump.
    fn refresh(&mut self, program: &mut Assembler) {
        if !program.reaches(self.allow) {
            self.allow = program.ret(SECCOMP_RET_ALLOW);
        }
        if !program.reaches(self.ask) {
            self.ask = program.ret(SECCOMP_RET_USER_NOTIF);
        }
    }

    fn of(&self, plan: &Plan<'_>) -> Label {
        match plan {
            Plan::Allow => self.allow,
            Plan::Ask => self.ask,
            // Every block was written before; without one, asking is what is safe.
            Plan::Test(tests) => self
                .blocks
                .iter()
                .find(|(other, _)| *other == tests)
                .map_or(self.ask, |(_, label)| *label),
        }
    }
}

/// The tests of one number, last first.
fn block(program: &mut Assembler, tests: &Tests<'_>, allow: Label, ask: Label) -> Label {
    let mut next = allow;
    for patterns in tests.allow.iter().rev() {
        let mut otherwise = ask;
        for pattern in patterns.iter().rev() {
            otherwise = conjunction(program, pattern, next, otherwise);
        }
        next = otherwise;
    }
    for pattern in tests.ask.iter().rev() {
        next = conjunction(program, pattern, ask, next);
    }
    next
}

/// Goes to `yes` where all conditions that the registers can tell hold, to `no` otherwise.
fn conjunction(program: &mut Assembler, pattern: Pattern<'_>, yes: Label, no: Label) -> Label {
    let mut next = yes;
    for condition in pattern.iter().rev() {
        if let Condition::Arg { index, width, test } = condition {
            next = condition::test(program, *index, *width, test, next, no);
        }
    }
    next
}

/// A balanced tree over the ranges' first numbers. Ranges are never empty: the first starts at 0.
fn tree(program: &mut Assembler, ranges: &[(u32, Plan<'_>)], targets: &mut Targets<'_, '_>) -> Label {
    match ranges {
        [] => targets.ask,
        [(_, plan)] => targets.of(plan),
        _ => {
            targets.refresh(program);
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let right = tree(program, upper, targets);
            let left = tree(program, lower, targets);
            let first = upper.first().map_or(u32::MAX, |(first, _)| *first);
            program.branch(JMP_JGE_K, first, right, left)
        }
    }
}
