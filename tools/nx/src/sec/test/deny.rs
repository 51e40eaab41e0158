//! `nx sec test deny`: a call that policy denies, seen denied.

use super::claim::{Claim, Refusal, Seen, Wants};
use super::context::{Context, Rule};
use super::live::{Live, Lost};
use crate::run::{Exit, Failure, describe};
use nexus_abi::syscall::{self, Arch};
use nexus_abi::{Operation, Reason, Verdict};
use nexus_abi_policy::{ArgTest, Condition};
use nexus_sys::probe::Frame;
use nexus_sys::seccomp::Notification;

/// A call to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

/// What a call is denied by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    attempt: Attempt,
    verdict: (Reason, nexus_abi::Errno, Option<nexus_abi::RuleRef>),
}

/// Arguments with which a call does nothing if nobody refuses it: no descriptor, no process, no address, no command has
/// the number −1, and flags that are all set contradict one another. Calls that have no arguments to be harmless by do no
/// harm to anybody but the probe, which is alone in its namespaces.
pub(super) const HARMLESS: u64 = u64::MAX;

/// Calls that return a second time, in a child.
const FORKS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];

/// Calls that are judged by an address, once they have a socket: `nx sec test egress` proves these.
pub(super) const ADDRESSED: [&str; 5] = ["bind", "connect", "sendmmsg", "sendmsg", "sendto"];

/// Calls without which the probe itself cannot say anything.
pub(super) const NEEDED: [&str; 3] = ["exit_group", "read", "write"];

/// Arguments with which policy denies this call, if there are any: harmless ones, else ones that a rule speaks of.
pub(super) fn denied(context: &Context, number: u32) -> Option<Denied> {
    candidates(context, number).into_iter().find_map(|args| {
        let Verdict::Deny { reason, errno, rule } = context.judge_call(number, args) else {
            return None;
        };
        Some(Denied {
            attempt: Attempt { number, args },
            verdict: (reason, errno, rule),
        })
    })
}

/// The same for arguments that somebody chose.
pub(super) fn denied_with(context: &Context, number: u32, args: [u64; 6]) -> Result<Denied, Failure> {
    match context.judge_call(number, args) {
        Verdict::Deny { reason, errno, rule } => Ok(Denied {
            attempt: Attempt { number, args },
            verdict: (reason, errno, rule),
        }),
        Verdict::Allow { rule } => {
            let name = described(number, args);
            let rule = context.rule(rule, None).text();
            Err(Failure::rejected(
                format!("policy allows `{name}` to {}: rule {rule}", context.subject()),
                "a rule with `effect = \"deny\"` in abi.toml denies it",
            ))
        }
    }
}

/// Arguments to try, the most harmless first.
pub(super) fn candidates(context: &Context, number: u32) -> Vec<[u64; 6]> {
    let mut all = vec![[HARMLESS; 6]];
    let profiles = context.session.rules.profiles();
    let rules = profiles.iter().flat_map(|profile| &profile.rules);
    for rule in rules.filter(|rule| rule.number == number) {
        // All of a rule's conditions at once, and each alone; the rest stays harmless.
        let mut whole = [HARMLESS; 6];
        for condition in &rule.conditions {
            let Condition::Arg { index, width, test } = condition else {
                continue;
            };
            for value in values(test) {
                let mut alone = [HARMLESS; 6];
                for args in [&mut whole, &mut alone] {
                    if let Some(argument) = args.get_mut(usize::from(*index)) {
                        *argument = value & width.mask();
                    }
                }
                all.extend([alone, whole]);
            }
        }
    }
    all.push([0; 6]);
    all
}

/// Values at the edges of a test: that hold, and that just do not.
fn values(test: &ArgTest) -> Vec<u64> {
    let around = |value: u64| [value, value.wrapping_add(1), value.wrapping_sub(1)];
    match test {
        ArgTest::Equal(value) => around(*value).to_vec(),
        ArgTest::Range { first, last } => around(*first).into_iter().chain(around(*last)).collect(),
        ArgTest::OneOf(values) => {
            let ends = values.first().into_iter().chain(values.last());
            ends.flat_map(|value| around(*value)).collect()
        }
        ArgTest::Masked { mask, value } => vec![*value, value ^ mask, value | !mask],
        ArgTest::AnyBit(mask) => vec![*mask, mask & mask.wrapping_neg(), !mask, 0],
    }
}

/// What must be seen of a call that policy denies.
pub(super) fn claim(context: &Context, denied: &Denied) -> (Claim, Attempt) {
    let Denied {
        attempt,
        verdict: (reason, errno, rule),
    } = *denied;
    let object = described(attempt.number, attempt.args);
    let claim = Claim {
        part: "syscall",
        name: object.clone(),
        wants: Wants::Refusal(Refusal {
            op: operation(attempt.number),
            object,
            reason,
            errno,
        }),
        rule: context.rule(rule, Some(reason)),
    };
    (claim, attempt)
}

/// What must be seen of a call that policy allows: that it reaches the kernel.
pub(super) fn passage(context: &Context, attempt: Attempt, rule: Option<nexus_abi::RuleRef>) -> (Claim, Attempt) {
    let claim = Claim {
        part: "syscall",
        name: described(attempt.number, attempt.args),
        wants: Wants::Kernel,
        rule: context.rule(rule, None),
    };
    (claim, attempt)
}

/// A call as records have it.
pub(super) fn described(number: u32, args: [u64; 6]) -> String {
    describe(&as_notified(Attempt { number, args }), false)
}

/// What records call a refused call.
fn operation(number: u32) -> Operation {
    match syscall::name(number) {
        Some("socket") => Operation::Socket,
        Some("listen") => Operation::Listen,
        _ => Operation::Syscall,
    }
}

fn as_notified(attempt: Attempt) -> Notification {
    Notification {
        id: 0,
        tid: 0,
        arch: Arch::NATIVE.audit(),
        number: attempt.number.cast_signed(),
        args: attempt.args,
    }
}

/// The other ways into the kernel: x32's numbers, and `int 0x80` where the kernel has it.
pub(super) fn foreign(live: &mut Live) -> Vec<(Claim, Result<Seen, String>)> {
    // asm/unistd_x32.h: getpid with x32's bit; linux/audit.h: AUDIT_ARCH_I386; asm/unistd_32.h: getpid.
    const X32_GETPID: u32 = 0x4000_0000 + 39;
    const I386: (u32, u32) = (0x4000_0003, 20);
    let claim = |name: &str, arch, number: u32| Claim {
        part: "syscall",
        name: format!("getpid by {name}"),
        wants: Wants::Refusal(Refusal {
            op: Operation::Syscall,
            object: describe(
                &Notification {
                    arch,
                    number: number.cast_signed(),
                    ..as_notified(Attempt { number, args: [0; 6] })
                },
                true,
            ),
            reason: Reason::AbiForeign,
            errno: nexus_abi::Errno::ENOSYS,
        }),
        rule: Rule::default(),
    };
    if Arch::NATIVE != Arch::X86_64 {
        return Vec::new();
    }
    let mut call = |number: u32, foreign| {
        let frame = Frame {
            number: number.into(),
            foreign,
            ..Frame::default()
        };
        live.call(&frame).map(|reply| reply.value)
    };
    let x32 = Seen::value(call(X32_GETPID, false));
    let i386 = match call(I386.1, true) {
        Err(Lost::Ended) => Err("this kernel ends a program that tries it".to_owned()),
        other => Ok(Seen::value(other)),
    };
    vec![
        (claim("x32", Arch::NATIVE.audit(), X32_GETPID), Ok(x32)),
        (claim("int 0x80", I386.0, I386.1), i386),
    ]
}

/// Makes the call.
pub(super) fn attempt(live: &mut Live, attempt: Attempt) -> Seen {
    let forks = syscall::name(attempt.number).is_some_and(|name| FORKS.contains(&name));
    let reply = live.call(&Frame {
        number: attempt.number.into(),
        args: attempt.args,
        forks,
        ..Frame::default()
    });
    Seen::value(reply.map(|reply| reply.value))
}

/// The number of a call that can be asked about.
pub(super) fn number(name: &str) -> Result<u32, Failure> {
    let number = syscall::number(name).ok_or_else(|| {
        Failure::usage(format!("this machine has no call `{name}`")).with_help(nearest(name).map_or_else(
            || "`nx policy explain SUBJECT syscall NAME` knows the same names".to_owned(),
            |near| format!("did you mean `{near}`?"),
        ))
    })?;
    if NEEDED.contains(&name) {
        return Err(Failure::unsupported(
            format!("a program that may not call `{name}` could not tell what became of it"),
            "`nx policy explain SUBJECT syscall NAME` says what policy says of it",
        ));
    }
    if ADDRESSED.contains(&name) {
        return Err(Failure::unsupported(
            format!("`{name}` is judged by its destination"),
            "`nx sec test egress --subject SUBJECT --to ADDRESS:PORT` proves it",
        ));
    }
    Ok(number)
}

fn nearest(name: &str) -> Option<&'static str> {
    // One letter more, one less, or the beginning of one name only.
    let mut known = syscall::all()
        .filter(|call| call.number().is_some())
        .map(|call| call.name());
    known.find(|known| known.starts_with(name) || name.starts_with(known) && known.len() > 3)
}

/// The failure of a proof that policy itself contradicts.
pub(super) fn allowed(context: &Context, number: u32) -> Failure {
    let rule = match context.judge_call(number, [HARMLESS; 6]) {
        Verdict::Allow { rule } => context.rule(rule, None).text(),
        Verdict::Deny { .. } => String::new(),
    };
    let name = syscall::name(number).unwrap_or("?");
    Failure::new(
        Exit::Rejected,
        format!(
            "policy allows `{name}` to {}, whatever its arguments: rule {rule}",
            context.subject()
        ),
    )
    .with_help(format!(
        "deny it in abi.toml: `[subject.{}] deny = [\"{name}\"]`",
        context.subject()
    ))
}
