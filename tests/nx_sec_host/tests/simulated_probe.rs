//! Deny tests against a simulated host: a probe whose calls go to the filter as the kernel would run it, and what the filter
//! hands over to the guard. The same call gets the same error code, on every machine.

use nexus_abi::{Verdict, syscall};
use nexus_abi_policy::{
    Call, Guard, NoFacts, Program, Request, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SockFilter, compile,
};
use nexus_policy::{MemoryTree, Policy};

/// The kernel and the supervisor, without either.
struct Host {
    filter: Program,
    guard: Guard,
}

/// What a call comes to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It reaches the kernel.
    Kernel,
    /// An error code, and why.
    Errno(u16, &'static str),
}

impl Host {
    fn of(subject: &str) -> Self {
        let policy = Policy::load(&MemoryTree::shipped()).unwrap();
        let rules = policy.subject(subject).unwrap();
        let profiles = rules.profiles();
        Self {
            filter: compile(&profiles, &[]).unwrap(),
            guard: Guard::new(&profiles).unwrap(),
        }
    }

    fn call(&self, name: &str, args: [u64; 6]) -> Answer {
        let call = Call::native(syscall::number(name).unwrap(), args);
        match run(&self.filter, &call) {
            SECCOMP_RET_ALLOW => Answer::Kernel,
            SECCOMP_RET_USER_NOTIF => match self.guard.judge(&Request::scalar(call), &NoFacts) {
                Verdict::Deny { errno, reason, .. } => Answer::Errno(errno.raw(), reason.as_str()),
                Verdict::Allow { .. } => Answer::Kernel,
            },
            other => panic!("the filter answers {other:#x}"),
        }
    }
}

/// Classic BPF, as far as a seccomp filter has it (linux/filter.h).
fn run(program: &Program, call: &Call) -> u32 {
    let mut data = Vec::new();
    data.extend(call.number.to_le_bytes());
    data.extend(call.arch.to_le_bytes());
    data.extend([0; 8]);
    data.extend(call.args.iter().flat_map(|arg| arg.to_le_bytes()));
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let SockFilter { code, jt, jf, k } = program.instructions()[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = u32::from_le_bytes(*data[k as usize..].first_chunk().unwrap()),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            _ => panic!("no filter has {code:#x}"),
        }
    }
}

const ALL: u64 = u64::MAX;
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

#[test]
fn each_denied_call_has_one_error_code_and_its_nearest_allowed_neighbour_reaches_the_kernel() {
    let host = Host::of("demo");
    for (name, args, expected) in [
        ("unshare", [ALL; 6], Answer::Errno(EPERM, "abi.arg_mismatch")),
        // CLONE_FILES alone.
        ("unshare", [0x400, 0, 0, 0, 0, 0], Answer::Kernel),
        // CLONE_NEWUSER.
        (
            "unshare",
            [0x1000_0000, 0, 0, 0, 0, 0],
            Answer::Errno(EPERM, "abi.arg_mismatch"),
        ),
        ("mount", [ALL; 6], Answer::Errno(EPERM, "abi.deny_rule")),
        ("reboot", [ALL; 6], Answer::Errno(EPERM, "abi.deny_rule")),
        ("ptrace", [ALL; 6], Answer::Errno(EPERM, "abi.deny_rule")),
        ("clone3", [ALL; 6], Answer::Errno(ENOSYS, "abi.unknown")),
        ("io_uring_setup", [ALL; 6], Answer::Errno(ENOSYS, "abi.unknown")),
        ("vmsplice", [ALL; 6], Answer::Errno(EPERM, "abi.no_rule")),
        ("getpid", [ALL; 6], Answer::Kernel),
        ("read", [ALL; 6], Answer::Kernel),
    ] {
        assert_eq!(host.call(name, args), expected, "{name}({args:x?})");
    }
}

#[test]
fn the_same_probe_gets_the_same_codes_however_often_and_in_whatever_order_it_asks() {
    let (one, other) = (Host::of("demo"), Host::of("demo"));
    let names: Vec<_> = syscall::all().filter(|call| call.number().is_some()).collect();
    let forwards: Vec<_> = names.iter().map(|call| one.call(call.name(), [ALL; 6])).collect();
    let mut backwards: Vec<_> = names
        .iter()
        .rev()
        .map(|call| other.call(call.name(), [ALL; 6]))
        .collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    assert!(forwards.contains(&Answer::Kernel));
}
