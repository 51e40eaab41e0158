//! The guard: named cases, and random ones against the oracle.

use core::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use nexus_abi::syscall::{Arch, X32_BIT, nr};
use nexus_abi::{Area, Errno, Protocol, Reason, RuleRef, Verdict};
use proptest::prelude::*;

use super::generators::{profiles, request};
use super::{BUDGET_REFUSES, EGRESS_REFUSES, Fixed, allow, arg, deny, oracle, profile};
use crate::{
    ArgTest, Call, CompileError, Condition, Destination, Fact, Growth, Guard, NoFacts, Outcome, PROFILES_MAX, Profile,
    Request, ScalarVerdict, Step, TRACE_STEPS_MAX, Width,
};

fn judge(profile: &Profile, number: u32, args: [u64; 6]) -> Verdict {
    Guard::new(&[profile])
        .unwrap()
        .judge(&Request::scalar(Call::native(number, args)), &NoFacts)
}

fn denied(reason: Reason, errno: Errno, rule: Option<u32>) -> Verdict {
    Verdict::Deny {
        reason,
        errno,
        rule: rule.map(RuleRef),
    }
}

const TIOCSTI: u64 = 0x5412;

fn no_tiocsti() -> Profile {
    profile(vec![
        allow(nr::ioctl, vec![], 1),
        deny(nr::ioctl, vec![arg(1, Width::W32, ArgTest::Equal(TIOCSTI))], 2),
    ])
}

#[test]
fn ioctl_other_than_tiocsti_is_allowed() {
    assert_eq!(
        judge(&no_tiocsti(), nr::ioctl, [0, 0x5413, 0, 0, 0, 0]),
        Verdict::Allow { rule: Some(RuleRef(1)) }
    );
}

#[test]
fn tiocsti_is_denied_although_a_rule_before_allows_ioctl() {
    let expected = denied(Reason::AbiDenyRule, Errno::EACCES, Some(2));
    assert_eq!(judge(&no_tiocsti(), nr::ioctl, [0, TIOCSTI, 0, 0, 0, 0]), expected);
}

#[test]
fn tiocsti_with_rubbish_in_the_upper_half_is_denied_as_the_kernel_would_read_it() {
    let expected = denied(Reason::AbiDenyRule, Errno::EACCES, Some(2));
    assert_eq!(
        judge(
            &no_tiocsti(),
            nr::ioctl,
            [0, 0xdead_beef_0000_0000 | TIOCSTI, 0, 0, 0, 0]
        ),
        expected
    );
}

#[test]
fn a_mode_is_judged_by_its_16_bits() {
    let only_644 = profile(vec![allow(
        nr::chmod,
        vec![arg(1, Width::W16, ArgTest::Equal(0o644))],
        1,
    )]);
    assert!(judge(&only_644, nr::chmod, [0, 0xabcd_0000 | 0o644, 0, 0, 0, 0]).is_allow());
    assert!(!judge(&only_644, nr::chmod, [0, 0o4644, 0, 0, 0, 0]).is_allow());
}

#[test]
fn a_known_call_without_a_rule_is_denied_with_eperm() {
    assert_eq!(
        judge(&no_tiocsti(), nr::ptrace, [0; 6]),
        denied(Reason::AbiNoRule, Errno::EPERM, None)
    );
}

#[test]
fn a_number_in_no_table_is_denied_with_enosys() {
    assert_eq!(
        judge(&no_tiocsti(), 470, [0; 6]),
        denied(Reason::AbiUnknown, Errno::ENOSYS, None)
    );
    assert_eq!(
        judge(&no_tiocsti(), u32::MAX, [0; 6]),
        denied(Reason::AbiUnknown, Errno::ENOSYS, None)
    );
}

#[test]
fn a_probed_call_is_denied_with_enosys_although_a_rule_allows_it() {
    let mut profile = profile(vec![allow(nr::clone3, vec![], 1)]);
    assert!(judge(&profile, nr::clone3, [0; 6]).is_allow());
    profile.probed = vec![nr::clone3];
    assert_eq!(
        judge(&profile, nr::clone3, [0; 6]),
        denied(Reason::AbiUnknown, Errno::ENOSYS, None)
    );
}

#[test]
fn arguments_that_no_allow_rule_names_are_a_mismatch_with_the_first_of_them() {
    let profile = profile(vec![
        allow(nr::personality, vec![arg(0, Width::W32, ArgTest::Equal(0))], 4),
        allow(nr::personality, vec![arg(0, Width::W32, ArgTest::Equal(8))], 5),
    ]);
    assert_eq!(
        judge(&profile, nr::personality, [8, 0, 0, 0, 0, 0]),
        Verdict::Allow { rule: Some(RuleRef(5)) }
    );
    let expected = denied(Reason::AbiArgMismatch, Errno::EPERM, Some(4));
    assert_eq!(judge(&profile, nr::personality, [9, 0, 0, 0, 0, 0]), expected);
}

#[test]
fn a_socket_of_another_family_is_denied_as_egress_family() {
    for number in [nr::socket, nr::socketpair] {
        let profile = profile(vec![allow(
            number,
            vec![arg(0, Width::W32, ArgTest::OneOf(vec![1, 2, 10]))],
            3,
        )]);
        assert!(judge(&profile, number, [10, 1, 0, 0, 0, 0]).is_allow());
        let expected = denied(Reason::EgressFamily, Errno::EPERM, Some(3));
        assert_eq!(judge(&profile, number, [17, 3, 0, 0, 0, 0]), expected, "AF_PACKET");
        assert_eq!(
            judge(&profile, number, [16 | 1 << 32, 3, 0, 0, 0, 0]),
            expected,
            "AF_NETLINK, rubbish above"
        );
    }
}

#[test]
fn an_allowed_number_through_another_abi_is_foreign() {
    let guard = Guard::new(&[&no_tiocsti()]).unwrap();
    let judge = |call| guard.judge(&Request::scalar(call), &NoFacts);
    let native = Call::native(nr::ioctl, [0; 6]);
    assert!(judge(native).is_allow());
    let expected = denied(Reason::AbiForeign, Errno::ENOSYS, None);
    assert_eq!(
        judge(Call {
            arch: 0x4000_0003,
            ..native
        }),
        expected,
        "int 0x80"
    );
    if Arch::NATIVE == Arch::X86_64 {
        assert_eq!(
            judge(Call {
                number: nr::ioctl | X32_BIT,
                ..native
            }),
            expected,
            "x32"
        );
    }
}

fn to(port: u16) -> Fact<Destination> {
    Fact::Is(Destination {
        protocol: Protocol::Tcp,
        address: SocketAddr::from(([192, 0, 2, 1], port)),
    })
}

#[test]
fn an_egress_condition_passes_on_the_reason_and_rule_of_the_egress_judge() {
    let guard = Guard::new(&[&profile(vec![allow(nr::connect, vec![Condition::Egress], 7)])]).unwrap();
    let call = Call::native(nr::connect, [3, 0, 16, 0, 0, 0]);
    let judge = |destination| {
        guard.judge(
            &Request {
                call,
                destination,
                growth: Fact::Unknown,
            },
            &Fixed,
        )
    };
    assert_eq!(judge(to(1)), Verdict::Allow { rule: Some(RuleRef(7)) });
    assert_eq!(judge(to(2)), EGRESS_REFUSES);
    assert!(judge(Fact::Nothing).is_allow());
    assert_eq!(
        judge(Fact::Unknown),
        denied(Reason::AbiArgMismatch, Errno::EPERM, Some(7))
    );
}

#[test]
fn a_write_that_does_not_fit_is_refused_early_with_the_reason_of_the_ledger() {
    let guard = Guard::new(&[&profile(vec![allow(
        nr::write,
        vec![Condition::Budget(Area::State)],
        7,
    )])])
    .unwrap();
    let call = Call::native(nr::write, [3, 0, 4096, 0, 0, 0]);
    let grows = |area, bytes| {
        let growth = Fact::Is(Growth { area, bytes, inodes: 0 });
        guard.judge(
            &Request {
                call,
                destination: Fact::Nothing,
                growth,
            },
            &Fixed,
        )
    };
    assert!(grows(Area::State, 1).is_allow());
    assert_eq!(grows(Area::State, 2), BUDGET_REFUSES);
    assert!(
        grows(Area::Tmp, 2).is_allow(),
        "what grows elsewhere is another budget's"
    );
}

#[test]
fn a_deny_rule_that_asks_for_what_is_unknown_denies() {
    let profile = profile(vec![
        allow(nr::sendto, vec![], 1),
        deny(nr::sendto, vec![Condition::Egress], 2),
    ]);
    let guard = Guard::new(&[&profile]).unwrap();
    let call = Call::native(nr::sendto, [0; 6]);
    let judge = |destination| {
        guard.judge(
            &Request {
                call,
                destination,
                growth: Fact::Nothing,
            },
            &Fixed,
        )
    };
    assert!(!judge(Fact::Unknown).is_allow());
    assert!(!judge(to(1)).is_allow());
    assert!(judge(to(2)).is_allow());
}

#[test]
fn a_ceiling_denies_what_the_users_own_profile_allows_and_gives_its_reason() {
    let wide = profile(vec![allow(nr::ptrace, vec![], 1), allow(nr::read, vec![], 2)]);
    let narrow = profile(vec![allow(nr::read, vec![], 11), deny(nr::ptrace, vec![], 12)]);
    let judge = |profiles: &[&Profile], number| {
        Guard::new(profiles)
            .unwrap()
            .judge(&Request::scalar(Call::native(number, [0; 6])), &NoFacts)
    };
    assert_eq!(
        judge(&[&narrow, &wide], nr::read),
        Verdict::Allow { rule: Some(RuleRef(2)) }
    );
    let by_rule = denied(Reason::AbiDenyRule, Errno::EACCES, Some(12));
    assert_eq!(judge(&[&narrow, &wide], nr::ptrace), by_rule);
    assert_eq!(judge(&[&wide, &narrow], nr::ptrace), by_rule);
    let ceiling_first = denied(Reason::AbiNoRule, Errno::EPERM, None);
    assert_eq!(judge(&[&profile(vec![]), &narrow], nr::ptrace), ceiling_first);
}

#[test]
fn no_profile_and_too_many_profiles_make_no_guard() {
    assert_eq!(Guard::new(&[]).unwrap_err(), CompileError::NoProfile);
    let one = Profile::default();
    assert!(Guard::new(&[&one; PROFILES_MAX]).is_ok());
    let error = CompileError::TooManyProfiles {
        profiles: PROFILES_MAX + 1,
    };
    assert_eq!(Guard::new(&[&one; PROFILES_MAX + 1]).unwrap_err(), error);
}

#[test]
fn a_trace_names_each_rule_that_was_looked_at_and_why_it_did_not_match() {
    let guard = Guard::new(&[&no_tiocsti()]).unwrap();
    let call = Call::native(nr::ioctl, [0, 0x5413, 0, 0, 0, 0]);
    let judgement = guard.explain(&Request::scalar(call), &NoFacts);
    let outcomes: Vec<_> = judgement
        .trace
        .steps()
        .iter()
        .map(|step| match step {
            Step::Rule { rule, outcome, .. } => (rule.0, *outcome),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(outcomes, [(2, Outcome::Failed { condition: 0 }), (1, Outcome::Matched)]);
}

#[test]
fn a_trace_stops_growing_at_its_limit_and_says_so() {
    let rule = |at| allow(nr::ioctl, vec![arg(1, Width::W32, ArgTest::Equal(1))], at);
    let whole = profile((0..63).map(rule).collect());
    let longer = profile((0..64).map(rule).collect());
    for (profile, cut) in [(whole, false), (longer, true)] {
        let guard = Guard::new(&[&profile]).unwrap();
        let judgement = guard.explain(&Request::scalar(Call::native(nr::ioctl, [0; 6])), &NoFacts);
        assert_eq!(judgement.trace.steps().len(), TRACE_STEPS_MAX);
        assert_eq!(judgement.trace.is_cut(), cut);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_guard_agrees_with_the_oracle(
        profiles in profiles(), requests in proptest::collection::vec(request(), 1..30)
    ) {
        let profiles: Vec<&Profile> = profiles.iter().collect();
        let guard = Guard::new(&profiles).unwrap();
        for request in requests {
            let verdict = guard.judge(&request, &Fixed);
            prop_assert_eq!(verdict, oracle::judge(&profiles, &request));
            let judgement = guard.explain(&request, &Fixed);
            prop_assert_eq!(judgement.verdict, verdict);
            prop_assert!(judgement.trace.steps().len() <= TRACE_STEPS_MAX);
            if let [one] = profiles[..] && let ScalarVerdict::Known(known) = one.judge_scalar(&request.call) {
                match known {
                    Verdict::Allow { .. } => prop_assert!(verdict.is_allow()),
                    Verdict::Deny { .. } => prop_assert_eq!(known, verdict),
                }
            }
        }
    }
}
