//! [INVARIANT filter-is-guard]: the filter against the guard, on random profiles and calls.

use std::vec::Vec;

use proptest::prelude::*;

use super::generators::{call, hostile_profile, mediated, profiles};
use super::interpreter::{is_const_allow, kernel_takes, run};
use super::oracle::always_allowed;
use crate::{
    Call, CompileError, Guard, Mediated, Profile, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, ScalarVerdict, compile,
};

fn is_mediated(mediated: &[Mediated], call: &Call) -> bool {
    mediated
        .iter()
        .filter(|pattern| pattern.number == call.number)
        .any(|pattern| {
            pattern
                .conditions
                .iter()
                .all(|each| each.scalar(&call.args) != Some(false))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_filter_allows_exactly_what_every_profile_allows_by_the_registers_alone(
        profiles in profiles(), mediated in mediated(), calls in proptest::collection::vec(call(), 1..40)
    ) {
        let profiles: Vec<&Profile> = profiles.iter().collect();
        let program = compile(&profiles, &mediated).unwrap();
        prop_assert!(kernel_takes(&program));
        for call in calls {
            let (action, _) = run(&program, &call);
            let expected = always_allowed(&profiles, call) && !is_mediated(&mediated, &call);
            let wanted = if expected { SECCOMP_RET_ALLOW } else { SECCOMP_RET_USER_NOTIF };
            prop_assert_eq!(action, wanted, "{:?}\n{}", call, program);

            let scalar = profiles
                .iter()
                .all(|profile| matches!(profile.judge_scalar(&call), ScalarVerdict::Known(verdict) if verdict.is_allow()));
            prop_assert_eq!(scalar, always_allowed(&profiles, call));

            // What the kernel takes for always allowed is allowed with every argument.
            if is_const_allow(&program, call.number, call.arch) {
                prop_assert_eq!(action, SECCOMP_RET_ALLOW);
            }
        }
    }

    #[test]
    fn the_same_profiles_give_the_same_filter(profiles in profiles(), mediated in mediated()) {
        let profiles: Vec<&Profile> = profiles.iter().collect();
        prop_assert_eq!(compile(&profiles, &mediated).unwrap(), compile(&profiles, &mediated).unwrap());
    }

    #[test]
    fn a_profile_out_of_bounds_is_an_error_for_guard_and_filter_alike_and_one_within_is_taken(
        profile in hostile_profile(), call in call()
    ) {
        let checked = profile.check();
        prop_assert_eq!(Guard::new(&[&profile]).map(|_| ()), checked.map_err(CompileError::Profile));
        match compile(&[&profile], &[]) {
            Ok(program) => {
                prop_assert_eq!(checked, Ok(()));
                prop_assert!(kernel_takes(&program));
            }
            Err(CompileError::TooLong) => prop_assert_eq!(checked, Ok(())),
            Err(error) => prop_assert_eq!(Err(error), checked.map_err(CompileError::Profile)),
        }
        // The lower-level look takes any profile; only that it returns is claimed.
        let _ = profile.judge_scalar(&call);
    }
}
