//! A set as a person reads it: patterns of arguments that do not overlap.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use nexus_abi::syscall::Width;

use super::{Asked, CallAlgebra, CallSet, Variable, variable, variable_of};
use crate::limits::ARGUMENTS;

/// Patterns that one set is shown by; past it the set is still exact, and its listing says that it is cut.
pub const PATTERNS_MAX: usize = 256;

/// What one argument of a pattern may be: one of these ranges, or a value with one of these masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentSet {
    /// Which argument.
    pub index: u8,
    /// First and last, both included; sorted, apart from one another.
    pub ranges: Vec<(u64, u64)>,
    /// Mask and value: `argument & mask == value`.
    pub masks: Vec<(u64, u64)>,
}

/// What a judge must say of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedSet {
    /// Whom.
    pub asked: Asked,
    /// Whether it must, or must not, surely hold.
    pub holds: Option<bool>,
    /// Whether it must, or must not, possibly hold.
    pub may_hold: Option<bool>,
}

/// A part of a set: all of its conditions together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Pattern {
    /// Of arguments; those that are not named may be anything.
    pub arguments: Vec<ArgumentSet>,
    /// Of what others judge.
    pub asked: Vec<AskedSet>,
}

/// A set as patterns that do not overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns {
    /// The patterns, at most [`PATTERNS_MAX`].
    pub patterns: Vec<Pattern>,
    /// Whether there are more.
    pub is_cut: bool,
}

impl CallAlgebra {
    /// The set as patterns; `width` says how much of each argument the call reads.
    #[must_use]
    pub fn patterns(&self, set: CallSet, width: impl Fn(u8) -> Width) -> Patterns {
        let mut out = Patterns {
            patterns: Vec::new(),
            is_cut: false,
        };
        self.walk_arguments(set.0, 0, &Pattern::default(), &width, &mut out);
        out
    }

    // As deep as there are arguments.
    fn walk_arguments(&self, at: u32, index: u8, so_far: &Pattern, width: &impl Fn(u8) -> Width, out: &mut Patterns) {
        if at == 0 || out.is_cut {
            return;
        }
        if usize::from(index) >= ARGUMENTS {
            return self.walk_facts(at, so_far, out);
        }
        let next = index.saturating_add(1);
        if self.node(at).variable >= variable(next, 63) {
            return self.walk_arguments(at, next, so_far, width, out);
        }
        // The values of this argument that lead to the same rest belong together.
        let mut leads: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let mut stack = [(at, 0_u64, 0_u64)].to_vec();
        let mut cubes = 0_usize;
        while let Some((at, mask, value)) = stack.pop() {
            let node = self.node(at);
            match variable_of(node.variable) {
                _ if at == 0 => {}
                Variable::Bit { index: own, bit } if own == index => {
                    let bit = 1_u64.checked_shl(bit.into()).unwrap_or_default();
                    stack.push((node.high, mask | bit, value | bit));
                    stack.push((node.low, mask | bit, value));
                }
                _ => {
                    cubes = cubes.saturating_add(1);
                    if cubes > PATTERNS_MAX.saturating_mul(16) {
                        out.is_cut = true;
                        return;
                    }
                    leads.entry(at).or_default().push((mask, value));
                }
            }
        }
        for (rest, cubes) in leads {
            let mut pattern = so_far.clone();
            pattern.arguments.push(argument_set(index, width(index), &cubes));
            self.walk_arguments(rest, next, &pattern, width, out);
        }
    }

    fn walk_facts(&self, at: u32, so_far: &Pattern, out: &mut Patterns) {
        let mut stack = [(at, so_far.asked.clone())].to_vec();
        while let Some((at, asked)) = stack.pop() {
            let node = self.node(at);
            match variable_of(node.variable) {
                _ if at == 0 => {}
                Variable::Fact { asked: which, may } => {
                    for (to, says) in [(node.high, true), (node.low, false)] {
                        let mut asked = asked.clone();
                        let known = asked.last().filter(|last| last.asked == which).copied();
                        let mut next = known.unwrap_or(AskedSet {
                            asked: which,
                            holds: None,
                            may_hold: None,
                        });
                        if known.is_some() {
                            asked.pop();
                        }
                        if may {
                            next.may_hold = Some(says);
                        } else {
                            next.holds = Some(says);
                        }
                        asked.push(next);
                        stack.push((to, asked));
                    }
                }
                _ if out.patterns.len() >= PATTERNS_MAX => {
                    out.is_cut = true;
                    return;
                }
                _ => out.patterns.push(Pattern {
                    arguments: so_far.arguments.clone(),
                    asked,
                }),
            }
        }
    }
}

/// Free bits of a mask that is shown as its values: up to 16 of them are read more easily than the mask.
const SPREAD_BITS_MAX: u32 = 4;

/// Every value whose other bits are these.
fn spread(free: u64, value: u64, out: &mut Vec<(u64, u64)>) {
    let mut part = 0_u64;
    loop {
        out.push((value | part, value | part));
        // The next subset of the free bits; after all of them comes none.
        part = part.wrapping_sub(free) & free;
        if part == 0 {
            return;
        }
    }
}

/// Cubes as ranges where they are some, and joined.
fn argument_set(index: u8, width: Width, cubes: &[(u64, u64)]) -> ArgumentSet {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut masks = Vec::new();
    for (mask, value) in cubes {
        let free = width.mask() & !mask;
        // All free bits are the lowest ones: what they span is without a gap.
        if free & free.wrapping_add(1) == 0 {
            ranges.push((*value, value | free));
        } else if free.count_ones() <= SPREAD_BITS_MAX {
            spread(free, *value, &mut ranges);
        } else {
            masks.push((*mask, *value));
        }
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
            _ => joined.push((first, last)),
        }
    }
    masks.sort_unstable();
    ArgumentSet {
        index,
        ranges: joined,
        masks,
    }
}
