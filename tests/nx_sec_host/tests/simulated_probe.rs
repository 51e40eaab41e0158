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
    lie: Lie,
}

/// What a call comes to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It reaches the kernel.
    Kernel,
    /// An error code, and why.
    Errno(u16, &'static str),
}

/// What the simulated host gets wrong, so that the same table has to fail.
#[derive(Clone, Copy, Debug)]
enum Lie {
    None,
    /// The filter lets everything through.
    NoFilter,
    /// The filter does not look at arguments: it sees zeroes.
    BlindFilter,
    /// The supervisor lets go what the filter hands over.
    SleepingGuard,
    /// Every refusal has another errno.
    OtherErrno,
}

impl Host {
    fn lying(subject: &str, lie: Lie) -> Self {
        Self {
            lie,
            ..Self::of(subject)
        }
    }

    fn of(subject: &str) -> Self {
        let policy = Policy::load(&MemoryTree::shipped()).unwrap();
        let rules = policy.subject(subject).unwrap();
        let profiles = rules.profiles();
        Self {
            filter: compile(&profiles, &[]).unwrap(),
            guard: Guard::new(&profiles).unwrap(),
            lie: Lie::None,
        }
    }

    fn call(&self, name: &str, args: [u64; 6]) -> Answer {
        let call = Call::native(syscall::number(name).unwrap(), args);
        let seen = match self.lie {
            Lie::BlindFilter => Call::native(call.number, [0; 6]),
            _ => call,
        };
        let filtered = match self.lie {
            Lie::NoFilter => SECCOMP_RET_ALLOW,
            _ => run(&self.filter, &seen),
        };
        match filtered {
            SECCOMP_RET_ALLOW => Answer::Kernel,
            SECCOMP_RET_USER_NOTIF => match (self.guard.judge(&Request::scalar(call), &NoFacts), self.lie) {
                (Verdict::Allow { .. }, _) | (_, Lie::SleepingGuard) => Answer::Kernel,
                (Verdict::Deny { errno, reason, .. }, Lie::OtherErrno) => {
                    Answer::Errno(errno.raw() + 12, reason.as_str())
                }
                (Verdict::Deny { errno, reason, .. }, _) => Answer::Errno(errno.raw(), reason.as_str()),
            },
            other => panic!("the filter answers {other:#x}"),
        }
    }

    /// Which of the table's calls come to something else than it says, each with its first argument.
    fn otherwise(&self) -> Vec<(&'static str, u64)> {
        let cases = table().into_iter();
        let other = cases.filter(|(name, args, expected)| self.call(name, *args) != *expected);
        other.map(|(name, args, _)| (name, args[0])).collect()
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

/// What the shipped policy's `demo` gets, as its text says and no evaluator: each denied call beside its nearest allowed one.
fn table() -> Vec<(&'static str, [u64; 6], Answer)> {
    vec![
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
    ]
}

#[test]
fn each_denied_call_has_one_error_code_and_its_nearest_allowed_neighbour_reaches_the_kernel() {
    assert_eq!(Host::of("demo").otherwise(), []);
}

#[test]
fn a_host_that_lies_is_seen_by_the_calls_that_it_lies_about_and_no_others() {
    let denied: Vec<(&str, u64)> = table()
        .into_iter()
        .filter(|(_, _, expected)| *expected != Answer::Kernel)
        .map(|(name, args, _)| (name, args[0]))
        .collect();
    assert_eq!(denied.len(), 8);
    for lie in [Lie::NoFilter, Lie::SleepingGuard, Lie::OtherErrno] {
        assert_eq!(Host::lying("demo", lie).otherwise(), denied, "{lie:?}");
    }
    // `unshare(0)` is allowed.
    let by_argument = [("unshare", ALL), ("unshare", 0x1000_0000)];
    assert_eq!(Host::lying("demo", Lie::BlindFilter).otherwise(), by_argument);
    assert_eq!(Host::lying("demo", Lie::None).otherwise(), []);
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
