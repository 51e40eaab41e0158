//! No attack, but a fence around somebody else's program: an internet socket ends it.

use std::os::unix::process::CommandExt;

/// Executes a program that is killed (`SIGSYS`) by the first internet or packet socket that it or a child of it makes.
pub(crate) fn run(command: &[&str]) {
    fence();
    execute(command);
}

/// Becomes a program.
pub(crate) fn execute(command: &[&str]) -> ! {
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("attacker: name a program");
        std::process::exit(2)
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("attacker: cannot execute `{program}`: {error}");
    std::process::exit(127)
}

fn fence() {
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let one = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let family = |value: i32| number(value.into());
    let filter = [
        // `seccomp_data.nr`, then the low half of the first argument on a little-endian machine.
        one(LOAD, 0, 0, 0),
        one(EQUAL, 0, 5, number(libc::SYS_socket)),
        one(LOAD, 0, 0, 16),
        one(EQUAL, 2, 0, family(libc::AF_INET)),
        one(EQUAL, 1, 0, family(libc::AF_INET6)),
        one(EQUAL, 0, 1, family(libc::AF_PACKET)),
        one(RETURN, 0, 0, KILL),
        one(RETURN, 0, 0, ALLOW),
    ];
    install(&filter);
}

/// Filters this process and whatever it becomes and starts.
pub(crate) fn install(filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: no memory is involved.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` names `filter`, which lives over the call; the kernel copies it.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if done != 0 || set != 0 {
        eprintln!("attacker: no filter: {}", std::io::Error::last_os_error());
        std::process::exit(2);
    }
}
