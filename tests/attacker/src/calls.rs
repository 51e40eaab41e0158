//! Calls that no rule opens: foreign ways to make them, namespaces, mounts, tracers, keys.

use crate::raw::{call, int80, say, try_call};

const USER: u64 = libc::CLONE_NEWUSER as u64;
const NAMESPACES: &[(&str, u64)] = &[
    ("user", USER),
    ("mount", libc::CLONE_NEWNS as u64),
    ("pid", libc::CLONE_NEWPID as u64),
    ("net", libc::CLONE_NEWNET as u64),
    ("ipc", libc::CLONE_NEWIPC as u64),
    ("uts", libc::CLONE_NEWUTS as u64),
    ("cgroup", libc::CLONE_NEWCGROUP as u64),
    ("time", 0x80),
];

pub(crate) fn run() {
    foreign();
    rings();
    namespaces();
    others();
    // Last: where it works, this process is nobody afterwards.
    say("int80-unshare", int80(310, libc::CLONE_NEWUSER.cast_unsigned(), 0, 0));
}

fn foreign() {
    // socket, socketcall(SOCKET), getpid and fork's table neighbours of the 32-bit calling convention.
    say("int80-socket", int80(359, 2, 1, 0));
    say("int80-socketcall", int80(102, 1, 0, 0));
    say("int80-getpid", int80(20, 0, 0, 0));
    const X32: i64 = 0x4000_0000;
    try_call("x32-getpid", X32 | libc::SYS_getpid, &[]);
    try_call("x32-socket", X32 | libc::SYS_socket, &[2, 1, 0]);
    try_call("x32-connect", X32 | libc::SYS_connect, &[0, 0, 0]);
    try_call("x32-execve", X32 | 520, &[0, 0, 0]);
    try_call("negative", -1, &[]);
    try_call("beyond-the-table", 4000, &[]);
}

fn rings() {
    let parameters = [0_u8; 120];
    try_call(
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        &[8, parameters.as_ptr().addr() as u64],
    );
    try_call("io_uring_enter", libc::SYS_io_uring_enter, &[0]);
    try_call("io_uring_register", libc::SYS_io_uring_register, &[0]);
    let mut context = 0_u64;
    try_call("io_setup", libc::SYS_io_setup, &[1, (&raw mut context).addr() as u64]);
}

/// A child that was made ends at once.
fn in_child(name: &str, number: i64, args: &[u64]) {
    let result = call(number, args);
    if result == 0 {
        // SAFETY: the child of a clone ends without running anything else.
        unsafe { libc::_exit(0) };
    }
    say(name, result);
    if result > 0 {
        // SAFETY: waits for the child that was just made; nothing is stored.
        unsafe { libc::waitpid(result as i32, std::ptr::null_mut(), libc::__WALL) };
    }
}

fn namespaces() {
    for (name, flag) in NAMESPACES {
        // Everything but the user namespace needs one: both at once, as an ordinary user would.
        let flags = *flag | USER;
        if *name != "time" {
            in_child(
                &format!("clone-{name}"),
                libc::SYS_clone,
                &[flags | libc::SIGCHLD as u64],
            );
            in_child(
                &format!("clone-{name}-dirty"),
                libc::SYS_clone,
                &[0xdead_beef_0000_0000 | flags | libc::SIGCHLD as u64],
            );
        }
        let args: [u64; 11] = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
        in_child(
            &format!("clone3-{name}"),
            libc::SYS_clone3,
            &[args.as_ptr().addr() as u64, 88],
        );
        // unshare changes the caller: a child does it.
        // SAFETY: the child makes one call and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let result = call(libc::SYS_unshare, &[flags]);
            let code = if result == 0 {
                0
            } else {
                std::io::Error::last_os_error().raw_os_error().unwrap_or(255)
            };
            // SAFETY: ends the child.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is a live integer.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        let code = libc::WEXITSTATUS(status);
        // SAFETY: errno is this thread's own.
        unsafe { *libc::__errno_location() = code };
        say(&format!("unshare-{name}"), if code == 0 { 0 } else { -1 });
    }
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let path = format!("/proc/self/ns/{name}");
        if let Ok(file) = std::fs::File::open(path) {
            use std::os::fd::AsRawFd;
            let fd = file.as_raw_fd() as u64;
            try_call(&format!("setns-{name}"), libc::SYS_setns, &[fd, 0]);
            // NS_GET_USERNS, NS_GET_PARENT: a descriptor of what lies around.
            try_call(&format!("ns-parent-{name}"), libc::SYS_ioctl, &[fd, 0xb702]);
            try_call(&format!("ns-user-{name}"), libc::SYS_ioctl, &[fd, 0xb701]);
        }
    }
}

fn others() {
    let null = c"/dev/null".as_ptr().addr() as u64;
    let tmpfs = c"tmpfs".as_ptr().addr() as u64;
    let tmp = c"/tmp".as_ptr().addr() as u64;
    let nul = c"".as_ptr().addr() as u64;
    let at = libc::AT_FDCWD as u64;
    let here = std::process::id() as u64;
    let mut word = [0_u64; 64];
    let words = word.as_mut_ptr().addr() as u64;
    let vector = [words, 8_u64];
    let vectors = vector.as_ptr().addr() as u64;
    // In a child: whoever is traced stops at its next signal.
    // SAFETY: the child makes one call and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        try_call("ptrace-me", libc::SYS_ptrace, &[0]);
        std::process::exit(0);
    }
    // SAFETY: waits for the child; nothing is stored.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    try_call("ptrace-seize-init", libc::SYS_ptrace, &[0x4206, 1]);
    try_call(
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        &[1, vectors, 1, vectors, 1, 0],
    );
    try_call(
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        &[here, vectors, 1, vectors, 1, 0],
    );
    try_call("process_madvise", libc::SYS_process_madvise, &[0]);
    try_call("kcmp", libc::SYS_kcmp, &[here, 1, 0, 0, 0]);
    let pidfd = call(libc::SYS_pidfd_open, &[here, 0]);
    try_call("pidfd_getfd-own", libc::SYS_pidfd_getfd, &[pidfd as u64, 0, 0]);
    try_call(
        "perf_event_open",
        libc::SYS_perf_event_open,
        &[words, 0, u64::MAX, u64::MAX, 0],
    );
    try_call("bpf", libc::SYS_bpf, &[0, words, 64]);
    try_call("userfaultfd", libc::SYS_userfaultfd, &[1]);
    try_call("keyctl-session", libc::SYS_keyctl, &[0, 0xffff_fffd, 0]);
    try_call("keyctl-user", libc::SYS_keyctl, &[0, 0xffff_fffc, 0]);
    try_call(
        "add_key",
        libc::SYS_add_key,
        &[c"user".as_ptr().addr() as u64, tmp, null, 4, 0xffff_fffc],
    );
    try_call(
        "request_key",
        libc::SYS_request_key,
        &[c"user".as_ptr().addr() as u64, tmp, 0, 0],
    );
    // A handle of the root of what is mounted here; whether it opens is the question.
    word[..2].copy_from_slice(&[0x1_0000_0008, 2]);
    try_call("open_by_handle_at", libc::SYS_open_by_handle_at, &[at, words, 0]);
    // Room for the longest: file systems differ.
    let mut handle = [0_u64; 20];
    handle[0] = 128;
    let handle = handle.as_mut_ptr().addr() as u64;
    try_call(
        "name_to_handle_at",
        libc::SYS_name_to_handle_at,
        &[at, tmp, handle, words, 0],
    );
    try_call("mount-tmpfs", libc::SYS_mount, &[tmpfs, tmp, tmpfs, 0, 0]);
    try_call("mount-bind", libc::SYS_mount, &[tmp, tmp, 0, 4096, 0]);
    try_call(
        "mount-remount",
        libc::SYS_mount,
        &[0, c"/usr".as_ptr().addr() as u64, 0, 4096 | 32, 0],
    );
    try_call("umount", libc::SYS_umount2, &[c"/proc".as_ptr().addr() as u64, 2]);
    try_call("open_tree", libc::SYS_open_tree, &[at, tmp, 1]);
    try_call("fsopen", libc::SYS_fsopen, &[tmpfs, 0]);
    try_call("fspick", libc::SYS_fspick, &[at, tmp, 0]);
    try_call("move_mount", libc::SYS_move_mount, &[at, tmp, at, tmp, 0]);
    try_call("mount_setattr", libc::SYS_mount_setattr, &[at, tmp, 0, words, 32]);
    try_call("pivot_root", libc::SYS_pivot_root, &[tmp, tmp]);
    try_call("chroot", libc::SYS_chroot, &[tmp]);
    try_call("swapon", libc::SYS_swapon, &[null, 0]);
    try_call("reboot", libc::SYS_reboot, &[0, 0, 0, 0]);
    try_call("init_module", libc::SYS_init_module, &[words, 0, nul]);
    try_call("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, 0]);
    try_call("quotactl", libc::SYS_quotactl, &[0x8000_0100, null, 0, words]);
    try_call("acct", libc::SYS_acct, &[0]);
    try_call("fanotify_init", libc::SYS_fanotify_init, &[0x200, 0]);
    try_call("syslog", libc::SYS_syslog, &[3, words, 8]);
    try_call("sethostname", libc::SYS_sethostname, &[tmp, 4]);
    try_call("settimeofday", libc::SYS_settimeofday, &[0, 0]);
    try_call("iopl", libc::SYS_iopl, &[3]);
    try_call("modify_ldt", libc::SYS_modify_ldt, &[1, words, 16]);
    try_call("vhangup", libc::SYS_vhangup, &[]);
    try_call("capset", libc::SYS_capset, &[words, words]);
    try_call("setgroups", libc::SYS_setgroups, &[0, 0]);
    try_call("setuid-0", libc::SYS_setuid, &[0]);
    try_call("setgid-0", libc::SYS_setgid, &[0]);
    try_call("prctl-securebits", libc::SYS_prctl, &[28, 0]);
    try_call("prctl-ambient", libc::SYS_prctl, &[47, 2, 21]);
    try_call("prctl-ptracer-any", libc::SYS_prctl, &[0x5961_6d61, u64::MAX]);
    try_call("prctl-core-sched-group", libc::SYS_prctl, &[62, 1, 0, 2, 0]);
    // A listener of one's own: RET_USER_NOTIF for everything would come here.
    let allow = [0x06_u64 | 0x7fff_0000_u64 << 32];
    let program = [1_u64, allow.as_ptr().addr() as u64];
    try_call(
        "seccomp-listener",
        libc::SYS_seccomp,
        &[1, 8, program.as_ptr().addr() as u64],
    );
    try_call(
        "seccomp-listener-dirty",
        libc::SYS_seccomp,
        &[1, 0xffff_ffff_0000_0008, program.as_ptr().addr() as u64],
    );
}

/// As many denied calls as asked for.
pub(crate) fn flood(count: u64) {
    let mut refused = 0_u64;
    for _ in 0..count {
        if call(libc::SYS_ptrace, &[0x4206, 0]) < 0 {
            refused += 1;
        }
    }
    println!("refused ok {refused}");
}
