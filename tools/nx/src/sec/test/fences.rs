//! What stands around the probe besides its view and its filter: no privileges, namespaces of its own, no keys, and the second
//! fence. What the kernel says of the probe is looked at from outside; what it does not say is tried.

use super::claim::{Claim, Seen, Wants, errno_text};
use super::context::{Context, Rule};
use super::kernel::{Kernel, NAMESPACES};
use super::live::{Live, Lost};
use nexus_abi::{Errno, Verdict, syscall};
use nexus_sys::probe::{DATA_ADDRESS, DATA_BYTES, Frame};
use std::ffi::CStr;

/// The key that is handed in, and that no program of a session may find.
const KEY: &CStr = c"nx-proof-key";

/// How much of the list of keys is read: a user may have 200 as a rule, a line each (`kernel.keys.maxkeys`, keyrings(7)).
const KEYS_BYTES_MAX: usize = 1 << 20;

// linux/fcntl.h
const AT_FDCWD: u64 = (-100_i64).cast_unsigned();
const O_WRONLY: u64 = 1;
const O_NONBLOCK_CLOEXEC: u64 = 0o2_004_000;

/// Gives this process a session keyring with a key in it, which a session must not inherit. Whether that is so, and the key is
/// to be seen where it is: a kernel may have no keys, or no list of them.
pub(super) fn hand_in_a_key(subject: &str) -> bool {
    // The session's own user: no other's would be shown in the session's user namespace, inherited or not.
    let identity = crate::run::identity(subject);
    nexus_sys::keyring::join_with_key(c"nx-proof", KEY, (identity.uid, identity.gid)).is_ok()
        && std::fs::read("/proc/keys").is_ok_and(|text| holds_key(&text))
}

fn holds_key(text: &[u8]) -> bool {
    text.windows(KEY.count_bytes()).any(|window| window == KEY.to_bytes())
}

/// Looks at the probe, and tries what the kernel does not tell.
pub(super) fn attempt(
    context: &Context,
    live: &mut Live,
    kernel: &Kernel,
    left_out: &mut Vec<String>,
) -> Vec<(Claim, Seen)> {
    let mut claims = privileges(context, kernel);
    claims.extend(NAMESPACES.into_iter().map(|kind| namespace(kernel, kind)));
    claims.push(set_id(kernel));
    match keys(context, live) {
        Ok(seen) => claims.push(claim("the caller's keys are not inherited", Wants::Held, seen)),
        Err(why) => left_out.push(format!("fences: the keyring: {why}")),
    }
    match second_fence(context, live) {
        Ok(tried) => claims.extend(tried),
        Err(why) => left_out.push(format!("fences: the second fence, Landlock: {why}")),
    }
    claims
}

fn claim(name: impl Into<String>, wants: Wants, seen: Seen) -> (Claim, Seen) {
    let claim = Claim {
        part: "fences",
        name: name.into(),
        wants,
        rule: Rule::default(),
    };
    (claim, seen)
}

/// A line of `/proc/PID/status` that has to be this.
fn says(kernel: &Kernel, field: &str, expected: &str) -> Result<String, String> {
    match kernel.status(field) {
        Some(value) if value.split_ascii_whitespace().eq(expected.split_ascii_whitespace()) => {
            Ok(format!("the kernel says {field} {expected}")
                .trim_ascii_end()
                .to_owned())
        }
        Some(value) => Err(format!("the kernel says {field} {value}, not {expected}")),
        None => Err(format!("the kernel does not say {field}")),
    }
}

fn privileges(context: &Context, kernel: &Kernel) -> Vec<(Claim, Seen)> {
    const NONE: &str = "0000000000000000";
    let held = |name: &str, checks| claim(name, Wants::Held, Seen { value: Ok(0), checks });
    let all = |fields: &[&str], expected: &str| {
        fields
            .iter()
            .map(|field| says(kernel, field, expected))
            .collect::<Vec<_>>()
    };
    let identity = crate::run::identity(context.subject());
    let four = |number: u32| format!("{number} {number} {number} {number}");
    let mut who = vec![
        says(kernel, "Uid", &four(identity.uid)),
        says(kernel, "Gid", &four(identity.gid)),
    ];
    if identity.assumed {
        // An ordinary user cannot give its own up, and a session of its keeps them: its files may be closed to one of them.
        who.push(says(kernel, "Groups", ""));
    }
    let mut filter = all(&["Seccomp"], "2");
    if let (Some(expected), Some(_)) = (kernel.filters_expected(), kernel.status("Seccomp_filters")) {
        filter.push(says(kernel, "Seccomp_filters", &expected.to_string()));
    }
    vec![
        held(
            "it has no capability",
            all(&["CapEff", "CapPrm", "CapInh", "CapAmb"], NONE),
        ),
        held(
            "it can gain no capability: the bounding set is empty",
            all(&["CapBnd"], NONE),
        ),
        held(
            "it can gain no privilege by executing a program",
            all(&["NoNewPrivs"], "1"),
        ),
        held("a syscall filter of its own is on", filter),
        held("it runs as whom it should", who),
    ]
}

fn namespace(kernel: &Kernel, kind: &str) -> (Claim, Seen) {
    let check = match kernel.own_namespace(kind) {
        Ok((true, name)) => Ok(name),
        Ok((false, name)) => Err(format!("it shares {name} with who started it")),
        Err(error) => Err(format!("the kernel does not show it: {error}")),
    };
    claim(
        format!("a namespace of its own: {kind}"),
        Wants::Held,
        Seen::looked(check),
    )
}

fn set_id(kernel: &Kernel) -> (Claim, Seen) {
    let check = match kernel.set_id_mounts() {
        Ok((0, _)) => Err("it sees no mount at all".to_owned()),
        Ok((count, without)) if without.is_empty() => Ok(format!("nosuid at each of {count} mounts")),
        Ok((_, without)) => Err(format!("set-id programs count at {}", without.join(" "))),
        Err(error) => Err(format!("the kernel does not show its mounts: {error}")),
    };
    claim("set-id programs give nothing", Wants::Held, Seen::looked(check))
}

fn allows(context: &Context, name: &str, args: [u64; 6]) -> Result<u64, String> {
    let number = syscall::number(name).ok_or_else(|| format!("this machine has no `{name}`"))?;
    match context.judge_call(number, args) {
        Verdict::Allow { .. } => Ok(number.into()),
        Verdict::Deny { .. } => Err(format!("the probe may not call `{name}`, by which it would be seen")),
    }
}

fn open(context: &Context, live: &mut Live, path: &CStr, flags: u64) -> Result<Result<i64, Lost>, String> {
    let args = [AT_FDCWD, DATA_ADDRESS, flags, 0, 0, 0];
    let number = allows(context, "openat", args)?;
    let frame = Frame {
        number,
        args,
        data: path.to_bytes_with_nul(),
        ..Frame::default()
    };
    Ok(live.call(&frame).map(|reply| reply.value))
}

/// The probe reads which keys it is shown. The one that was handed in is shown to those alone who have its keyring.
fn keys(context: &Context, live: &mut Live) -> Result<Seen, String> {
    if !live.keyed {
        return Err("this kernel has no keys, or no `/proc/keys` that would tell of them".to_owned());
    }
    let fd = match open(context, live, c"/proc/keys", O_NONBLOCK_CLOEXEC)? {
        Ok(fd) if fd >= 0 => fd.unsigned_abs(),
        Ok(errno) => return Err(format!("the probe cannot open `/proc/keys`: {}", errno_text(errno))),
        Err(lost) => return Ok(Seen::value(Err(lost))),
    };
    let args = [fd, DATA_ADDRESS, DATA_BYTES as u64, 0, 0, 0];
    let number = allows(context, "read", args)?;
    let mut text = Vec::new();
    while text.len() < KEYS_BYTES_MAX {
        let frame = Frame {
            number,
            args,
            ..Frame::default()
        };
        match live.call(&frame) {
            Ok(reply) if reply.value > 0 => {
                let count = usize::try_from(reply.value).unwrap_or(usize::MAX);
                text.extend(reply.data.iter().take(count));
            }
            Ok(reply) if reply.value == 0 => break,
            Ok(reply) => {
                return Err(format!(
                    "the probe cannot read `/proc/keys`: {}",
                    errno_text(reply.value)
                ));
            }
            Err(lost) => return Ok(Seen::value(Err(lost))),
        }
    }
    Ok(Seen::looked(if holds_key(&text) {
        Err("the probe is shown the key of who started it: it has that keyring".to_owned())
    } else {
        Ok("a key that was handed in is not shown to the probe".to_owned())
    }))
}

/// The probe opens what it was handed as stderr once more: for reading, as it was handed, and for writing, which everybody may
/// who is not behind the fence. The view has no say: what was handed in lies outside of it.
fn second_fence(context: &Context, live: &mut Live) -> Result<Vec<(Claim, Seen)>, String> {
    const HANDED_IN: &CStr = c"/proc/self/fd/2";
    if !execd::landlock_available() {
        return Err("this kernel does not have it, and the session says so".to_owned());
    }
    let mut again = |flags| open(context, live, HANDED_IN, flags | O_NONBLOCK_CLOEXEC);
    let (reading, writing) = (again(0)?, again(O_WRONLY)?);
    Ok(vec![
        claim(
            "what was handed in is opened again as it was handed in",
            Wants::Passage(None),
            Seen::value(reading),
        ),
        claim(
            "what was handed in is not opened again for more",
            Wants::Errno(&[Errno::EACCES]),
            Seen::value(writing),
        ),
    ])
}

#[cfg(test)]
mod namespace_tests {
    use super::*;
    use crate::sec::test::kernel::NAMESPACES;

    /// No kernel can be made to lie about these without a session that does not begin: what is seen of a process that shares all.
    #[test]
    fn a_namespace_that_is_shared_with_who_started_it_is_no_namespace_of_its_own() {
        let me = std::process::id().cast_signed();
        let shares = Kernel::of_processes(me, me);
        for kind in NAMESPACES {
            let (claim, seen) = namespace(&shares, kind);
            assert_eq!(claim.name, format!("a namespace of its own: {kind}"));
            let [Err(lack)] = &seen.checks[..] else {
                unreachable!("{:?}", seen.checks)
            };
            assert!(lack.starts_with(&format!("it shares {kind}:[")), "{lack}");
        }
    }
}
