//! `nx sec test deny`: a call that policy denies, seen denied.

use super::claim::{Claim, Refusal, Seen, Wants, errno_text};
use super::context::{Context, Rule};
use super::live::{Live, Lost};
use crate::run::{Class, Exit, Failure, describe, mask};
use nexus_abi::syscall::{self, Arch};
use nexus_abi::{Errno, Operation, Reason, RuleRef, Verdict};
use nexus_abi_policy::{ArgTest, Condition};
use nexus_policy::IpcLimit;
use nexus_sys::probe::{DATA_ADDRESS, Frame, OWN_CALLS};
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
    pub(super) attempt: Attempt,
    verdict: (Reason, Errno, Option<RuleRef>),
}

/// Arguments with which a call does nothing if nobody refuses it: no descriptor, no process, no address, no command has
/// the number −1, and flags that are all set contradict one another. Calls that have no arguments to be harmless by do no
/// harm to anybody but the probe, which is alone in its namespaces.
pub(super) const HARMLESS: u64 = u64::MAX;

/// Calls that return a second time, in a child.
const FORKS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];

/// Calls that are judged once their socket and their address are known. What the syscall rules themselves deny of them is
/// attempted on a Unix socket that leads nowhere; where they may lead, `nx sec test egress` proves.
const ADDRESSED: [&str; 5] = ["bind", "connect", "sendmmsg", "sendmsg", "sendto"];

/// `socket(AF_UNIX, SOCK_STREAM, 0)`, socket(2).
pub(super) const UNIX_SOCKET: [u64; 6] = [1, 1, 0, 0, 0, 0];

/// Calls that the session's supervisor refuses where no budget holds what they make.
const BUDGETED: [&str; 4] = ["memfd_create", "msgget", "semget", "shmget"];

/// Whether a call is judged by its socket and its address.
pub(super) fn is_addressed(number: u32) -> bool {
    syscall::name(number).is_some_and(|name| ADDRESSED.contains(&name))
}

/// Whether the probe may have a socket to make such a call on.
pub(super) fn has_socket(context: &Context) -> bool {
    let socket = syscall::number("socket");
    socket.is_some_and(|socket| matches!(context.judge_call(socket, UNIX_SOCKET), Verdict::Allow { .. }))
}

/// Arguments with which policy denies this call, if there are any: harmless ones, else ones that a rule speaks of.
pub(super) fn denied(context: &Context, number: u32) -> Option<Denied> {
    let mut candidates = candidates(context, number).into_iter();
    candidates
        .find_map(|args| refused(context, Attempt { number, args }))
        .or_else(|| without_budget(context, number))
}

/// The same for arguments that somebody chose.
pub(super) fn denied_with(context: &Context, number: u32, args: [u64; 6]) -> Result<Denied, Failure> {
    let args = on_a_socket(number, args);
    let attempt = Attempt { number, args };
    let denied = refused(context, attempt).or_else(|| without_budget(context, number));
    denied.ok_or_else(|| allowed(context, attempt, ""))
}

fn refused(context: &Context, attempt: Attempt) -> Option<Denied> {
    match context.judge_call(attempt.number, attempt.args) {
        Verdict::Deny { reason, errno, rule } => Some(Denied {
            attempt,
            verdict: (reason, errno, rule),
        }),
        Verdict::Allow { .. } => None,
    }
}

/// A call whose every use is refused because no budget holds what it makes, whatever the syscall rules say.
fn without_budget(context: &Context, number: u32) -> Option<Denied> {
    let name = syscall::name(number).filter(|name| BUDGETED.contains(name))?;
    let (refused, args) = if name == "memfd_create" {
        let bytes = context.session.rules.budgets.ipc.value(IpcLimit::Memfd);
        (bytes == 0, [DATA_ADDRESS, 0, 0, 0, 0, 0])
    } else {
        (execd::SysV::of_this_kernel() == execd::SysV::Denied, [HARMLESS; 6])
    };
    refused.then_some(Denied {
        attempt: Attempt { number, args },
        verdict: (Reason::IpcNoRule, Errno::EPERM, None),
    })
}

/// What the probe itself has to call and may not: it then ends at once, and its status is the errno that it saw.
pub(super) fn mute(context: &Context) -> Option<Denied> {
    OWN_CALLS.into_iter().find_map(|(name, args)| {
        let number = syscall::number(name)?;
        refused(context, Attempt { number, args })
    })
}

/// The failure of a proof whose probe could not tell what became of anything.
pub(super) fn unheard(denied: &Denied) -> Failure {
    let name = syscall::name(denied.attempt.number).unwrap_or("?");
    Failure::unsupported(
        format!("policy denies `{name}` to the probe, which could not tell what became of any other call"),
        &format!("`nx sec test deny --subject SUBJECT --syscall {name}` proves that one"),
    )
}

/// A call's arguments, where it needs a socket and memory to be judged at all; the socket is put in when it is made.
fn on_a_socket(number: u32, args: [u64; 6]) -> [u64; 6] {
    let [_, _, third, fourth, ..] = args;
    match syscall::name(number) {
        Some("bind" | "connect") => [HARMLESS, DATA_ADDRESS, UNIX_ADDRESS.len() as u64, 0, 0, 0],
        Some("sendto") => [HARMLESS, DATA_ADDRESS, 1, fourth, 0, 0],
        Some("sendmsg") => [HARMLESS, DATA_ADDRESS, third, 0, 0, 0],
        Some("sendmmsg") => [HARMLESS, DATA_ADDRESS, 1, fourth, 0, 0],
        _ => args,
    }
}

/// `struct sockaddr_un` of a path at which nobody listens, unix(7).
const UNIX_ADDRESS: &[u8] = b"\x01\0/nx-nowhere\0";

/// Arguments to try, the most harmless first.
pub(super) fn candidates(context: &Context, number: u32) -> Vec<[u64; 6]> {
    let mut all = vec![[HARMLESS; 6]];
    let profiles = context.session.rules.profiles_in_force();
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
    all.into_iter().map(|args| on_a_socket(number, args)).collect()
}

/// Values at the edges of a test: that hold, and that just do not.
fn values(test: &ArgTest) -> Vec<u64> {
    let around = |value: u64| [value, value.wrapping_add(1), value.wrapping_sub(1)];
    match test {
        ArgTest::Equal(value) => around(*value).to_vec(),
        ArgTest::Range { first, last } => around(*first).into_iter().chain(around(*last)).collect(),
        ArgTest::OneOf(values) => values.iter().flat_map(|value| around(*value)).collect(),
        ArgTest::Masked { mask, value } => vec![*value, value ^ mask, value | !mask],
        // Each bit by itself: a filter that forgot one still holds all of them together.
        ArgTest::AnyBit(mask) => (0..u64::BITS)
            .map(|bit| 1 << bit)
            .filter(|bit| mask & bit != 0)
            .chain([*mask, !mask, 0])
            .collect(),
    }
}

/// What must be seen of a call that policy denies.
pub(super) fn claim(context: &Context, denied: &Denied) -> (Claim, Attempt) {
    let Denied {
        attempt,
        verdict: (reason, errno, rule),
    } = *denied;
    let Attempt { number, args } = attempt;
    let object = if is_addressed(number) {
        "unix".to_owned()
    } else {
        described(number, args)
    };
    let claim = Claim {
        part: "syscall",
        name: named(attempt),
        wants: Wants::Refusal(Refusal {
            op: operation(number),
            object,
            reason,
            errno,
        }),
        rule: context.rule(rule, Some(reason)),
    };
    (claim, attempt)
}

/// What is attempted, in words.
fn named(Attempt { number, args }: Attempt) -> String {
    let [_, _, third, fourth, ..] = args;
    let (name, flags) = match syscall::name(number) {
        Some(name @ ("bind" | "connect")) => (name, 0),
        Some(name @ "sendmsg") => (name, third),
        Some(name @ ("sendto" | "sendmmsg")) => (name, fourth),
        _ => return described(number, args),
    };
    let flags = match flags {
        0 => String::new(),
        HARMLESS => ", every flag".to_owned(),
        flags => format!(", flags {flags:#x}"),
    };
    format!("{name} on a Unix socket{flags}")
}

/// What must be seen of a call that policy allows: that it reaches the kernel.
pub(super) fn passage(context: &Context, attempt: Attempt, rule: Option<RuleRef>) -> (Claim, Attempt) {
    let claim = Claim {
        part: "syscall",
        name: named(attempt),
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
        Some("bind") => Operation::Bind,
        Some("connect") => Operation::Connect,
        Some("sendto" | "sendmsg" | "sendmmsg") => Operation::Send,
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
            errno: Errno::ENOSYS,
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
    let Attempt { number, mut args } = attempt;
    let name = syscall::name(number).unwrap_or_default();
    let mut data: &[u8] = &[];
    if is_addressed(number) {
        let socket = match live.unix_socket(UNIX_SOCKET) {
            Ok(socket) if socket >= 0 => socket.cast_unsigned(),
            Ok(errno) => {
                let check = Err(format!("the probe got no socket: {}", errno_text(errno)));
                return Seen {
                    value: Ok(0),
                    checks: vec![check],
                };
            }
            Err(lost) => return Seen::value(Err(lost)),
        };
        if let Some(first) = args.first_mut() {
            *first = socket;
        }
        if matches!(name, "bind" | "connect") {
            data = UNIX_ADDRESS;
        }
    }
    let reply = live.call(&Frame {
        number: number.into(),
        args,
        forks: FORKS.contains(&name),
        data,
        ..Frame::default()
    });
    Seen::value(reply.map(|reply| reply.value))
}

/// The number of a call that can be asked about.
pub(super) fn number(name: &str) -> Result<u32, Failure> {
    syscall::number(name).ok_or_else(|| {
        Failure::usage(format!("this machine has no call `{name}`")).with_help(nearest(name).map_or_else(
            || "`nx policy explain SUBJECT syscall NAME` knows the same names".to_owned(),
            |near| format!("did you mean `{near}`?"),
        ))
    })
}

fn nearest(name: &str) -> Option<&'static str> {
    // One letter more, one less, or the beginning of one name only.
    let mut known = syscall::all()
        .filter(|call| call.number().is_some())
        .map(|call| call.name());
    known.find(|known| known.starts_with(name) || name.starts_with(known) && known.len() > 3)
}

/// The failure of a proof that policy itself contradicts, none of the arguments to try being denied.
pub(super) fn allowed_always(context: &Context, number: u32) -> Failure {
    let profiles = context.session.rules.profiles_in_force();
    let profiles: Vec<_> = profiles.iter().map(AsRef::as_ref).collect();
    let whole = mask(&profiles).numbers(Class::Allowed).any(|one| one == number);
    let args = on_a_socket(number, [HARMLESS; 6]);
    let with = if whole {
        ", whatever its arguments"
    } else {
        ", with each argument that a rule speaks of"
    };
    allowed(context, Attempt { number, args }, with)
}

/// The same for one call.
fn allowed(context: &Context, attempt: Attempt, with: &str) -> Failure {
    let subject = context.subject();
    let rule = match context.judge_call(attempt.number, attempt.args) {
        Verdict::Allow { rule } => context.rule(rule, None).text(),
        Verdict::Deny { .. } => String::new(),
    };
    let name = syscall::name(attempt.number).unwrap_or("?");
    let what = if with.is_empty() {
        named(attempt)
    } else {
        name.to_owned()
    };
    let mut help = format!("deny it in abi.toml: `[subject.{subject}] deny = [\"{name}\"]`");
    if is_addressed(attempt.number) {
        help = format!(
            "the syscall rules let it through, and egress.toml says where to: `nx sec test egress --subject {subject} --to \
             ADDRESS:PORT` shows what becomes of a destination; or {help}"
        );
    } else if BUDGETED.contains(&name) {
        help = format!(
            "the syscall rules let it through, and a budget says how much: `nx sec test all --subject {subject} --part ipc` \
             shows where it ends; or {help}"
        );
    }
    Failure::new(
        Exit::Rejected,
        format!("policy allows `{what}` to {subject}{with}: rule {rule}"),
    )
    .with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_list_and_every_bit_of_a_mask_is_tried_by_itself() {
        let list = values(&ArgTest::OneOf([3, 7, 11].into()));
        for value in [2, 3, 4, 6, 7, 8, 10, 11, 12] {
            assert!(list.contains(&value), "{value}");
        }
        let mask = values(&ArgTest::AnyBit(0b1010_0000));
        for value in [0b1000_0000, 0b0010_0000, 0b1010_0000, !0b1010_0000, 0] {
            assert!(mask.contains(&value), "{value:b}");
        }
    }
}
