//! Other processes: the sandbox's init, the caller's process group, the kernel's lists.

use crate::raw::{call, say, try_call};

/// Pid 1 inside is nexus's own.
pub(crate) fn init() {
    // SAFETY: no memory is involved: signals to pid 1 of the session.
    unsafe {
        for (name, signal) in [
            ("kill", 9),
            ("stop", 19),
            ("term", 15),
            ("int", 2),
            ("segv", 11),
            ("abrt", 6),
            ("rt", 64),
        ] {
            say(&format!("init-{name}"), libc::kill(1, signal));
        }
    }
    try_call("init-ptrace", libc::SYS_ptrace, &[16, 1, 0, 0]);
    let pidfd = call(libc::SYS_pidfd_open, &[1, 0]);
    try_call("init-getfd", libc::SYS_pidfd_getfd, &[pidfd as u64, 3, 0]);
    try_call("init-pidfd-kill", libc::SYS_pidfd_send_signal, &[pidfd as u64, 9, 0, 0]);
    try_call(
        "init-pidfd-kill-group",
        libc::SYS_pidfd_send_signal,
        &[pidfd as u64, 9, 0, 4],
    );
    try_call("init-setns", libc::SYS_setns, &[pidfd as u64, libc::CLONE_NEWNS as u64]);
    // PIDFD_GET_*_NAMESPACE: a descriptor of init's namespaces.
    for command in 1..11_u64 {
        try_call(
            &format!("init-pidfd-namespace-{command}"),
            libc::SYS_ioctl,
            &[pidfd as u64, 0xff00 | command],
        );
    }
    // Its limits: a processor second would end it, and with it the session; no descriptor would blind it.
    let small = [0_u64, 0];
    let one = [1_u64, 1];
    try_call(
        "init-limit-descriptors",
        libc::SYS_prlimit64,
        &[1, 7, small.as_ptr().addr() as u64, 0],
    );
    try_call(
        "init-limit-processor",
        libc::SYS_prlimit64,
        &[1, 0, one.as_ptr().addr() as u64, 0],
    );
    try_call(
        "init-limit-processes",
        libc::SYS_prlimit64,
        &[1, 6, small.as_ptr().addr() as u64, 0],
    );
    try_call(
        "init-limit-memory",
        libc::SYS_prlimit64,
        &[1, 9, small.as_ptr().addr() as u64, 0],
    );
    let mut seen = [0_u64; 2];
    try_call(
        "init-limit-read",
        libc::SYS_prlimit64,
        &[1, 7, 0, seen.as_mut_ptr().addr() as u64],
    );
    try_call(
        "own-limit",
        libc::SYS_prlimit64,
        &[0, 7, 0, seen.as_mut_ptr().addr() as u64],
    );
    try_call("init-priority", libc::SYS_setpriority, &[0, 1, 19]);
    let mask = [1_u64];
    try_call(
        "init-affinity",
        libc::SYS_sched_setaffinity,
        &[1, 8, mask.as_ptr().addr() as u64],
    );
    println!("alive ok 0");
}

/// `kill(0, SIGNAL)` with signals that there are not, and the last that there is. In a process group of its own.
pub(crate) fn group_signals() {
    const LAST: i32 = 64;
    // SAFETY: no memory is involved, and SIG_IGN installs no code.
    unsafe {
        libc::setpgid(0, 0);
        libc::signal(LAST, libc::SIG_IGN);
        for (name, signal) in [("none", 0), ("last", LAST), ("next", LAST + 1), ("negative", -1)] {
            say(name, libc::kill(0, signal));
        }
    }
}

/// Runs a program in a session whose keyring has a key that only its possessor may do anything with. keyctl(2), add_key(2).
pub(crate) fn with_key(name: &str, program: &[&str]) {
    use std::os::unix::process::CommandExt;
    const JOIN_SESSION_KEYRING: u64 = 1;
    const SETPERM: u64 = 5;
    const SESSION_KEYRING: u64 = -3_i64 as u64;
    const POSSESSOR_ALL: u64 = 0x3f00_0000;
    let name = crate::raw::c(name);
    call(libc::SYS_keyctl, &[JOIN_SESSION_KEYRING, 0]);
    let (kind, payload) = (c"user".as_ptr().addr() as u64, c"x".as_ptr().addr() as u64);
    let key = call(
        libc::SYS_add_key,
        &[kind, name.as_ptr().addr() as u64, payload, 1, SESSION_KEYRING],
    );
    if key < 0 {
        say("add-key", key);
        return;
    }
    call(libc::SYS_keyctl, &[SETPERM, key as u64, POSSESSOR_ALL]);
    if let Some((program, rest)) = program.split_first() {
        let error = std::process::Command::new(program).args(rest).exec();
        eprintln!("attacker: {error}");
    }
}

/// The process group that the shell made holds processes outside.
///
/// `confined`: what reaches every process of the user (`kill(-1)`, `PRIO_USER`) is tried only where a test says that a
/// sandbox is around it. Without one it would end whatever else the user runs.
pub(crate) fn group(confined: bool) {
    // Not ended by one's own signals.
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    let term = libc::SIGTERM as u64;
    try_call("setpriority-group", libc::SYS_setpriority, &[1, 0, 19]);
    try_call(
        "setpriority-group-dirty",
        libc::SYS_setpriority,
        &[0xdead_0000_0001, 0, 19],
    );
    // IOPRIO_CLASS_IDLE for the group, for the user.
    try_call("ioprio-group", libc::SYS_ioprio_set, &[2, 0, 3 << 13]);
    try_call("kill-0", libc::SYS_kill, &[0, term]);
    try_call("kill-0-dirty", libc::SYS_kill, &[0xffff_ffff_0000_0000, term]);
    // SAFETY: no memory is involved.
    let own = unsafe { libc::getpgrp() };
    println!("own-group ok {own}");
    try_call("kill-own-group", libc::SYS_kill, &[(-i64::from(own)) as u64, term]);
    if confined {
        try_call("setpriority-user", libc::SYS_setpriority, &[2, 0, 19]);
        try_call("ioprio-user", libc::SYS_ioprio_set, &[3, 0, 3 << 13]);
        try_call("kill-all", libc::SYS_kill, &[u64::MAX, term]);
        let lowest = u64::from(i32::MIN.cast_unsigned());
        try_call("kill-int-min", libc::SYS_kill, &[lowest, term]);
    }
    let pidfd = call(libc::SYS_pidfd_open, &[u64::from(std::process::id()), 0]);
    try_call("pidfd-group", libc::SYS_pidfd_send_signal, &[pidfd as u64, term, 0, 4]);
    try_call(
        "pidfd-group-self",
        libc::SYS_pidfd_send_signal,
        &[-10_000_i64 as u64, term, 0, 4],
    );
    let info = [
        u64::from(libc::SIGTERM.cast_unsigned()),
        0xffff_ffff,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    try_call(
        "sigqueue-0",
        libc::SYS_rt_sigqueueinfo,
        &[0, term, info.as_ptr().addr() as u64],
    );
    try_call("tkill-0", libc::SYS_tkill, &[0, term]);
    // Signals by descriptor: the owner is looked up among the session's own.
    let mut pair = [0_i32; 2];
    call(libc::SYS_pipe2, &[pair.as_mut_ptr().addr() as u64, 0]);
    let reader = pair[0] as u64;
    try_call("owner-group", libc::SYS_fcntl, &[reader, 8, (-i64::from(own)) as u64]);
    for outside in [1_i64, 2, -1, -2] {
        call(libc::SYS_fcntl, &[reader, 8, outside as u64]);
    }
    // A group of the outside joined again after it was left.
    // SAFETY: no memory is involved.
    unsafe {
        say("leave", libc::setpgid(0, 0));
        say("rejoin", libc::setpgid(0, own));
        say("new-session", libc::setsid());
        say("steal-session", libc::getsid(0));
    }
    println!("done ok 0");
}

/// What must go on working: one's own processes.
pub(crate) fn own() {
    // SAFETY: the child only waits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    }
    let number = child as u64;
    let mut seen = [0_u64; 2];
    try_call(
        "limit-of-child",
        libc::SYS_prlimit64,
        &[number, 7, 0, seen.as_mut_ptr().addr() as u64],
    );
    try_call(
        "lower-limit-of-child",
        libc::SYS_prlimit64,
        &[number, 7, seen.as_ptr().addr() as u64, 0],
    );
    try_call("priority-of-child", libc::SYS_setpriority, &[0, number, 5]);
    try_call("kill-child", libc::SYS_kill, &[number, 9]);
    // SAFETY: reaps the child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

/// Limits are a ceiling.
pub(crate) fn limits() {
    for (name, resource) in [
        ("core", 4),
        ("processes", 6),
        ("descriptors", 7),
        ("data", 2),
        ("nice", 13),
        ("realtime", 14),
        ("memlock", 8),
        ("signals", 11),
        ("queue", 12),
    ] {
        let mut now = [0_u64; 2];
        call(libc::SYS_prlimit64, &[0, resource, 0, now.as_mut_ptr().addr() as u64]);
        println!("{name}-hard ok {}", now[1] as i64);
        let more = [u64::MAX, u64::MAX];
        try_call(
            &format!("{name}-raise"),
            libc::SYS_prlimit64,
            &[0, resource, more.as_ptr().addr() as u64, 0],
        );
        try_call(
            &format!("{name}-raise-old"),
            libc::SYS_setrlimit,
            &[resource, more.as_ptr().addr() as u64],
        );
    }
}

/// Ends by a signal that dumps.
pub(crate) fn dump() {
    // SAFETY: ends this process.
    unsafe { libc::abort() }
}

/// Memory and queues of the host, by number.
pub(crate) fn ipc(shared: i32, queue: i32) {
    // SAFETY: attaches what is there, if it is.
    let at = unsafe { libc::shmat(shared, std::ptr::null(), 0) };
    say("shmat", if at.addr() == usize::MAX { -1 } else { 0 });
    let mut buffer = [0_u8; 64];
    // SAFETY: the buffer has room for what is asked for.
    say(
        "msgrcv",
        unsafe { libc::msgrcv(queue, buffer.as_mut_ptr().cast(), 32, 0, libc::IPC_NOWAIT) } as i64,
    );
    for path in ["/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem"] {
        let lines = std::fs::read_to_string(path).unwrap_or_default().lines().count();
        println!("{path} ok {}", lines.saturating_sub(1));
    }
}

/// What this process is.
pub(crate) fn status() {
    print!("{}", std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    // SAFETY: no memory is involved.
    println!("securebits {}", unsafe { libc::prctl(27) });
    println!(
        "uid_map {}",
        std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default().trim()
    );
}
