//! The semantics once more, as plainly as they can be said and as slowly as that is: bit by bit, rule by rule.

use std::vec::Vec;

use nexus_abi::{Area, Effect, Errno, Reason, Verdict};

use super::{BUDGET_REFUSES, EGRESS_REFUSES};
use crate::{ArgTest, Condition, Fact, Profile, Request, SyscallRule, Width};

fn bit(value: u64, place: u32) -> bool {
    (value >> place) & 1 == 1
}

fn argument_passes(value: u64, width: Width, test: &ArgTest) -> bool {
    let bits = match width {
        Width::W16 => 16,
        Width::W32 => 32,
        Width::W64 => 64,
    };
    let mut seen = 0_u64;
    for place in 0..bits {
        if bit(value, place) {
            seen += 1 << place;
        }
    }
    match test {
        ArgTest::Equal(wanted) => seen == *wanted,
        ArgTest::Masked { mask, value } => (0..64).all(|at| !bit(*mask, at) || bit(seen, at) == bit(*value, at)),
        ArgTest::Range { first, last } => seen >= *first && seen <= *last,
        ArgTest::OneOf(values) => values.contains(&seen),
        ArgTest::AnyBit(mask) => (0..64).any(|at| bit(*mask, at) && bit(seen, at)),
    }
}

/// `Ok(true)` holds, `Ok(false)` fails by the registers, `Err(Some)` another judge refuses, `Err(None)` unknown.
fn condition(condition: &Condition, request: &Request) -> Result<bool, Option<Verdict>> {
    match condition {
        Condition::Arg { index, width, test } => {
            Ok(argument_passes(request.call.args[usize::from(*index)], *width, test))
        }
        Condition::Egress => match request.destination {
            Fact::Unknown => Err(None),
            Fact::Is(to) if to.address.port() != 1 => Err(Some(EGRESS_REFUSES)),
            _ => Ok(true),
        },
        Condition::Budget(area) => match request.growth {
            Fact::Unknown => Err(None),
            Fact::Is(growth) if growth.area == *area && growth.bytes != 1 => Err(Some(BUDGET_REFUSES)),
            _ => Ok(true),
        },
    }
}

enum Rule {
    Holds,
    Fails,
    Refused(Verdict),
    Unknown,
}

fn rule(rule: &SyscallRule, request: &Request) -> Rule {
    let all: Vec<_> = rule.conditions.iter().map(|each| condition(each, request)).collect();
    if all.contains(&Ok(false)) {
        return Rule::Fails;
    }
    if let Some(refused) = all.iter().find_map(|each| each.err().flatten()) {
        return Rule::Refused(refused);
    }
    if all.contains(&Err(None)) {
        Rule::Unknown
    } else {
        Rule::Holds
    }
}

fn one(profile: &Profile, request: &Request) -> Verdict {
    let number = request.call.number;
    let with = |effect| {
        profile
            .rules
            .iter()
            .filter(move |rule| rule.number == number && rule.effect == effect)
    };
    for each in with(Effect::Deny) {
        if matches!(rule(each, request), Rule::Holds | Rule::Unknown) {
            return Verdict::Deny {
                reason: Reason::AbiDenyRule,
                errno: each.errno,
                rule: Some(each.rule),
            };
        }
    }
    if profile.probed.contains(&number) {
        return Verdict::Deny {
            reason: Reason::AbiUnknown,
            errno: Errno::ENOSYS,
            rule: None,
        };
    }
    for each in with(Effect::Allow) {
        if matches!(rule(each, request), Rule::Holds) {
            return Verdict::Allow { rule: Some(each.rule) };
        }
    }
    for each in with(Effect::Allow) {
        if let Rule::Refused(verdict) = rule(each, request) {
            return verdict;
        }
    }
    if let Some(first) = with(Effect::Allow).next() {
        // socket(2) and socketpair(2) on x86-64.
        let reason = if [41, 53].contains(&number) {
            Reason::EgressFamily
        } else {
            Reason::AbiArgMismatch
        };
        return Verdict::Deny {
            reason,
            errno: Errno::EPERM,
            rule: Some(first.rule),
        };
    }
    let known = number <= 336 || (424..=469).contains(&number);
    let (reason, errno) = if known {
        (Reason::AbiNoRule, Errno::EPERM)
    } else {
        (Reason::AbiUnknown, Errno::ENOSYS)
    };
    Verdict::Deny {
        reason,
        errno,
        rule: None,
    }
}

/// The verdict of several profiles, the ceiling first.
pub(super) fn judge(profiles: &[&Profile], request: &Request) -> Verdict {
    let foreign = request.call.arch != 0xc000_003e || (request.call.number >> 30) == 1;
    if foreign {
        return Verdict::Deny {
            reason: Reason::AbiForeign,
            errno: Errno::ENOSYS,
            rule: None,
        };
    }
    let verdicts: Vec<Verdict> = profiles.iter().map(|profile| one(profile, request)).collect();
    verdicts
        .iter()
        .copied()
        .find(|verdict| !verdict.is_allow())
        .unwrap_or(verdicts[verdicts.len() - 1])
}

/// What the registers alone say: whether the call is allowed whatever the other judges know. Every combination of their
/// answers is tried.
pub(super) fn always_allowed(profiles: &[&Profile], call: crate::Call) -> bool {
    let address = |port| {
        Fact::Is(crate::Destination {
            protocol: nexus_abi::Protocol::Tcp,
            address: core::net::SocketAddr::from(([192, 0, 2, 1], port)),
        })
    };
    let destinations = [Fact::Unknown, Fact::Nothing, address(1), address(2)];
    let mut growths = std::vec![Fact::Unknown, Fact::Nothing];
    for area in Area::ALL {
        for bytes in [1, 2] {
            growths.push(Fact::Is(crate::Growth { area, bytes, inodes: 0 }));
        }
    }
    destinations.iter().all(|destination| {
        growths.iter().all(|growth| {
            judge(
                profiles,
                &Request {
                    call,
                    destination: *destination,
                    growth: *growth,
                },
            )
            .is_allow()
        })
    })
}
