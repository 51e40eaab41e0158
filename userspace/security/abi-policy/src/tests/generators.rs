//! Random profiles and calls that meet often: few numbers, few values, and values one off.

use core::net::SocketAddr;
use std::collections::BTreeSet;
use std::vec::Vec;

use nexus_abi::{Area, Effect, Errno, Protocol, RuleRef};
use proptest::prelude::*;

use crate::{ArgTest, Call, Condition, Destination, Fact, Growth, Mediated, Profile, Request, SyscallRule, Width};

pub(super) const NATIVE: u32 = 0xc000_003e;

/// Some neighbours, `socket` and `socketpair`, both ends of the table's blocks.
const NUMBERS: &[u32] = &[0, 1, 2, 16, 41, 42, 53, 257, 336, 424, 469];

pub(super) fn number() -> impl Strategy<Value = u32> {
    proptest::sample::select(NUMBERS)
}

fn value(width: Width) -> impl Strategy<Value = u64> {
    let small = 0_u64..6;
    let edges = proptest::sample::select(
        &[
            0x7fff,
            0x8000,
            0xffff,
            0x1_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0001,
            0x3_0000_0002,
            0xffff_ffff_0000_0000,
            u64::MAX - 1,
            u64::MAX,
        ][..],
    );
    prop_oneof![3 => small, 2 => edges, 1 => any::<u64>()].prop_map(move |value| value & width.mask())
}

fn test(width: Width) -> BoxedStrategy<ArgTest> {
    let v = move || value(width);
    prop_oneof![
        v().prop_map(ArgTest::Equal),
        (v(), v()).prop_map(|(mask, value)| ArgTest::Masked {
            mask,
            value: value & mask
        }),
        (v(), v()).prop_map(|(a, b)| ArgTest::Range {
            first: a.min(b),
            last: a.max(b)
        }),
        proptest::collection::btree_set(v(), 1..12).prop_map(|set| ArgTest::OneOf(set.into_iter().collect())),
        v().prop_map(|mask| ArgTest::AnyBit(mask.max(1))),
    ]
    .boxed()
}

fn scalar() -> impl Strategy<Value = Condition> {
    (
        0_u8..6,
        prop_oneof![Just(Width::W16), Just(Width::W32), Just(Width::W64)],
    )
        .prop_flat_map(|(index, width)| {
            test(width).prop_map(move |test| Condition::Arg {
                index: index.min(2),
                width,
                test,
            })
        })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        8 => scalar(),
        1 => Just(Condition::Egress),
        1 => proptest::sample::select(&Area::ALL[..]).prop_map(Condition::Budget),
    ]
}

fn rule() -> impl Strategy<Value = SyscallRule> {
    let effect = prop_oneof![2 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let errno = prop_oneof![Just(Errno::EPERM), Just(Errno::EACCES), Just(Errno::ENOSYS)];
    (
        number(),
        effect,
        errno,
        proptest::collection::vec(condition(), 0..4),
        0_u32..800,
    )
        .prop_map(|(number, effect, errno, conditions, rule)| SyscallRule {
            number,
            effect,
            errno,
            conditions,
            rule: RuleRef(rule),
        })
}

pub(super) fn profile() -> impl Strategy<Value = Profile> {
    (
        proptest::collection::vec(rule(), 0..24),
        proptest::collection::btree_set(number(), 0..2),
    )
        .prop_map(|(rules, probed): (_, BTreeSet<u32>)| Profile {
            rules,
            probed: probed.into_iter().collect(),
        })
}

pub(super) fn profiles() -> impl Strategy<Value = Vec<Profile>> {
    proptest::collection::vec(profile(), 1..=2)
}

pub(super) fn mediated() -> impl Strategy<Value = Vec<Mediated>> {
    let one = (number(), proptest::collection::vec(scalar(), 0..2))
        .prop_map(|(number, conditions)| Mediated { number, conditions });
    proptest::collection::vec(one, 0..3)
}

/// An argument: a value that rules speak of, one next to it, or one with rubbish in its upper half.
fn argument() -> impl Strategy<Value = u64> {
    (
        value(Width::W64),
        prop_oneof![3 => Just(0_u64), 1 => Just(1), 1 => Just(u64::MAX)],
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(|(value, off, rubbish, dirty)| {
            let value = value.wrapping_add(off);
            if dirty {
                value ^ (u64::from(rubbish) << 32)
            } else {
                value
            }
        })
}

pub(super) fn call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![
        12 => number(),
        1 => any::<u32>(),
        1 => number().prop_map(|number| number | 0x4000_0000),
        1 => Just(u32::MAX),
        1 => 0_u32..520,
    ];
    let arch = prop_oneof![12 => Just(NATIVE), 1 => Just(0x4000_0003), 1 => any::<u32>()];
    (number, arch, proptest::array::uniform6(argument())).prop_map(|(number, arch, args)| Call { number, arch, args })
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let port = prop_oneof![Just(1_u16), Just(2)];
    let destination = prop_oneof![
        Just(Fact::Unknown),
        Just(Fact::Nothing),
        port.prop_map(|port| Fact::Is(Destination {
            protocol: Protocol::Tcp,
            address: SocketAddr::from(([192, 0, 2, 1], port))
        })),
    ];
    let growth = prop_oneof![
        Just(Fact::Unknown),
        Just(Fact::Nothing),
        (proptest::sample::select(&Area::ALL[..]), 1_u64..3).prop_map(|(area, bytes)| Fact::Is(Growth {
            area,
            bytes,
            inodes: 0
        })),
    ];
    (call(), destination, growth).prop_map(|(call, destination, growth)| Request {
        call,
        destination,
        growth,
    })
}

/// Anything that the types can hold, in and out of bounds.
pub(super) fn hostile_profile() -> impl Strategy<Value = Profile> {
    let width = prop_oneof![Just(Width::W16), Just(Width::W32), Just(Width::W64)];
    let any_test = prop_oneof![
        any::<u64>().prop_map(ArgTest::Equal),
        (any::<u64>(), any::<u64>()).prop_map(|(mask, value)| ArgTest::Masked { mask, value }),
        (any::<u64>(), any::<u64>()).prop_map(|(first, last)| ArgTest::Range { first, last }),
        proptest::collection::vec(any::<u64>(), 0..300).prop_map(ArgTest::OneOf),
        any::<u64>().prop_map(ArgTest::AnyBit),
    ];
    let argument = (0_u8..9, width, any_test).prop_map(|(index, width, test)| Condition::Arg { index, width, test });
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    let rule = (
        prop_oneof![3 => number(), 1 => any::<u32>()],
        effect,
        proptest::collection::vec(argument, 0..20),
    )
        .prop_map(|(number, effect, conditions)| SyscallRule {
            number,
            effect,
            errno: Errno::EPERM,
            conditions,
            rule: RuleRef(0),
        });
    (
        proptest::collection::vec(rule, 0..6),
        proptest::collection::vec(any::<u32>(), 0..4),
    )
        .prop_map(|(rules, probed)| Profile { rules, probed })
}
