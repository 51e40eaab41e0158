//! What no policy can open.

mod calls;

use std::collections::BTreeSet;
use std::string::String;
use std::vec;
use std::vec::Vec;

use nexus_abi::syscall::{self, NUMBERS_MAX, Syscall, nr};
use nexus_abi::{Errno, Reason, RuleRef, Verdict};
use proptest::prelude::*;

use super::generators::{NATIVE, call, number, profile as any_profile};
use super::interpreter::{is_const_allow, kernel_takes, run};
use super::oracle::always_allowed;
use super::{allow, profile};
use crate::{
    Call, Condition, FLOOR_RULE_FIRST, Guard, NoFacts, Profile, Program, RULES_MAX, Request, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF, Width, compile, floor, floor_rule_name,
};

/// What an author writes who wants no rules at all.
fn everything() -> Profile {
    let numbers = syscall::all().filter_map(Syscall::number);
    profile(numbers.zip(0..).map(|(number, at)| allow(number, vec![], at)).collect())
}

struct Under {
    guard: Guard,
    program: Program,
}

impl Under {
    fn new() -> Self {
        let (own, floor) = (everything(), floor());
        Self {
            guard: Guard::new(&[&own, &floor]).unwrap(),
            program: compile(&[&own, &floor], &[]).unwrap(),
        }
    }

    /// The verdict, after a look that the filter agrees.
    #[track_caller]
    fn judge(&self, number: u32, args: &[u64]) -> Verdict {
        let mut six = [0; 6];
        six[..args.len()].copy_from_slice(args);
        let call = Call::native(number, six);
        let verdict = self.guard.judge(&Request::scalar(call), &NoFacts);
        let wanted = if verdict.is_allow() {
            SECCOMP_RET_ALLOW
        } else {
            SECCOMP_RET_USER_NOTIF
        };
        assert_eq!(run(&self.program, &call).0, wanted, "{number} {args:x?}: {verdict:?}");
        verdict
    }

    #[track_caller]
    fn allows(&self, number: u32, args: &[u64]) {
        let verdict = self.judge(number, args);
        match verdict.rule() {
            Some(rule) if verdict.is_allow() => {
                assert_eq!(floor_rule_name(rule), None, "the author's own rule is told")
            }
            _ => panic!("{number} {args:x?}: {verdict:?}"),
        }
    }

    #[track_caller]
    fn denies(&self, number: u32, args: &[u64], name: &str) {
        self.answers(number, args, name, Errno::EPERM, Reason::AbiDenyRule);
        // What the kernel cuts off changes nothing: an argument of 16 or 32 bits with rubbish above it.
        let row = syscall::by_number(number).unwrap();
        let dirty: Vec<u64> = args
            .iter()
            .enumerate()
            .map(
                |(at, value)| match row.argument(at).map_or(Width::W64, |kind| kind.width()) {
                    Width::W64 => *value,
                    width => value | (0xdead_beef_dead_beef & !width.mask()),
                },
            )
            .collect();
        self.answers(number, &dirty, name, Errno::EPERM, Reason::AbiDenyRule);
    }

    #[track_caller]
    fn answers(&self, number: u32, args: &[u64], name: &str, expected: Errno, why: Reason) {
        match self.judge(number, args) {
            Verdict::Deny { reason, errno, rule } => {
                assert_eq!((errno, reason), (expected, why), "{number} {args:x?}");
                assert_eq!(
                    rule.and_then(floor_rule_name).unwrap_or_default(),
                    name,
                    "{number} {args:x?}"
                );
            }
            allowed @ Verdict::Allow { .. } => panic!("{number} {args:x?}: {allowed:?}"),
        }
    }
}

#[test]
fn what_the_floor_does_not_speak_of_is_in_the_kernels_map_of_calls_that_are_always_allowed() {
    let under = Under::new();
    let with_conditions: BTreeSet<u32> = floor()
        .rules
        .iter()
        .filter(|rule| !rule.conditions.is_empty())
        .map(|rule| rule.number)
        .collect();
    for number in 0..NUMBERS_MAX + 8 {
        let always = !with_conditions.contains(&number) && under.judge(number, &[]).is_allow();
        assert_eq!(
            is_const_allow(&under.program, number, NATIVE),
            always,
            "{:?}",
            syscall::name(number)
        );
    }
    for name in [
        "read",
        "write",
        "close",
        "mmap",
        "brk",
        "futex",
        "fstat",
        "statx",
        "newfstatat",
        "getdents64",
        "epoll_wait",
        "poll",
        "execve",
        "fork",
        "vfork",
        "recvfrom",
        "recvmsg",
        "connect",
        "accept4",
        "rename",
        "unlink",
        "clock_nanosleep",
    ] {
        assert!(
            is_const_allow(&under.program, syscall::number(name).unwrap(), NATIVE),
            "{name}"
        );
    }
}

#[test]
fn the_floor_costs_a_filter_at_most_an_eighth_of_its_length() {
    let under = Under::new();
    assert!(kernel_takes(&under.program));
    let length = under.program.instructions().len();
    assert!(length <= 512, "{length}");
    // A call that is looked at closely: the options of TCP sockets.
    let steps = run(&under.program, &Call::native(nr::setsockopt, [3, 6, 1, 0, 0, 0])).1;
    assert!(steps <= 48, "{steps}");
}

#[test]
fn every_entry_keeps_the_bounds_and_has_a_name_of_its_own_kind() {
    let floor = floor();
    assert_eq!(floor.check(), Ok(()));
    let names: BTreeSet<&str> = floor
        .rules
        .iter()
        .map(|rule| floor_rule_name(rule.rule).unwrap())
        .collect();
    let expected = [
        "floor:file-handles",
        "floor:interfaces",
        "floor:io-uring",
        "floor:kernel-programs",
        "floor:keyrings",
        "floor:machine",
        "floor:mounts",
        "floor:namespaces",
        "floor:open",
        "floor:other-processes",
        "floor:priority-of-others",
        "floor:seccomp-listener",
        "floor:set-id",
        "floor:socket-options",
        "floor:sockets",
        "floor:tcp-fast-open",
        "floor:terminal",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn references_of_a_policy_are_not_the_floors() {
    let most = u32::try_from(crate::PROFILES_MAX * RULES_MAX).unwrap();
    for rule in [0, most, FLOOR_RULE_FIRST - 1, u32::MAX - 1, u32::MAX] {
        assert_eq!(floor_rule_name(RuleRef(rule)), None, "{rule}");
    }
    assert_eq!(floor_rule_name(RuleRef(FLOOR_RULE_FIRST)), Some("floor:open"));
}

#[test]
fn each_condition_looks_at_a_scalar_by_the_width_that_the_call_reads() {
    for rule in floor().rules {
        let row = syscall::by_number(rule.number).unwrap();
        for condition in &rule.conditions {
            let Condition::Arg { index, width, .. } = condition else {
                panic!("only registers are looked at");
            };
            let kind = row.argument(usize::from(*index));
            assert_eq!(kind, Some(syscall::Kind::Scalar(*width)), "{} {index}", row.name());
        }
    }
}

#[test]
fn a_call_that_is_new_in_the_table_is_judged_before_it_is_open() {
    // The floor opens what it does not speak of. Whoever adds a call to the table looks at it here, and then counts it.
    let calls: Vec<String> = syscall::all().map(|call| String::from(call.name())).collect();
    assert_eq!(
        calls.len(),
        CALLS_JUDGED,
        "judge the new call for the floor: {:?}",
        calls.last()
    );
}

/// Rows of the table that were looked at.
const CALLS_JUDGED: usize = 385;

#[test]
fn the_authors_own_deny_gives_the_reason_where_both_deny() {
    let own = profile(vec![super::deny(nr::ptrace, vec![], 5), allow(nr::mount, vec![], 6)]);
    let floor = floor();
    let guard = Guard::new(&[&own, &floor]).unwrap();
    let rule = |number| {
        guard
            .judge(&Request::scalar(Call::native(number, [0; 6])), &NoFacts)
            .rule()
    };
    assert_eq!(rule(nr::ptrace), Some(RuleRef(5)));
    assert_eq!(rule(nr::mount).and_then(floor_rule_name), Some("floor:mounts"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_policy_opens_nothing_past_the_floor_whatever_its_rules(
        own in any_profile(), calls in proptest::collection::vec(call(), 1..40), spread in number()
    ) {
        let floor = floor();
        let guard = Guard::new(&[&own, &floor]).unwrap();
        let alone = Guard::new(&[&floor]).unwrap();
        let program = compile(&[&own, &floor], &[]).unwrap();
        prop_assert!(kernel_takes(&program));
        for mut call in calls {
            for number in [call.number, spread] {
                call.number = number;
                let request = Request::scalar(call);
                if guard.judge(&request, &NoFacts).is_allow() {
                    prop_assert!(alone.judge(&request, &NoFacts).is_allow());
                }
                let wanted = always_allowed(&[&own, &floor], call);
                prop_assert_eq!(run(&program, &call).0 == SECCOMP_RET_ALLOW, wanted);
            }
        }
    }
}
