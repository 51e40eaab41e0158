//! A profile in front of a ledger that judges every growth itself.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use nexus_abi::syscall::nr;
use nexus_abi::{Area, Effect, Verdict};
use proptest::prelude::*;

use super::generators::{profile, request};
use super::{ArgTest, BUDGET_REFUSES, Condition, Fixed, Profile, Width, allow, arg, deny};
use crate::{Fact, Facts, Guard};

fn is_budget(condition: &Condition) -> bool {
    matches!(condition, Condition::Budget(_))
}

/// Without deny rules that ask for a budget, which nothing can be put in front of a ledger for.
fn without_budget_denials(profile: &Profile) -> Profile {
    let kept = |rule: &&crate::SyscallRule| rule.effect == Effect::Allow || !rule.conditions.iter().any(is_budget);
    Profile {
        rules: profile.rules.iter().filter(kept).cloned().collect(),
        probed: profile.probed.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_profile_and_the_ledger_behind_it_allow_what_they_allow_together_when_the_growth_is_known(
        profile in profile(),
        requests in prop::collection::vec(request(), 16),
    ) {
        let knows = without_budget_denials(&profile);
        let before = knows.in_front_of_the_ledger();
        prop_assert!(!before.rules.iter().any(|rule| rule.conditions.iter().any(is_budget)));
        let alone = Guard::new(&[&knows]).unwrap();
        let before = Guard::new(&[before.as_ref()]).unwrap();
        for request in requests {
            let refused_by_ledger = match request.growth {
                Fact::Unknown => continue,
                Fact::Nothing => false,
                Fact::Is(growth) => !Fixed.budget(&growth).is_allow(),
            };
            let (one, other) = (alone.judge(&request, &Fixed), before.judge(&request, &Fixed));
            if !refused_by_ledger {
                prop_assert_eq!(one, other, "nothing to refuse, to the rule that is named");
            } else if one == BUDGET_REFUSES {
                // Then it is the ledger's answer that the program gets. Only of a call with a destination, which nothing that
                // grows has, could something else be refused as well.
                prop_assert!(other.is_allow() || request.destination != Fact::Nothing, "{:?}", other);
            } else if request.destination == Fact::Nothing {
                prop_assert_eq!(one.is_allow(), other.is_allow());
            } else {
                // Refused for its destination by the one; the other leaves the growth to the ledger, which refuses it.
                prop_assert!(other.is_allow() || !one.is_allow());
            }
        }
    }
}

#[test]
fn a_profile_that_asks_no_budget_is_the_same_in_front_of_the_ledger() {
    let rules = vec![
        allow(nr::write, vec![arg(0, Width::W32, ArgTest::Equal(1))], 1),
        allow(nr::connect, vec![Condition::Egress], 2),
    ];
    let profile = super::profile(rules);
    assert!(matches!(profile.in_front_of_the_ledger(), Cow::Borrowed(same) if *same == profile));
}

#[test]
fn a_deny_rule_keeps_the_budget_that_it_asks_for() {
    let rules = vec![
        deny(nr::write, vec![Condition::Budget(Area::Tmp)], 1),
        allow(
            nr::write,
            vec![Condition::Budget(Area::Tmp), arg(0, Width::W32, ArgTest::Equal(1))],
            2,
        ),
    ];
    let profile = super::profile(rules);
    let conditions: Vec<usize> = profile
        .in_front_of_the_ledger()
        .rules
        .iter()
        .map(|rule| rule.conditions.len())
        .collect();
    assert_eq!(conditions, [1, 1]);
    let guard = Guard::new(&[profile.in_front_of_the_ledger().as_ref()]).unwrap();
    let call = crate::Call::native(nr::write, [1, 0, 0, 0, 0, 0]);
    let verdict = guard.judge(&crate::Request::scalar(call), &Fixed);
    assert!(matches!(verdict, Verdict::Deny { .. }), "what is not known denies");
}
