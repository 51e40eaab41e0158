//! No attack, but a kernel that says that it did something and did not: somebody else's program is started under a filter that
//! answers one of its calls with success.

use crate::without_internet::{execute, install};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What the low half of an argument has to be.
enum Argument {
    Is(usize, u32),
    IsNot(usize, u32),
}

/// Executes a program of which one kind of call is answered with 0 and not carried out.
pub(crate) fn run(lie: &str, command: &[&str]) {
    use Argument::{Is, IsNot};
    // setrlimit(3) is prlimit64(0, RESOURCE, NEW, …); without NEW it only asks.
    let limit = |resource: u32| (libc::SYS_prlimit64, vec![Is(1, resource), IsNot(2, 0)]);
    let (call, arguments) = match lie {
        // CAP_SYS_ADMIN, linux/capability.h
        "bounding-set" => (libc::SYS_prctl, vec![Is(0, libc::PR_CAPBSET_DROP as u32), Is(1, 21)]),
        // KEYCTL_JOIN_SESSION_KEYRING without a name: a new one.
        "keyring" => (libc::SYS_keyctl, vec![Is(0, 1), Is(1, 0)]),
        "landlock" => (libc::SYS_landlock_restrict_self, vec![]),
        "open-files" => limit(libc::RLIMIT_NOFILE),
        "processes" => limit(libc::RLIMIT_NPROC),
        "memory" => limit(libc::RLIMIT_DATA),
        "core" => limit(libc::RLIMIT_CORE),
        "queues" => limit(libc::RLIMIT_MSGQUEUE),
        "mount-attributes" => (libc::SYS_mount_setattr, vec![]),
        other => {
            eprintln!("attacker: no kernel lies about `{other}`");
            std::process::exit(2)
        }
    };
    install(&filter(call, &arguments));
    execute(command);
}

fn filter(call: i64, arguments: &[Argument]) -> Vec<libc::sock_filter> {
    let one = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // `seccomp_data`: the number, then six arguments of 64 bits from 16 on; the low half first.
    let mut checks = vec![(0, u32::try_from(call).unwrap_or(u32::MAX), true)];
    checks.extend(arguments.iter().map(|argument| match argument {
        Argument::Is(index, value) => (16 + 8 * *index as u32, *value, true),
        Argument::IsNot(index, value) => (16 + 8 * *index as u32, *value, false),
    }));
    let mut filter = Vec::new();
    for (left, (at, value, equal)) in checks
        .iter()
        .enumerate()
        .map(|(number, check)| (checks.len() - 1 - number, check))
    {
        // Past the checks that are left, and past the lie.
        let out = (2 * left + 1) as u8;
        filter.push(one(LOAD, 0, 0, *at));
        filter.push(if *equal {
            one(EQUAL, 0, out, *value)
        } else {
            one(EQUAL, out, 0, *value)
        });
    }
    filter.push(one(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO));
    filter.push(one(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter
}
