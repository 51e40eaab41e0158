//! The syscall profile that ships with nexus: each thing that programs need beside the nearest that they must not have.
#![cfg(test)]

use nexus_abi::syscall::{group, nr, number};
use nexus_abi::{Errno, Reason, Verdict};
use nexus_abi_policy::{Call, Guard, NoFacts, Program, Request, SECCOMP_RET_ALLOW, compile};
use nexus_policy::{MemoryTree, Policy, SubjectPolicy};

fn demo() -> SubjectPolicy {
    match Policy::load(&MemoryTree::shipped()) {
        Ok(policy) => policy.subject("demo").unwrap(),
        Err(errors) => panic!("{errors}"),
    }
}

struct Demo(Guard);

impl Demo {
    fn new() -> Self {
        Self(Guard::new(&demo().profiles()).unwrap())
    }

    fn judge(&self, number: u32, args: &[u64]) -> Verdict {
        let mut six = [0; 6];
        for (slot, arg) in six.iter_mut().zip(args) {
            *slot = *arg;
        }
        self.0.judge(&Request::scalar(Call::native(number, six)), &NoFacts)
    }

    #[track_caller]
    fn allows(&self, number: u32, args: &[u64]) {
        let verdict = self.judge(number, args);
        assert!(verdict.is_allow(), "{number} {args:x?}: {verdict:?}");
    }

    #[track_caller]
    fn denies(&self, number: u32, args: &[u64]) {
        let verdict = self.judge(number, args);
        assert!(!verdict.is_allow(), "{number} {args:x?}: {verdict:?}");
    }

    #[track_caller]
    fn answers(&self, number: u32, args: &[u64], expected: Errno, why: Reason) {
        match self.judge(number, args) {
            Verdict::Deny { reason, errno, .. } => assert_eq!((errno, reason), (expected, why), "{number} {args:x?}"),
            allowed @ Verdict::Allow { .. } => panic!("{number} {args:x?}: {allowed:?}"),
        }
    }
}

#[test]
fn everyday_calls_are_allowed_whatever_their_arguments() {
    let demo = Demo::new();
    for name in [
        "read",
        "write",
        "openat",
        "close",
        "mmap",
        "mprotect",
        "brk",
        "execve",
        "futex",
        "statx",
        "faccessat2",
        "getdents64",
        "rt_sigaction",
        "epoll_pwait2",
        "poll",
        "pipe2",
        "dup3",
        "wait4",
        "setpgid",
        "setsid",
        "memfd_create",
        "shmget",
        "inotify_init1",
        "flock",
        "copy_file_range",
        "rename",
        "unlink",
        "mkdir",
        "symlink",
        "utimensat",
        "getrandom",
        "sched_setaffinity",
        "prlimit64",
        "rseq",
        "close_range",
        "pidfd_open",
        "landlock_create_ruleset",
        "mlock",
        "chown",
        "connect",
        "bind",
        "listen",
        "accept4",
        "recvmsg",
        "tgkill",
        "vfork",
        "uretprobe",
    ] {
        demo.allows(number(name).unwrap(), &[]);
    }
}

#[test]
fn ways_out_of_the_sandbox_are_denied_by_rule_so_that_no_subject_opens_them() {
    let demo = Demo::new();
    for name in [
        "io_uring_enter",
        "io_uring_register",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "kcmp",
        "mount",
        "umount2",
        "move_mount",
        "fsopen",
        "open_tree",
        "mount_setattr",
        "pivot_root",
        "chroot",
        "setns",
        "open_by_handle_at",
        "name_to_handle_at",
        "fanotify_init",
        "acct",
        "swapon",
        "reboot",
        "kexec_load",
        "init_module",
        "finit_module",
        "quotactl",
        "iopl",
        "vhangup",
        "process_madvise",
        "modify_ldt",
    ] {
        demo.answers(number(name).unwrap(), &[], Errno::EPERM, Reason::AbiDenyRule);
    }
}

#[test]
fn what_nobody_needs_is_denied_for_lack_of_a_rule() {
    let demo = Demo::new();
    for name in [
        "sethostname",
        "settimeofday",
        "setgroups",
        "capset",
        "syslog",
        "vmsplice",
        "move_pages",
        "uselib",
        "io_submit",
    ] {
        demo.answers(number(name).unwrap(), &[], Errno::EPERM, Reason::AbiNoRule);
    }
}

#[test]
fn what_libraries_probe_is_answered_as_by_a_kernel_without_it() {
    let demo = Demo::new();
    for name in [
        "clone3",
        "openat2",
        "io_uring_setup",
        "io_setup",
        "memfd_secret",
        "get_mempolicy",
        "statmount",
    ] {
        demo.answers(number(name).unwrap(), &[], Errno::ENOSYS, Reason::AbiUnknown);
    }
    demo.answers(470, &[], Errno::ENOSYS, Reason::AbiUnknown);
}

#[test]
fn threads_and_processes_are_made_and_namespaces_are_not() {
    let demo = Demo::new();
    demo.allows(nr::clone, &[0x003d_0f00]); // pthread_create
    demo.allows(nr::clone, &[0x0120_0011]); // fork
    demo.allows(nr::unshare, &[0x400]); // CLONE_FILES
    for flag in [
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
        0x80,
    ] {
        demo.denies(nr::clone, &[flag | 0x11]);
        demo.denies(nr::clone, &[flag | 0x11 | 0xffff << 32]);
        demo.denies(nr::unshare, &[flag]);
        demo.denies(nr::unshare, &[flag | 0x400]);
    }
}

#[test]
fn a_terminal_is_set_and_asked_and_not_typed_into() {
    let demo = Demo::new();
    for command in [
        0x5401,
        0x5402,
        0x5413,
        0x5414,
        0x540f,
        0x5410,
        0x541b,
        0x5421,
        0x8004_5430,
        0x4004_9409,
    ] {
        demo.allows(nr::ioctl, &[0, command]);
        demo.allows(nr::ioctl, &[0, command | 0xdead_beef << 32]);
    }
    for command in [0x5412, 0x541c] {
        demo.answers(nr::ioctl, &[0, command], Errno::EPERM, Reason::AbiDenyRule);
        demo.answers(
            nr::ioctl,
            &[0, command | 0xdead_beef << 32],
            Errno::EPERM,
            Reason::AbiDenyRule,
        );
    }
    // TIOCSETD, SIOCSIFNAME, SIOCSIFADDR, TUNSETIFF, NS_GET_PARENT, FS_IOC_FSSETXATTR
    for command in [0x5423, 0x8923, 0x8916, 0x4004_54ca, 0xb702, 0x401c_5820] {
        demo.answers(nr::ioctl, &[0, command], Errno::EPERM, Reason::AbiArgMismatch);
    }
}

#[test]
fn sockets_are_unix_tcp_and_udp_and_nothing_else() {
    let demo = Demo::new();
    for (family, kind, protocol) in [
        (1, 1, 0),
        (1, 5, 0),
        (2, 1, 0),
        (2, 1, 6),
        (2, 1, 262),
        (2, 2, 17),
        (10, 0x80801, 0),
        (10, 0x80002, 0),
    ] {
        demo.allows(nr::socket, &[family, kind, protocol]);
    }
    demo.allows(nr::socketpair, &[1, 0x80001, 0]);
    demo.answers(nr::socketpair, &[2, 1, 0], Errno::EPERM, Reason::EgressFamily);
    for kind in [2, 3, 0x80002] {
        demo.answers(nr::socket, &[1, kind, 0], Errno::EPERM, Reason::EgressFamily);
        demo.answers(nr::socketpair, &[1, kind, 0], Errno::EPERM, Reason::EgressFamily);
    }
    // Raw, ping, SCTP, seqpacket over IP; packet, netlink, vsock, AF_ALG, Bluetooth, a family with rubbish above it.
    for (family, kind, protocol) in [
        (2, 3, 6),
        (2, 2, 1),
        (10, 2, 58),
        (2, 1, 132),
        (2, 5, 0),
        (17, 3, 0),
        (16, 3, 0),
        (40, 1, 0),
        (38, 5, 0),
        (31, 1, 0),
        (1 << 32 | 16, 3, 0),
        (2, 0x1001, 0),
    ] {
        demo.answers(
            nr::socket,
            &[family, kind, protocol],
            Errno::EPERM,
            Reason::EgressFamily,
        );
    }
}

#[test]
fn options_of_sockets_are_the_ordinary_ones() {
    let demo = Demo::new();
    for (level, option) in [
        (1, 2),
        (1, 9),
        (1, 20),
        (6, 1),
        (6, 4),
        (0, 1),
        (0, 11),
        (41, 26),
        (41, 67),
        (17, 103),
    ] {
        demo.allows(nr::setsockopt, &[3, level, option]);
    }
    // BINDTODEVICE MARK ATTACH_FILTER ATTACH_BPF; FASTOPEN FASTOPEN_CONNECT REPAIR ULP MD5SIG; OPTIONS HDRINCL TRANSPARENT
    // ADD_MEMBERSHIP the packet filter's; RTHDR HOPOPTS DSTOPTS ADDRFORM JOIN_GROUP; UDP_ENCAP; TLS.
    for (level, option) in [
        (1, 25),
        (1, 36),
        (1, 26),
        (1, 50),
        (6, 23),
        (6, 30),
        (6, 19),
        (6, 31),
        (6, 14),
        (0, 4),
        (0, 3),
        (0, 19),
        (0, 35),
        (0, 64),
        (41, 57),
        (41, 54),
        (41, 59),
        (41, 1),
        (41, 20),
        (17, 100),
        (282, 1),
    ] {
        demo.answers(
            nr::setsockopt,
            &[3, level, option],
            Errno::EPERM,
            Reason::AbiArgMismatch,
        );
        demo.denies(nr::setsockopt, &[3, level | 7 << 32, option | 9 << 32]);
        demo.denies(nr::getsockopt, &[3, level, option]);
    }
    // To be read only; of MPTCP that there is none.
    for (level, option) in [(6, 11), (284, 1)] {
        demo.allows(nr::getsockopt, &[3, level, option]);
        demo.denies(nr::setsockopt, &[3, level, option]);
    }
    demo.denies(nr::getsockopt, &[3, 284, 2]);
}

#[test]
fn no_message_opens_a_connection() {
    let demo = Demo::new();
    let fast_open = 0x2000_0000;
    for (call, place) in [(nr::sendto, 3), (nr::sendmsg, 2), (nr::sendmmsg, 3)] {
        let mut args = [0_u64; 6];
        args[place] = 0x4000; // MSG_NOSIGNAL
        demo.allows(call, &args);
        args[place] |= fast_open;
        demo.denies(call, &args);
        args[place] |= 0xabcd << 32;
        demo.denies(call, &args);
    }
}

#[test]
fn no_file_gets_a_set_id_bit_and_no_device_is_made() {
    let demo = Demo::new();
    for (call, place) in [
        (nr::chmod, 1),
        (nr::fchmod, 1),
        (nr::fchmodat, 2),
        (nr::fchmodat2, 2),
        (nr::creat, 1),
    ] {
        let mut args = [0_u64; 6];
        args[place] = 0o1755;
        demo.allows(call, &args);
        for bit in [0o4000, 0o2000] {
            args[place] = 0o755 | bit;
            demo.denies(call, &args);
            args[place] |= 0xffff_0000;
            demo.denies(call, &args);
        }
    }
    for (call, flags, mode) in [(nr::open, 1, 2), (nr::openat, 2, 3)] {
        for create in [0o100, 0o20_000_000] {
            let mut args = [0_u64; 6];
            args[flags] = create;
            args[mode] = 0o644;
            demo.allows(call, &args);
            args[mode] = 0o4755;
            demo.denies(call, &args);
            args[flags] = 0; // Nothing is made: the register holds anything.
            demo.allows(call, &args);
        }
    }
    for (call, place) in [(nr::mknod, 1), (nr::mknodat, 2)] {
        let mut args = [0_u64; 6];
        for (kind, allowed) in [
            (0o010_000, true),
            (0o140_000, true),
            (0o100_000, true),
            (0, true),
            (0o020_000, false),
            (0o060_000, false),
        ] {
            args[place] = kind | 0o600;
            if allowed {
                demo.allows(call, &args);
            } else {
                demo.denies(call, &args);
            }
            args[place] |= 0o4000;
            demo.denies(call, &args);
        }
    }
}

#[test]
fn a_process_changes_its_name_and_not_what_the_kernel_knows_of_its_memory() {
    let demo = Demo::new();
    for option in [1, 4, 15, 22, 38, 0x5356_4d41] {
        demo.allows(nr::prctl, &[option]);
        demo.allows(nr::prctl, &[option | 5 << 32]);
    }
    for option in [35, 0x5961_6d61, 24, 47, 59, 67] {
        demo.answers(nr::prctl, &[option], Errno::EPERM, Reason::AbiArgMismatch);
    }
    demo.allows(nr::personality, &[0xffff_ffff]);
    demo.denies(nr::personality, &[0x0040_0000]);
    demo.allows(nr::seccomp, &[1, 0]);
    demo.denies(nr::seccomp, &[1, 8]);
}

#[test]
fn the_profile_and_what_no_policy_can_open_fit_a_filter_several_times() {
    let demo = demo();
    assert_eq!(demo.profiles().len(), 2, "the tree's own, and the floor");
    let program = compile(&demo.profiles(), &[]).unwrap();
    // A tree, a ceiling and the floor, of 4096.
    assert!(
        program.instructions().len() < 4096 / 3,
        "{}",
        program.instructions().len()
    );
}

/// `seccomp_is_const_allow` of the kernel, for the instructions that a filter has: whether a number is in its map of calls
/// that are always allowed.
fn is_in_the_kernels_map(program: &Program, number: u32) -> bool {
    let native = Call::native(number, [0; 6]);
    let (mut value, mut place) = (0, 0);
    while let Some(one) = program.instructions().get(place).copied() {
        place += 1;
        let jump = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
        match (one.code, one.k) {
            (0x20, 0) => value = native.number,
            (0x20, 4) => value = native.arch,
            (0x05, skip) => place += usize::try_from(skip).unwrap(),
            (0x15, k) => place += jump(value == k),
            (0x25, k) => place += jump(value > k),
            (0x35, k) => place += jump(value >= k),
            (0x06, action) => return action == SECCOMP_RET_ALLOW,
            _ => return false,
        }
    }
    false
}

#[test]
fn what_programs_call_most_is_in_the_kernels_map_with_the_floor_under_it() {
    let demo = demo();
    let program = compile(&demo.profiles(), &[]).unwrap();
    for name in [
        "read",
        "write",
        "pread64",
        "writev",
        "close",
        "lseek",
        "mmap",
        "munmap",
        "brk",
        "futex",
        "fstat",
        "newfstatat",
        "statx",
        "getdents64",
        "poll",
        "epoll_wait",
        "epoll_pwait",
        "epoll_ctl",
        "execve",
        "wait4",
        "recvfrom",
        "recvmsg",
        "clock_gettime",
        "rt_sigaction",
        "rt_sigprocmask",
        "dup",
        "pipe2",
        "unlink",
        "rename",
        "getrandom",
    ] {
        assert!(is_in_the_kernels_map(&program, number(name).unwrap()), "{name}");
    }
    // A mode or a command is looked at, and what is denied is asked about.
    for name in ["openat", "fcntl", "ioctl", "socket", "ptrace", "clone3"] {
        assert!(!is_in_the_kernels_map(&program, number(name).unwrap()), "{name}");
    }
}

#[test]
fn no_call_of_a_dangerous_group_is_allowed() {
    let demo = Demo::new();
    for name in [
        "@debug",
        "@mount",
        "@module",
        "@reboot",
        "@swap",
        "@raw-io",
        "@keyring",
        "@clock",
        "@cpu-emulation",
        "@obsolete",
        "@aio",
    ] {
        for number in group(name).unwrap() {
            demo.denies(*number, &[]);
        }
    }
}
