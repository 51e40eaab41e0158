//! Sets of arguments against the guard, and against the patterns that show them.

use std::vec;
use std::vec::Vec;

use nexus_abi::syscall::Width;
use nexus_abi::{Area, Verdict};
use proptest::prelude::*;

use super::generators::{call, number, profiles, request};
use super::{BUDGET_REFUSES, EGRESS_REFUSES};
use crate::{
    ArgumentSet, Asked, Call, CallAlgebra, Destination, Fact, Facts, Growth, Guard, Pattern, Profile, Request,
};

/// The judges of the other tests: port 1 and one byte are fine.
struct Others;

impl Facts for Others {
    fn egress(&self, to: &Destination) -> Verdict {
        if to.address.port() == 1 {
            Verdict::Allow { rule: None }
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

/// Whether a fact surely holds, and whether it may.
fn facts(request: &Request) -> impl Fn(Asked) -> (bool, bool) {
    let (destination, growth) = (request.destination, request.growth);
    move |asked| match asked {
        Asked::Egress => match destination {
            Fact::Unknown => (false, true),
            Fact::Nothing => (true, true),
            Fact::Is(to) => (to.address.port() == 1, to.address.port() == 1),
        },
        Asked::Budget(area) => match growth {
            Fact::Unknown => (false, true),
            Fact::Is(growth) if growth.area == area => (growth.bytes == 1, growth.bytes == 1),
            Fact::Is(_) | Fact::Nothing => (true, true),
        },
    }
}

fn holds(
    pattern: &Pattern,
    args: &[u64; 6],
    widths: &impl Fn(u8) -> Width,
    facts: &impl Fn(Asked) -> (bool, bool),
) -> bool {
    let argument = |set: &ArgumentSet| {
        let value = args[usize::from(set.index)] & widths(set.index).mask();
        set.ranges.iter().any(|(first, last)| (*first..=*last).contains(&value))
            || set.masks.iter().any(|(mask, wanted)| value & mask == *wanted)
    };
    pattern.arguments.iter().all(argument)
        && pattern.asked.iter().all(|asked| {
            let (surely, may) = facts(asked.asked);
            asked.holds.is_none_or(|wanted| wanted == surely) && asked.may_hold.is_none_or(|wanted| wanted == may)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_set_holds_exactly_the_calls_that_the_guard_allows(
        profiles in profiles(),
        number in number(),
        requests in prop::collection::vec(request(), 16),
    ) {
        let refs: Vec<&Profile> = profiles.iter().collect();
        let guard = Guard::new(&refs).unwrap();
        let mut algebra = CallAlgebra::new();
        let answers = algebra.answers(&refs, number).unwrap();
        for request in requests {
            let request = Request { call: Call::native(number, request.call.args), ..request };
            let facts = facts(&request);
            let verdict = guard.judge(&request, &Others);
            let has = algebra.contains(answers.allowed, &request.call.args, &facts);
            prop_assert_eq!(has, verdict.is_allow(), "{:?}", request);
            let mut said = None;
            for (errno, set) in &answers.answered {
                if algebra.contains(*set, &request.call.args, &facts) {
                    prop_assert!(said.is_none());
                    said = Some(*errno);
                }
            }
            match verdict {
                Verdict::Allow { .. } => prop_assert_eq!(said, None),
                Verdict::Deny { errno, .. } => prop_assert!(said.is_none_or(|said| said == errno.raw())),
            }
        }
    }

    #[test]
    fn patterns_are_exactly_their_set_and_do_not_overlap(
        profiles in profiles(),
        number in number(),
        calls in prop::collection::vec((call(), request()), 16),
    ) {
        let refs: Vec<&Profile> = profiles.iter().collect();
        let mut algebra = CallAlgebra::new();
        let set = algebra.answers(&refs, number).unwrap().allowed;
        // The test rules' widths differ from rule to rule: a mask of all bits says each.
        let widths = |_: u8| Width::W64;
        let shown = algebra.patterns(set, widths);
        prop_assume!(!shown.is_cut);
        for (call, request) in calls {
            let facts = facts(&request);
            let matching = shown.patterns.iter().filter(|pattern| holds(pattern, &call.args, &widths, &facts)).count();
            prop_assert_eq!(matching, usize::from(algebra.contains(set, &call.args, &facts)));
        }
    }

    #[test]
    fn the_same_set_is_the_same_node_however_it_came_about(one in profiles(), other in profiles(), number in number()) {
        let (one, other): (Vec<&Profile>, Vec<&Profile>) = (one.iter().collect(), other.iter().collect());
        let mut algebra = CallAlgebra::new();
        let a = algebra.answers(&one, number).unwrap().allowed;
        let b = algebra.answers(&other, number).unwrap().allowed;
        let (gained, lost) = (algebra.difference(b, a).unwrap(), algebra.difference(a, b).unwrap());
        let kept = algebra.intersection(a, b).unwrap();
        prop_assert_eq!(algebra.union(kept, gained).unwrap(), b);
        prop_assert_eq!(algebra.union(kept, lost).unwrap(), a);
        prop_assert_eq!(gained.is_empty() && lost.is_empty(), a == b);
    }
}

#[test]
fn every_small_set_of_an_argument_is_told_from_every_other() {
    use crate::{ArgTest, Condition, SyscallRule};
    use nexus_abi::{Effect, Errno, RuleRef};
    let tests: Vec<ArgTest> = (0..4)
        .flat_map(|a| (0..4).map(move |b| (a, b)))
        .flat_map(|(a, b)| {
            vec![
                ArgTest::Equal(a),
                ArgTest::Range {
                    first: a.min(b),
                    last: a.max(b),
                },
                ArgTest::Masked { mask: b | a, value: a },
                ArgTest::AnyBit(a.max(1)),
            ]
        })
        .collect();
    let mut algebra = CallAlgebra::new();
    let sets: Vec<_> = tests
        .iter()
        .map(|test| {
            let low = Condition::Arg {
                index: 0,
                width: Width::W32,
                test: ArgTest::Range { first: 0, last: 3 },
            };
            let rule = SyscallRule {
                number: 1,
                effect: Effect::Allow,
                errno: Errno::EPERM,
                conditions: vec![
                    low,
                    Condition::Arg {
                        index: 0,
                        width: Width::W32,
                        test: test.clone(),
                    },
                ],
                rule: RuleRef(0),
            };
            let profile = Profile {
                rules: vec![rule],
                probed: vec![],
            };
            algebra.answers(&[&profile], 1).unwrap().allowed
        })
        .collect();
    for (one, a) in tests.iter().zip(&sets) {
        for (other, b) in tests.iter().zip(&sets) {
            let same = (0..4).all(|value| one.holds(value) == other.holds(value));
            assert_eq!(a == b, same, "{one:?} {other:?}");
        }
    }
    let _ = Area::ALL;
}
