//! What a filter looks like: short paths, long jumps, limits, and the kernel's map of calls that are always allowed.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use nexus_abi::RuleRef;
use nexus_abi::syscall::{self, NUMBERS_MAX, nr};

use super::generators::NATIVE;
use super::interpreter::{is_const_allow, kernel_takes, run};
use super::{allow, arg, deny, profile};
use crate::{
    ArgTest, CONDITIONS_MAX, Call, CompileError, Condition, MEDIATED_MAX, Mediated, PROGRAM_MAX, Profile, ProfileError,
    RULES_MAX, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SET_MAX, Width, compile,
};

fn every_second_call() -> Profile {
    let numbers = syscall::all()
        .filter_map(syscall::Syscall::number)
        .filter(|number| number % 2 == 0);
    profile(numbers.zip(0..).map(|(number, at)| allow(number, vec![], at)).collect())
}

#[test]
fn unconditional_allows_are_in_the_kernels_map_and_take_few_steps() {
    let program = compile(&[&every_second_call()], &[]).unwrap();
    assert!(kernel_takes(&program));
    for number in 0..NUMBERS_MAX + 8 {
        let allowed = number % 2 == 0 && syscall::by_number(number).is_some();
        let (action, steps) = run(&program, &Call::native(number, [7; 6]));
        assert_eq!(action == SECCOMP_RET_ALLOW, allowed, "{number}");
        assert_eq!(is_const_allow(&program, number, NATIVE), allowed, "{number}");
        assert!(!is_const_allow(&program, number, 0x4000_0003), "{number}");
        // Arch, number, nine levels for some 380 ranges, a few stepping stones, the return.
        assert!(steps <= 18, "{number} takes {steps}");
    }
}

#[test]
fn a_mediated_call_is_asked_about_although_a_rule_allows_it() {
    let profile = profile(vec![
        allow(nr::connect, vec![], 1),
        allow(nr::kill, vec![], 2),
        allow(nr::read, vec![], 3),
    ]);
    let mediated = [
        Mediated {
            number: nr::connect,
            conditions: vec![],
        },
        Mediated {
            number: nr::kill,
            conditions: vec![arg(0, Width::W32, ArgTest::Equal(0))],
        },
    ];
    let program = compile(&[&profile], &mediated).unwrap();
    let action = |number, first| run(&program, &Call::native(number, [first, 0, 0, 0, 0, 0])).0;
    assert_eq!(action(nr::connect, 3), SECCOMP_RET_USER_NOTIF);
    assert_eq!(action(nr::kill, 0), SECCOMP_RET_USER_NOTIF);
    assert_eq!(action(nr::kill, 5 << 32), SECCOMP_RET_USER_NOTIF);
    assert_eq!(action(nr::kill, 1), SECCOMP_RET_ALLOW);
    assert_eq!(action(nr::read, 0), SECCOMP_RET_ALLOW);
}

fn big_sets(calls: usize, values: u64) -> Profile {
    let numbers = syscall::all().filter_map(syscall::Syscall::number).take(calls);
    let rules = numbers.zip(0_u32..).map(|(number, at)| {
        // Another set for each call, or they would share one block.
        let values = (0..values).map(|value| value * 3 + u64::from(at)).collect();
        allow(number, vec![arg(1, Width::W32, ArgTest::OneOf(values))], at)
    });
    profile(rules.collect())
}

#[test]
fn sets_too_far_apart_for_a_short_jump_are_still_searched_right() {
    let profile = big_sets(7, SET_MAX as u64);
    let program = compile(&[&profile], &[]).unwrap();
    assert!(program.instructions().len() > 3500 && kernel_takes(&program));
    for rule in &profile.rules {
        for value in 0..800_u64 {
            let call = Call::native(rule.number, [0, value | 9 << 32, 0, 0, 0, 0]);
            let at = u64::from(rule.rule.0);
            let inside = value >= at && (value - at) % 3 == 0 && (value - at) / 3 < SET_MAX as u64;
            let (action, steps) = run(&program, &call);
            assert_eq!(action == SECCOMP_RET_ALLOW, inside, "{call:?}");
            assert!(steps < 32, "{steps}");
        }
    }
}

#[test]
fn a_filter_past_what_the_kernel_takes_is_an_error_and_not_a_shorter_filter() {
    assert!(
        compile(&[&big_sets(7, SET_MAX as u64)], &[])
            .unwrap()
            .instructions()
            .len()
            <= PROGRAM_MAX
    );
    assert_eq!(
        compile(&[&big_sets(9, SET_MAX as u64)], &[]),
        Err(CompileError::TooLong)
    );
    assert_eq!(
        compile(&[&big_sets(380, SET_MAX as u64)], &[]),
        Err(CompileError::TooLong)
    );
    assert!(CompileError::TooLong.to_string().contains("4096"));
}

#[test]
fn calls_with_the_same_conditions_share_their_instructions() {
    let no_set_id = || vec![arg(2, Width::W16, ArgTest::AnyBit(0o6000))];
    let with = |numbers: &[u32]| {
        let rules = numbers
            .iter()
            .flat_map(|number| [allow(*number, vec![], 1), deny(*number, no_set_id(), 2)]);
        compile(&[&profile(rules.collect())], &[]).unwrap().instructions().len()
    };
    let one = with(&[nr::fchmodat]);
    assert!(with(&[nr::fchmodat, nr::fchmodat2]) <= one + 4);
}

#[test]
fn no_profile_makes_no_filter_because_it_would_allow_everything() {
    assert_eq!(compile(&[], &[]), Err(CompileError::NoProfile));
    let empty = compile(&[&Profile::default()], &[]).unwrap();
    assert_eq!(run(&empty, &Call::native(nr::read, [0; 6])).0, SECCOMP_RET_USER_NOTIF);
}

#[test]
fn a_listing_names_what_is_loaded_and_where_each_jump_goes() {
    let profile = profile(vec![allow(
        nr::personality,
        vec![arg(0, Width::W32, ArgTest::Equal(8))],
        1,
    )]);
    let listing = compile(&[&profile], &[]).unwrap().to_string();
    let expected = "   0  load arch
   1  if == 0xc000003e goto 2 else 7
   2  load number
   3  if >= 0x87 goto 4 else 7
   4  if >= 0x88 goto 7 else 5
   5  load argument 0 lower half
   6  if == 0x8 goto 8 else 7
   7  ask
   8  allow
";
    assert_eq!(listing, expected);
}

#[test]
fn each_bound_is_kept_and_one_past_it_is_named() {
    let check = |rule: crate::SyscallRule| profile(vec![rule]).check();
    let with = |conditions| check(allow(nr::ioctl, conditions, 1));
    let rule = RuleRef(1);
    let any = || arg(0, Width::W64, ArgTest::AnyBit(1));

    assert_eq!(with(vec![any(); CONDITIONS_MAX]), Ok(()));
    let error = ProfileError::TooManyConditions {
        rule,
        conditions: CONDITIONS_MAX + 1,
    };
    assert_eq!(with(vec![any(); CONDITIONS_MAX + 1]), Err(error));

    assert_eq!(with(vec![arg(5, Width::W32, ArgTest::Equal(0))]), Ok(()));
    let error = ProfileError::NoSuchArgument { rule, index: 6 };
    assert_eq!(with(vec![arg(6, Width::W32, ArgTest::Equal(0))]), Err(error));

    let set = |values: Vec<u64>| with(vec![arg(1, Width::W32, ArgTest::OneOf(values))]);
    assert_eq!(set((0..SET_MAX as u64).collect()), Ok(()));
    let error = ProfileError::SetTooLarge {
        rule,
        values: SET_MAX + 1,
    };
    assert_eq!(set((0..=SET_MAX as u64).collect()), Err(error));
    for bad in [vec![], vec![2, 1], vec![1, 1]] {
        assert_eq!(set(bad), Err(ProfileError::SetUnsorted { rule }));
    }

    assert_eq!(
        with(vec![arg(1, Width::W32, ArgTest::Equal(u64::from(u32::MAX)))]),
        Ok(())
    );
    let error = ProfileError::ValueTooWide {
        rule,
        value: 1 << 32,
        width: Width::W32,
    };
    assert_eq!(with(vec![arg(1, Width::W32, ArgTest::Equal(1 << 32))]), Err(error));

    assert_eq!(
        with(vec![arg(1, Width::W32, ArgTest::Range { first: 2, last: 2 })]),
        Ok(())
    );
    let inverted = arg(1, Width::W32, ArgTest::Range { first: 2, last: 1 });
    assert_eq!(with(vec![inverted]), Err(ProfileError::RangeInverted { rule }));

    assert_eq!(
        with(vec![arg(1, Width::W32, ArgTest::Masked { mask: 6, value: 2 })]),
        Ok(())
    );
    for never in [ArgTest::Masked { mask: 6, value: 1 }, ArgTest::AnyBit(0)] {
        assert_eq!(
            with(vec![arg(1, Width::W32, never)]),
            Err(ProfileError::NeverHolds { rule })
        );
    }

    assert_eq!(check(allow(469, vec![], 1)), Ok(()));
    assert_eq!(
        check(allow(470, vec![], 1)),
        Err(ProfileError::UnknownNumber { rule, number: 470 })
    );

    assert_eq!(profile(vec![allow(0, vec![], 1); RULES_MAX]).check(), Ok(()));
    let error = ProfileError::TooManyRules { rules: RULES_MAX + 1 };
    assert_eq!(profile(vec![allow(0, vec![], 1); RULES_MAX + 1]).check(), Err(error));

    let probed = |probed| Profile { rules: vec![], probed }.check();
    assert_eq!(probed(vec![1, 2]), Ok(()));
    assert_eq!(probed(vec![2, 1]), Err(ProfileError::ProbedUnsorted));

    let patterns = |count| {
        compile(
            &[&Profile::default()],
            &vec![
                Mediated {
                    number: 0,
                    conditions: vec![]
                };
                count
            ],
        )
    };
    assert!(patterns(MEDIATED_MAX).is_ok());
    assert_eq!(
        patterns(MEDIATED_MAX + 1),
        Err(CompileError::TooManyMediated {
            mediated: MEDIATED_MAX + 1
        })
    );
    let bad = [Mediated {
        number: 0,
        conditions: vec![Condition::Arg {
            index: 6,
            width: Width::W32,
            test: ArgTest::Equal(0),
        }],
    }];
    assert!(matches!(
        compile(&[&Profile::default()], &bad),
        Err(CompileError::Mediated(_))
    ));
}
