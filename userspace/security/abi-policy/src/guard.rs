//! The guard chain: one evaluator over syscall rules, egress and budgets.

use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use nexus_abi::syscall::NUMBERS_MAX;
use nexus_abi::{Area, Effect, Errno, Protocol, Reason, Verdict};

use crate::check::ProfileError;
use crate::compile::CompileError;
use crate::floor::floor_rule_name;
use crate::limits::PROFILES_MAX;
use crate::profile::{Call, Condition, Profile, SyscallRule, denied_by, lack_of_rule};
use crate::trace::{Judgement, Outcome, Step, Trace};

/// Where a call would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Over which protocol.
    pub protocol: Protocol,
    /// To which address and port, as copied once from the caller's memory.
    pub address: SocketAddr,
}

/// What a call would add to an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Growth {
    /// Which area.
    pub area: Area,
    /// By how many bytes.
    pub bytes: u64,
    /// By how many inodes.
    pub inodes: u64,
}

/// What the caller of the guard knows of something that a rule may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact<T> {
    /// Nothing is known. An allow rule that asks does not hold, a deny rule that asks does.
    Unknown,
    /// The call has no such thing: it goes to no address outside, it makes nothing grow. A condition on it holds.
    Nothing,
    /// This.
    Is(T),
}

/// A call, and what the supervisor found out about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The call.
    pub call: Call,
    /// Where it goes.
    pub destination: Fact<Destination>,
    /// What it makes grow.
    pub growth: Fact<Growth>,
}

impl Request {
    /// A request of which only the registers are known.
    #[must_use]
    pub const fn scalar(call: Call) -> Self {
        Self {
            call,
            destination: Fact::Unknown,
            growth: Fact::Unknown,
        }
    }
}

/// The other judges. The guard asks them and passes on what they say; it never judges in their place.
pub trait Facts {
    /// The egress rules' verdict on a destination.
    fn egress(&self, destination: &Destination) -> Verdict;
    /// The ledger's verdict on a growth.
    fn budget(&self, growth: &Growth) -> Verdict;
}

/// Judges that refuse everything, for profiles without such conditions.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn egress(&self, _: &Destination) -> Verdict {
        Verdict::Deny {
            reason: Reason::EgressNoRule,
            errno: Errno::EPERM,
            rule: None,
        }
    }

    fn budget(&self, _: &Growth) -> Verdict {
        Verdict::Deny {
            reason: Reason::QuotaHardBytes,
            errno: Errno::EDQUOT,
            rule: None,
        }
    }
}

/// A profile whose rules are sorted by number; the rules of one number keep their policy order.
#[derive(Clone, Debug)]
struct Sorted {
    rules: Vec<SyscallRule>,
    probed: Vec<u32>,
    /// What is said of each number of the table: to search the rules costs a call that is judged three hundredths.
    numbers: Vec<OfNumber>,
}

#[derive(Clone, Copy, Debug, Default)]
struct OfNumber {
    /// Where its rules begin, and how many they are.
    first: u16,
    count: u16,
    probed: bool,
}

impl Sorted {
    fn new(profile: &Profile) -> Self {
        let mut rules = profile.rules.clone();
        rules.sort_by_key(|rule| rule.number);
        let mut numbers = vec![OfNumber::default(); NUMBERS_MAX as usize];
        for (rule, place) in rules.iter().zip(0_u16..) {
            if let Some(of) = numbers.get_mut(rule.number as usize) {
                if of.count == 0 {
                    of.first = place;
                }
                of.count = of.count.saturating_add(1);
            }
        }
        for number in &profile.probed {
            if let Some(of) = numbers.get_mut(*number as usize) {
                of.probed = true;
            }
        }
        let probed = profile.probed.clone();
        Self { rules, probed, numbers }
    }

    /// The rules of a number, and whether it is probed. No rule speaks of a number that is in no table.
    fn of_number(&self, number: u32) -> (&[SyscallRule], bool) {
        let Some(of) = self.numbers.get(number as usize) else {
            return (&[], self.probed.binary_search(&number).is_ok());
        };
        let rules = self.rules.get(usize::from(of.first)..).unwrap_or_default();
        (rules.get(..usize::from(of.count)).unwrap_or_default(), of.probed)
    }
}

/// Judges calls by several profiles at once: a call is allowed if all of them allow it.
#[derive(Clone, Debug)]
pub struct Guard {
    profiles: Vec<Sorted>,
}

/// What became of the conditions of one rule.
enum Conditions {
    Hold,
    Fail(Outcome),
    Refused(Outcome, Verdict),
    Unknown(Outcome),
}

impl Guard {
    /// A guard over these profiles, the ceiling first and the [`floor`](crate::floor()) last: where several deny, the first
    /// one's reason is given; where all allow, the rule of the last but the floor.
    ///
    /// # Errors
    /// [`CompileError::NoProfile`], [`CompileError::TooManyProfiles`] or what is wrong with a profile; the same that
    /// [`compile`](crate::compile()) says of them.
    pub fn new(profiles: &[&Profile]) -> Result<Self, CompileError> {
        check_profiles(profiles)?;
        Ok(Self {
            profiles: profiles.iter().map(|profile| Sorted::new(profile)).collect(),
        })
    }

    /// Judges a request.
    #[must_use]
    pub fn judge(&self, request: &Request, facts: &impl Facts) -> Verdict {
        self.run(request, facts, &mut Trace::off())
    }

    /// Judges a request and says how the verdict came about.
    #[must_use]
    pub fn explain(&self, request: &Request, facts: &impl Facts) -> Judgement {
        let mut trace = Trace::on();
        let verdict = self.run(request, facts, &mut trace);
        Judgement { verdict, trace }
    }

    fn run(&self, request: &Request, facts: &impl Facts, trace: &mut Trace) -> Verdict {
        if request.call.is_foreign() {
            trace.push(Step::Foreign);
            return Verdict::Deny {
                reason: Reason::AbiForeign,
                errno: Errno::ENOSYS,
                rule: None,
            };
        }
        let mut allowed = Verdict::Allow { rule: None };
        for (profile, place) in self.profiles.iter().zip(0_u8..) {
            let verdict = judge_profile(profile, place, request, facts, trace);
            if !verdict.is_allow() {
                return verdict;
            }
            // The subject's own profile stands last but for the floor: its rule is the one that a reader looks for.
            if verdict.rule().and_then(floor_rule_name).is_none() {
                allowed = verdict;
            }
        }
        allowed
    }
}

/// The checks that a guard and a filter share.
pub(crate) fn check_profiles(profiles: &[&Profile]) -> Result<(), CompileError> {
    if profiles.is_empty() {
        return Err(CompileError::NoProfile);
    }
    if profiles.len() > PROFILES_MAX {
        return Err(CompileError::TooManyProfiles {
            profiles: profiles.len(),
        });
    }
    profiles
        .iter()
        .try_for_each(|profile| profile.check())
        .map_err(|error: ProfileError| CompileError::Profile(error))
}

fn judge_profile(profile: &Sorted, place: u8, request: &Request, facts: &impl Facts, trace: &mut Trace) -> Verdict {
    let number = request.call.number;
    let (rules, is_probed) = profile.of_number(number);
    let step = |trace: &mut Trace, rule: &SyscallRule, outcome| {
        trace.push(Step::Rule {
            profile: place,
            rule: rule.rule,
            effect: rule.effect,
            outcome,
        });
    };
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Deny) {
        match conditions(rule, request, facts) {
            Conditions::Hold => {
                step(trace, rule, Outcome::Matched);
                return denied_by(rule);
            }
            // Fail closed: what can't be known does not open a closed door.
            Conditions::Unknown(outcome) => {
                step(trace, rule, outcome);
                return denied_by(rule);
            }
            Conditions::Fail(outcome) | Conditions::Refused(outcome, _) => step(trace, rule, outcome),
        }
    }
    if is_probed {
        trace.push(Step::Probed { profile: place });
        return lack_of_rule(number, true, None);
    }
    let mut refused = None;
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Allow) {
        match conditions(rule, request, facts) {
            Conditions::Hold => {
                step(trace, rule, Outcome::Matched);
                return Verdict::Allow { rule: Some(rule.rule) };
            }
            Conditions::Refused(outcome, verdict) => {
                step(trace, rule, outcome);
                refused = refused.or(Some(verdict));
            }
            Conditions::Fail(outcome) | Conditions::Unknown(outcome) => step(trace, rule, outcome),
        }
    }
    if let Some(verdict) = refused {
        return verdict;
    }
    let first_allow = rules
        .iter()
        .find(|rule| rule.effect == Effect::Allow)
        .map(|rule| rule.rule);
    let verdict = lack_of_rule(number, false, first_allow);
    if let Verdict::Deny { reason, .. } = verdict {
        trace.push(Step::NoRule { profile: place, reason });
    }
    verdict
}

/// Looks at the registers first, so that no other judge is asked about a call that the rule does not speak of.
fn conditions(rule: &SyscallRule, request: &Request, facts: &impl Facts) -> Conditions {
    for (condition, place) in rule.conditions.iter().zip(0_u8..) {
        if condition.scalar(&request.call.args) == Some(false) {
            return Conditions::Fail(Outcome::Failed { condition: place });
        }
    }
    let mut unknown = None;
    for (condition, place) in rule.conditions.iter().zip(0_u8..) {
        let fact = match condition {
            Condition::Arg { .. } => Fact::Nothing,
            Condition::Egress => match request.destination {
                Fact::Is(destination) => Fact::Is(facts.egress(&destination)),
                Fact::Nothing => Fact::Nothing,
                Fact::Unknown => Fact::Unknown,
            },
            Condition::Budget(area) => match request.growth {
                Fact::Is(growth) if growth.area == *area => Fact::Is(facts.budget(&growth)),
                // What grows elsewhere makes nothing grow here.
                Fact::Is(_) | Fact::Nothing => Fact::Nothing,
                Fact::Unknown => Fact::Unknown,
            },
        };
        match fact {
            Fact::Nothing | Fact::Is(Verdict::Allow { .. }) => {}
            Fact::Is(verdict @ Verdict::Deny { reason, .. }) => {
                return Conditions::Refused(
                    Outcome::Refused {
                        condition: place,
                        reason,
                    },
                    verdict,
                );
            }
            // A later condition may yet be refused, and then it does not matter what is unknown.
            Fact::Unknown => unknown = unknown.or(Some(Outcome::Unknown { condition: place })),
        }
    }
    unknown.map_or(Conditions::Hold, Conditions::Unknown)
}
