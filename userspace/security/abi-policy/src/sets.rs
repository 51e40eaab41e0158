//! Exact sets of a call's arguments, as ordered binary decision diagrams (Bryant 1986): one form for each set, so that two are
//! equal exactly if they are the same node.
//!
//! A variable is a bit of an argument, the first argument's highest bit first; after these come two for each fact that
//! another judge knows: whether it surely holds, and whether it may hold.

mod patterns;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use nexus_abi::syscall::Width;
use nexus_abi::{Area, Effect, Errno};

use crate::limits::ARGUMENTS;
use crate::profile::{ArgTest, Condition, Profile, SyscallRule};

/// Nodes of all sets of one call together: a value is 64, the largest list of a rule 16,384, and what several rules leave of
/// one another rarely more.
pub const SET_NODES_MAX: usize = 1 << 20;

pub use patterns::{ArgumentSet, AskedSet, PATTERNS_MAX, Pattern, Patterns};

/// A set would need more than [`SET_NODES_MAX`] nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooComplex;

impl fmt::Display for TooComplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the argument rules of one call fall into more than {SET_NODES_MAX} cases"
        )
    }
}

impl core::error::Error for TooComplex {}

/// Something that another judge knows of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Whether the egress rules allow its destination.
    Egress,
    /// Whether what it makes grow fits this area.
    Budget(Area),
}

impl Asked {
    const ALL: [Self; 4] = [
        Self::Egress,
        Self::Budget(Area::Tmp),
        Self::Budget(Area::State),
        Self::Budget(Area::Work),
    ];
}

/// A set of one [`CallAlgebra`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallSet(u32);

impl CallSet {
    /// Nothing.
    pub const EMPTY: Self = Self(0);
    /// Every call.
    pub const ALL: Self = Self(1);

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds every call.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.0 == 1
    }
}

const ARGUMENT_BITS: u16 = 64;
/// The first variable that is no bit of an argument.
const FACTS: u16 = 6 * ARGUMENT_BITS;
/// Past every variable: the level of the two leaves.
const LEAF: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Node {
    variable: u16,
    low: u32,
    high: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    And,
    Or,
    /// In the first and not in the second.
    Minus,
}

/// Where the sets of one call live.
pub struct CallAlgebra {
    nodes: Vec<Node>,
    unique: BTreeMap<(u16, u32, u32), u32>,
    done: BTreeMap<(Op, u32, u32), u32>,
}

/// What becomes of a call, for every argument at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Which are allowed.
    pub allowed: CallSet,
    /// Which a deny rule or a probe answers with which errno. Where nothing is said the answer follows from the lack of a rule.
    pub answered: BTreeMap<u16, CallSet>,
}

impl Default for CallAlgebra {
    fn default() -> Self {
        Self::new()
    }
}

impl CallAlgebra {
    /// With the two sets that there always are.
    #[must_use]
    pub fn new() -> Self {
        let leaf = Node {
            variable: LEAF,
            low: 0,
            high: 0,
        };
        Self {
            nodes: [leaf, leaf].to_vec(),
            unique: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    fn node(&self, set: u32) -> Node {
        let at = usize::try_from(set).unwrap_or(usize::MAX);
        self.nodes.get(at).copied().unwrap_or(Node {
            variable: LEAF,
            low: 0,
            high: 0,
        })
    }

    fn make(&mut self, variable: u16, low: u32, high: u32) -> Result<u32, TooComplex> {
        if low == high {
            return Ok(low);
        }
        if let Some(known) = self.unique.get(&(variable, low, high)) {
            return Ok(*known);
        }
        if self.nodes.len() >= SET_NODES_MAX {
            return Err(TooComplex);
        }
        let new = u32::try_from(self.nodes.len()).map_err(|_| TooComplex)?;
        self.nodes.push(Node { variable, low, high });
        self.unique.insert((variable, low, high), new);
        Ok(new)
    }

    // As deep as there are variables: 392.
    fn apply(&mut self, op: Op, one: u32, other: u32) -> Result<u32, TooComplex> {
        match (op, one, other) {
            (Op::And | Op::Minus, 0, _) | (Op::And, _, 0) | (Op::Minus, _, 1) => return Ok(0),
            (Op::And, 1, rest) | (Op::And, rest, 1) | (Op::Or, 0, rest) | (Op::Or, rest, 0) | (Op::Minus, rest, 0) => {
                return Ok(rest);
            }
            (Op::Or, 1, _) | (Op::Or, _, 1) => return Ok(1),
            (Op::Minus, a, b) if a == b => return Ok(0),
            (_, a, b) if a == b => return Ok(a),
            _ => {}
        }
        if let Some(known) = self.done.get(&(op, one, other)) {
            return Ok(*known);
        }
        let (a, b) = (self.node(one), self.node(other));
        let variable = a.variable.min(b.variable);
        let (a_low, a_high) = if a.variable == variable {
            (a.low, a.high)
        } else {
            (one, one)
        };
        let (b_low, b_high) = if b.variable == variable {
            (b.low, b.high)
        } else {
            (other, other)
        };
        let low = self.apply(op, a_low, b_low)?;
        let high = self.apply(op, a_high, b_high)?;
        let made = self.make(variable, low, high)?;
        self.done.insert((op, one, other), made);
        Ok(made)
    }

    /// What is in both.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn intersection(&mut self, one: CallSet, other: CallSet) -> Result<CallSet, TooComplex> {
        self.apply(Op::And, one.0, other.0).map(CallSet)
    }

    /// What is in either.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn union(&mut self, one: CallSet, other: CallSet) -> Result<CallSet, TooComplex> {
        self.apply(Op::Or, one.0, other.0).map(CallSet)
    }

    /// What is in the first and not in the second.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn difference(&mut self, one: CallSet, other: CallSet) -> Result<CallSet, TooComplex> {
        self.apply(Op::Minus, one.0, other.0).map(CallSet)
    }

    /// Whether a set holds a call with these arguments, where each fact holds, may hold, or does neither.
    #[must_use]
    pub fn contains(&self, set: CallSet, args: &[u64; ARGUMENTS], fact: impl Fn(Asked) -> (bool, bool)) -> bool {
        let mut at = set.0;
        loop {
            let node = self.node(at);
            let is_set = match variable_of(node.variable) {
                Variable::Leaf => return at == 1,
                Variable::Bit { index, bit } => {
                    let value = args.get(usize::from(index)).copied().unwrap_or_default();
                    value.checked_shr(bit.into()).unwrap_or_default() & 1 == 1
                }
                Variable::Fact { asked, may } => {
                    let (holds, may_hold) = fact(asked);
                    if may { may_hold } else { holds }
                }
            };
            at = if is_set { node.high } else { node.low };
        }
    }

    /// `argument & mask == value`
    fn masked(&mut self, index: u8, mask: u64, value: u64) -> Result<u32, TooComplex> {
        if value & !mask != 0 {
            return Ok(0);
        }
        let mut set = 1;
        for bit in (0..ARGUMENT_BITS).filter(|bit| mask.checked_shr(u32::from(*bit)).unwrap_or_default() & 1 == 1) {
            let is_set = value.checked_shr(u32::from(bit)).unwrap_or_default() & 1 == 1;
            let (low, high) = if is_set { (0, set) } else { (set, 0) };
            set = self.make(variable(index, bit), low, high)?;
        }
        Ok(set)
    }

    /// From or up to a value, both including it, of so many bits.
    fn bound(&mut self, index: u8, width: Width, value: u64, at_least: bool) -> Result<u32, TooComplex> {
        let mut set = 1;
        for bit in 0..u16::from(width.bits()) {
            let is_set = value.checked_shr(u32::from(bit)).unwrap_or_default() & 1 == 1;
            let (low, high) = match (is_set, at_least) {
                (true, true) => (0, set),
                (false, true) => (set, 1),
                (true, false) => (1, set),
                (false, false) => (set, 0),
            };
            set = self.make(variable(index, bit), low, high)?;
        }
        Ok(set)
    }

    fn test(&mut self, index: u8, width: Width, test: &ArgTest) -> Result<u32, TooComplex> {
        let fits = |value: u64| value & !width.mask() == 0;
        match test {
            ArgTest::Equal(value) if fits(*value) => self.masked(index, width.mask(), *value),
            ArgTest::Equal(_) => Ok(0),
            ArgTest::Masked { mask, value } => {
                // Bits that are cut off are zero.
                if value & !width.mask() != 0 {
                    return Ok(0);
                }
                self.masked(index, mask & width.mask(), *value)
            }
            ArgTest::Range { first, last } if first <= last && fits(*first) => {
                let from = self.bound(index, width, *first, true)?;
                let to = self.bound(index, width, (*last).min(width.mask()), false)?;
                self.apply(Op::And, from, to)
            }
            ArgTest::Range { .. } => Ok(0),
            ArgTest::OneOf(values) => {
                // Halves of halves, so that no large set is made anew for each value.
                let mut sets = Vec::new();
                for value in values.iter().filter(|value| fits(**value)) {
                    sets.push(self.masked(index, width.mask(), *value)?);
                }
                while sets.len() > 1 {
                    let mut next = Vec::new();
                    for pair in sets.chunks(2) {
                        next.push(match pair {
                            [one, other] => self.apply(Op::Or, *one, *other)?,
                            [one] => *one,
                            _ => 0,
                        });
                    }
                    sets = next;
                }
                Ok(sets.first().copied().unwrap_or(0))
            }
            ArgTest::AnyBit(mask) => {
                let none = self.masked(index, mask & width.mask(), 0)?;
                self.apply(Op::Minus, 1, none)
            }
        }
    }

    /// All of a rule's conditions; what cannot be known holds for a deny rule and not for an allow rule.
    fn conditions(&mut self, rule: &SyscallRule) -> Result<u32, TooComplex> {
        let mut all = 1;
        for condition in &rule.conditions {
            let one = match condition {
                Condition::Arg { index, width, test } if usize::from(*index) < ARGUMENTS => {
                    self.test(*index, *width, test)?
                }
                Condition::Arg { .. } => 0,
                Condition::Egress => self.fact(Asked::Egress, rule.effect)?,
                Condition::Budget(area) => self.fact(Asked::Budget(*area), rule.effect)?,
            };
            all = self.apply(Op::And, all, one)?;
        }
        Ok(all)
    }

    fn fact(&mut self, asked: Asked, effect: Effect) -> Result<u32, TooComplex> {
        let place = Asked::ALL.iter().position(|known| *known == asked);
        let Some(place) = place.and_then(|place| u16::try_from(place).ok()) else {
            // An area that policy does not speak of yet: nothing grows there.
            return Ok(1);
        };
        let holds = FACTS.saturating_add(place.saturating_mul(2));
        let may = holds.saturating_add(1);
        let may_hold = self.make(may, 0, 1)?;
        match effect {
            Effect::Deny => Ok(may_hold),
            // What surely holds may hold.
            Effect::Allow => self.make(holds, 0, may_hold),
        }
    }

    /// What becomes of a call under these profiles, the ceiling first, as [`Guard`](crate::Guard) judges it.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn answers(&mut self, profiles: &[&Profile], number: u32) -> Result<Answers, TooComplex> {
        let mut allowed = 1;
        let mut answered: BTreeMap<u16, u32> = BTreeMap::new();
        for profile in profiles {
            let of_number = |effect: Effect| {
                let rules = profile.rules.iter();
                rules.filter(move |rule| rule.number == number && rule.effect == effect)
            };
            // What no profile before this one and no rule of this one has decided yet.
            let mut left = allowed;
            let mut answer = |algebra: &mut Self, errno: Errno, set: u32| {
                let known = answered.entry(errno.raw()).or_insert(0);
                *known = algebra.apply(Op::Or, *known, set)?;
                Ok(())
            };
            for rule in of_number(Effect::Deny) {
                let hit = self.conditions(rule)?;
                let hit = self.apply(Op::And, left, hit)?;
                answer(self, rule.errno, hit)?;
                left = self.apply(Op::Minus, left, hit)?;
            }
            if profile.probed.binary_search(&number).is_ok() {
                answer(self, Errno::ENOSYS, left)?;
                allowed = 0;
                continue;
            }
            let mut opened = 0;
            for rule in of_number(Effect::Allow) {
                let holds = self.conditions(rule)?;
                opened = self.apply(Op::Or, opened, holds)?;
            }
            allowed = self.apply(Op::And, left, opened)?;
        }
        if profiles.is_empty() {
            allowed = 0;
        }
        let answered = answered.into_iter().filter(|(_, set)| *set != 0);
        Ok(Answers {
            allowed: CallSet(allowed),
            answered: answered.map(|(errno, set)| (errno, CallSet(set))).collect(),
        })
    }
}

enum Variable {
    Bit { index: u8, bit: u8 },
    Fact { asked: Asked, may: bool },
    Leaf,
}

/// The highest bit of the first argument comes first.
fn variable(index: u8, bit: u16) -> u16 {
    u16::from(index)
        .saturating_mul(ARGUMENT_BITS)
        .saturating_add(ARGUMENT_BITS.saturating_sub(1).saturating_sub(bit))
}

fn variable_of(number: u16) -> Variable {
    if let Some(fact) = number.checked_sub(FACTS) {
        return match Asked::ALL.get(usize::from(fact / 2)) {
            Some(asked) => Variable::Fact {
                asked: *asked,
                may: fact % 2 == 1,
            },
            None => Variable::Leaf,
        };
    }
    let index = u8::try_from(number / ARGUMENT_BITS).unwrap_or(u8::MAX);
    let bit = ARGUMENT_BITS.saturating_sub(1).saturating_sub(number % ARGUMENT_BITS);
    Variable::Bit {
        index,
        bit: u8::try_from(bit).unwrap_or(u8::MAX),
    }
}
