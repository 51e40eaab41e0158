//! Call by call, under a profile that opens everything: each that is closed beside the nearest that stays open.

use nexus_abi::syscall::{self, nr};
use nexus_abi::{Errno, Reason};

use super::Under;

#[test]
fn calls_that_no_argument_makes_harmless_are_closed() {
    let under = Under::new();
    for (name, calls) in [
        ("floor:io-uring", &["io_uring_enter", "io_uring_register"][..]),
        ("floor:namespaces", &["setns"]),
        (
            "floor:mounts",
            &[
                "mount",
                "umount2",
                "move_mount",
                "open_tree",
                "open_tree_attr",
                "fsopen",
                "fsmount",
                "fsconfig",
                "fspick",
            ],
        ),
        ("floor:mounts", &["mount_setattr", "pivot_root", "chroot"]),
        ("floor:file-handles", &["open_by_handle_at"]),
        (
            "floor:other-processes",
            &[
                "ptrace",
                "process_vm_readv",
                "process_vm_writev",
                "process_madvise",
                "pidfd_getfd",
                "kcmp",
            ],
        ),
        ("floor:kernel-programs", &["bpf", "perf_event_open", "userfaultfd"]),
        ("floor:keyrings", &["keyctl", "add_key", "request_key"]),
        (
            "floor:machine",
            &[
                "init_module",
                "finit_module",
                "delete_module",
                "kexec_load",
                "kexec_file_load",
                "reboot",
                "acct",
                "swapon",
            ],
        ),
    ] {
        for call in calls {
            under.denies(syscall::number(call).unwrap(), &[], name);
        }
    }
    for call in [
        "execve",
        "name_to_handle_at",
        "statmount",
        "pidfd_open",
        "kill",
        "chdir",
        "memfd_create",
        "futex",
    ] {
        under.allows(syscall::number(call).unwrap(), &[]);
    }
}

#[test]
fn every_call_of_the_groups_that_undo_a_sandbox_is_closed() {
    let under = Under::new();
    for group in ["@mount", "@module", "@reboot", "@swap", "@keyring", "@debug", "@raw-io"] {
        for number in syscall::group(group).unwrap() {
            assert!(!under.judge(*number, &[]).is_allow(), "{group} {number}");
        }
    }
    for call in syscall::all().filter(|call| call.name().starts_with("io_uring_")) {
        assert!(!under.judge(call.number().unwrap(), &[]).is_allow());
    }
}

#[test]
fn calls_that_hide_their_flags_in_memory_are_answered_as_by_a_kernel_without_them() {
    let under = Under::new();
    for number in [nr::clone3, nr::openat2, nr::io_uring_setup] {
        under.answers(number, &[], "", Errno::ENOSYS, Reason::AbiUnknown);
    }
    under.allows(nr::clone, &[0x003d_0f00]);
    under.allows(nr::openat, &[0, 0, 0o100, 0o644]);
    under.allows(nr::epoll_create1, &[]);
}

#[test]
fn threads_and_children_are_made_and_namespaces_are_not() {
    let under = Under::new();
    let own = [
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
        0x80,
    ];
    for flag in own {
        under.denies(nr::clone, &[flag | 0x11], "floor:namespaces");
        under.denies(nr::unshare, &[flag], "floor:namespaces");
        under.denies(nr::unshare, &[flag | 0x400], "floor:namespaces");
    }
    under.allows(nr::clone, &[0x0120_0011]);
    under.allows(nr::clone, &[0x11 | 0x1000_0000 << 32]);
    under.allows(nr::unshare, &[0x600]);
}

#[test]
fn a_terminal_is_set_and_not_typed_into_and_interfaces_are_not_told() {
    let under = Under::new();
    for command in [
        0x5412, 0x541c, 0x541d, 0x5423, 0x4b00, 0x4b49, 0x4bff, 0x5600, 0x5606, 0x56ff,
    ] {
        under.denies(nr::ioctl, &[0, command], "floor:terminal");
    }
    // SIOCADDRT, SIOCSIFNAME, SIOCSIFADDR, SIOCETHTOOL, SIOCWANDEV, SIOCGSKNS, SIOCUNIXFILE, the last private one; SIOCGIWNAME.
    for command in [
        0x890b, 0x8923, 0x8916, 0x8946, 0x894a, 0x894c, 0x89e0, 0x89ff, 0x8b00, 0x8b01, 0x8bff,
    ] {
        under.denies(nr::ioctl, &[0, command], "floor:interfaces");
    }
    // TCGETS, TIOCGWINSZ, TIOCOUTQ, FIONREAD, TIOCGETD, FIOCLEX; FIOSETOWN to SIOCGSTAMPNS, SIOCOUTQNSD; FICLONE; neighbours.
    for command in [
        0x5401,
        0x5413,
        0x5411,
        0x541b,
        0x541e,
        0x5424,
        0x5451,
        0x8901,
        0x8902,
        0x8905,
        0x8907,
        0x894b,
        0x4004_9409,
        0x4aff,
        0x4c00,
        0x55ff,
        0x5700,
        0x8aff,
        0x8c00,
    ] {
        under.allows(nr::ioctl, &[0, command]);
    }
}

#[test]
fn sockets_are_those_that_egress_can_judge() {
    let under = Under::new();
    for flags in [0, 0x800, 0x8_0000, 0x8_0800] {
        for (family, kind, protocol) in [
            (1, 1, 0),
            (1, 5, 0),
            (2, 1, 0),
            (2, 1, 6),
            (2, 2, 0),
            (2, 2, 17),
            (10, 1, 6),
            (10, 2, 17),
        ] {
            under.allows(nr::socket, &[family, kind | flags, protocol]);
        }
        under.allows(nr::socketpair, &[1, 1 | flags, 0]);
        under.allows(nr::socketpair, &[1, 5 | flags, 0]);
        // Unix datagrams, and SOCK_RAW, which Linux turns into them.
        for kind in [2, 3] {
            for call in [nr::socket, nr::socketpair] {
                under.answers(
                    call,
                    &[1, kind | flags, 0],
                    "floor:sockets",
                    Errno::EPERM,
                    Reason::EgressFamily,
                );
            }
        }
        // Raw, ping, SCTP, UDP-Lite, seqpacket over IP; netlink, packet, vsock, AF_ALG, Bluetooth, XDP, TIPC.
        for (family, kind, protocol) in [
            (2, 3, 6),
            (2, 3, 255),
            (10, 3, 58),
            (2, 2, 1),
            (10, 2, 58),
            (2, 1, 132),
            (2, 2, 136),
            (2, 5, 0),
            (16, 3, 0),
            (16, 2, 4),
            (17, 3, 0),
            (40, 1, 0),
            (38, 5, 0),
            (31, 1, 0),
            (44, 3, 0),
            (30, 1, 0),
            (16 | 1 << 32, 3, 0),
        ] {
            let args = [family, kind | flags, protocol];
            under.answers(nr::socket, &args, "floor:sockets", Errno::EPERM, Reason::EgressFamily);
        }
    }
    // MPTCP, which the supervisor makes as TCP; of raw sockets there is none, and of its neighbours neither.
    for family in [2, 10] {
        under.allows(nr::socket, &[family, 1, 262]);
        under.allows(nr::socket, &[family, 0x80801, 262]);
        for (kind, protocol) in [(3, 262), (5, 262), (1, 261), (1, 263)] {
            let args = [family, kind, protocol];
            under.answers(nr::socket, &args, "floor:sockets", Errno::EPERM, Reason::EgressFamily);
        }
    }
    under.answers(
        nr::socketpair,
        &[30, 1, 0],
        "floor:sockets",
        Errno::EPERM,
        Reason::EgressFamily,
    );
}

#[test]
fn no_message_opens_a_connection() {
    let under = Under::new();
    for (call, place) in [(nr::sendto, 3), (nr::sendmmsg, 3), (nr::sendmsg, 2)] {
        let mut args = [0; 4];
        args[place] = 0x4000; // MSG_NOSIGNAL
        under.allows(call, &args);
        args[place] |= 0x2000_0000;
        under.denies(call, &args, "floor:tcp-fast-open");
        args[place] = 0x2000_0000 << 32;
        under.allows(call, &args);
    }
}

#[test]
fn socket_options_that_lead_elsewhere_are_closed_and_ordinary_ones_are_not() {
    let under = Under::new();
    for (level, options) in [
        // REUSEADDR BROADCAST KEEPALIVE LINGER REUSEPORT PASSCRED RCVTIMEO TIMESTAMPING ZEROCOPY PASSPIDFD
        (1, &[2_u64, 6, 9, 13, 15, 16, 20, 66, 37, 60, 76][..]),
        (6, &[1, 3, 4, 9, 12, 13, 18, 25]),
        (17, &[1, 103, 104]),
        (0, &[1, 2, 8, 10, 11, 24, 33, 34, 49]),
        (41, &[16, 18, 19, 23, 25, 26, 29, 49, 66, 67]),
    ] {
        for option in options {
            under.allows(nr::setsockopt, &[3, level, *option]);
        }
    }
    for (level, options) in [
        // BINDTODEVICE ATTACH_FILTER DETACH_FILTER MARK LOCK_FILTER ATTACH_BPF ATTACH_REUSEPORT_* BINDTOIFINDEX RCVMARK DONTROUTE
        (1, &[25_u64, 26, 27, 36, 44, 50, 51, 52, 62, 68, 75, 5, 1000][..]),
        // MD5SIG REPAIR REPAIR_QUEUE QUEUE_SEQ REPAIR_OPTIONS FASTOPEN REPAIR_WINDOW FASTOPEN_CONNECT ULP MD5SIG_EXT
        // FASTOPEN_KEY FASTOPEN_NO_COOKIE AO_*
        (
            6,
            &[14, 19, 20, 21, 22, 23, 29, 30, 31, 32, 33, 34, 38, 39, 40, 42, 1000],
        ),
        (17, &[100]),
        // HDRINCL OPTIONS ROUTER_ALERT FREEBIND POLICY TRANSPARENT MULTICAST_IF memberships and filters UNICAST_IF netfilter
        (
            0,
            &[
                3, 4, 5, 15, 16, 17, 19, 32, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 50, 64, 65,
            ],
        ),
        // ADDRFORM 2292* NEXTHOP MULTICAST_IF JOIN/LEAVE anycast ROUTER_ALERT FLOWLABEL_MGR FLOWINFO_SEND POLICY HDRINCL MCAST
        // PKTINFO HOPOPTS RTHDRDSTOPTS RTHDR DSTOPTS netfilter TRANSPARENT UNICAST_IF FREEBIND
        (
            41,
            &[
                1, 2, 3, 4, 5, 6, 7, 9, 17, 20, 21, 22, 27, 28, 32, 33, 34, 35, 36, 42, 46, 48, 50, 54, 55, 57, 59, 64,
                65, 75, 76, 78,
            ],
        ),
        // SCTP, RAW, UDPLITE, NETLINK, TLS, MPTCP, VSOCK and a level that none has.
        (132, &[1]),
        (255, &[1]),
        (136, &[10]),
        (270, &[1]),
        (282, &[1]),
        (284, &[1]),
        (287, &[1]),
        (0xffff_ffff, &[1]),
    ] {
        for option in options {
            let why = Reason::AbiArgMismatch;
            for above in [0, 7 << 32] {
                let args = [3, level | above, option | above];
                under.answers(nr::setsockopt, &args, "floor:socket-options", Errno::EPERM, why);
            }
            under.allows(nr::getsockopt, &[3, level, *option]);
        }
    }
}

#[test]
fn priorities_of_processes_are_set_and_those_of_groups_and_users_are_not() {
    let under = Under::new();
    for (call, process, others) in [(nr::setpriority, 0, [1, 2]), (nr::ioprio_set, 1, [2, 3])] {
        under.allows(call, &[process]);
        for which in others {
            under.denies(call, &[which], "floor:priority-of-others");
        }
    }
    under.denies(nr::prctl, &[62], "floor:priority-of-others");
    under.allows(nr::prctl, &[61]);
    under.allows(nr::getpriority, &[1]);
    under.allows(nr::kill, &[0]);
}

#[test]
fn a_filter_may_be_added_and_a_listener_may_not() {
    let under = Under::new();
    under.allows(nr::seccomp, &[1, 0]);
    under.allows(nr::seccomp, &[1, 1]);
    for flag in [8, 0x20, 9] {
        under.denies(nr::seccomp, &[1, flag], "floor:seccomp-listener");
    }
}

#[test]
fn no_file_gets_a_set_id_bit() {
    let under = Under::new();
    let with = |place: usize, value: u64| {
        let mut args = [0; 4];
        args[place] = value;
        args
    };
    for (call, place) in [
        (nr::chmod, 1),
        (nr::fchmod, 1),
        (nr::creat, 1),
        (nr::mknod, 1),
        (nr::fchmodat, 2),
        (nr::fchmodat2, 2),
        (nr::mknodat, 2),
    ] {
        under.allows(call, &with(place, 0o1777));
        under.denies(call, &with(place, 0o4755), "floor:set-id");
        under.denies(call, &with(place, 0o2755), "floor:set-id");
    }
    for (call, flags, mode) in [(nr::open, 1, 2), (nr::openat, 2, 3)] {
        for create in [0o100, 0o20_000_000] {
            let mut args = with(flags, create);
            args[mode] = 0o1777;
            under.allows(call, &args);
            args[mode] = 0o4755;
            under.denies(call, &args, "floor:set-id");
        }
        // Nothing is made: the register holds anything.
        under.allows(call, &with(mode, 0o6777));
    }
}

#[test]
fn the_limits_and_the_scheduling_of_init_are_closed_and_ones_own_are_open() {
    let under = Under::new();
    for call in [
        nr::prlimit64,
        nr::sched_setaffinity,
        nr::sched_setattr,
        nr::sched_setparam,
        nr::sched_setscheduler,
    ] {
        under.denies(call, &[1], "floor:other-processes");
        under.denies(call, &[0xdead_0000_0001], "floor:other-processes");
        under.allows(call, &[0]);
        under.allows(call, &[2]);
    }
    under.denies(nr::setpriority, &[0, 1], "floor:other-processes");
    under.allows(nr::setpriority, &[0, 0]);
    under.allows(nr::setpriority, &[0, 2]);
    under.denies(nr::ioprio_set, &[1, 1], "floor:other-processes");
    under.allows(nr::ioprio_set, &[1, 0]);
}

#[test]
fn input_as_a_signal_is_closed_and_the_flags_beside_it_are_open() {
    const F_SETFL: u64 = 4;
    let under = Under::new();
    under.denies(nr::fcntl, &[0, F_SETFL, 0o20000], "floor:terminal");
    under.denies(nr::fcntl, &[0, F_SETFL, 0o24000], "floor:terminal");
    under.denies(nr::fcntl, &[0, 10, 9], "floor:terminal");
    under.denies(nr::ioctl, &[0, 0x5452, 0], "floor:terminal");
    under.allows(nr::fcntl, &[0, F_SETFL, 0o4000]);
    // F_GETFL and F_GETSIG do not read the third argument.
    under.allows(nr::fcntl, &[0, 3, 0o20000]);
    under.allows(nr::fcntl, &[0, 11, 0]);
    under.allows(nr::ioctl, &[0, 0x5421, 0]);
}
