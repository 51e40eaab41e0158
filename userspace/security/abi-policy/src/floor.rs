//! What no policy can open.
//!
//! Egress, the view and the budgets are enforced by helpers and namespaces that some calls go around. A policy that allowed
//! them would make its own other rules void, so they are closed below every policy, by one more profile that is judged with
//! the author's own. It allows every known call but those listed here, and those that are fine with some arguments only
//! with these; such a list names what is known to be harmless, so that what a newer kernel adds stays closed.
//!
//! What only a capability opens is not here unless it would end the machine: nobody in a sandbox has one.

use alloc::vec::Vec;

use nexus_abi::syscall::{self, Width, nr};
use nexus_abi::{Effect, Errno, RuleRef};

use crate::profile::{ArgTest, Condition, Profile, SyscallRule};

/// A test of an argument's lower 32 bits, as a constant can hold it.
enum Is {
    /// At least one of these bits.
    AnyBit(u64),
    /// At least one of these bits, of the lower 16.
    AnyModeBit(u64),
    /// At least one of these bits, of all 64.
    AnyLongBit(u64),
    /// One of these, sorted.
    In(&'static [u64]),
    /// Exactly this.
    Equal(u64),
    /// Both included.
    Range(u64, u64),
}

/// Argument and test; all of a pattern's must hold.
type Pattern = &'static [(u8, Is)];

enum Says {
    /// Never.
    Closed,
    /// Never, told as by a kernel without it: callers fall back.
    Probed,
    /// Not where one of these holds.
    Not(&'static [Pattern]),
    /// Only where one of these holds.
    Only(&'static [Pattern]),
}

struct Entry {
    name: &'static str,
    calls: &'static [u32],
    says: Says,
}

const SOCK_STREAM: [u64; 4] = with_flags(1);
const SOCK_DGRAM: [u64; 4] = with_flags(2);
const SOCK_SEQPACKET: [u64; 4] = with_flags(5);

/// A socket type alone, with SOCK_NONBLOCK, with SOCK_CLOEXEC, with both. SOCK_CLOEXEC is above SOCK_NONBLOCK.
const fn with_flags(kind: u64) -> [u64; 4] {
    [kind, kind | 0x800, kind | 0x8_0000, kind | 0x8_0800]
}

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const IPPROTO_TCP: u64 = 6;
const IPPROTO_UDP: u64 = 17;
const IPPROTO_MPTCP: u64 = 262;

/// What `ioctl` answers about interfaces without changing them (netdevice(7)): SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS,
/// SIOCGIFADDR, SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK, SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX,
/// SIOCGIFTXQLEN. Whoever builds a filter has them shown to the supervisor: on a socket of the host's the kernel would tell of
/// the host.
pub const INTERFACE_QUESTIONS: [u64; 12] = [
    0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942,
];

/// Level and names of what lets others have a socket's port as well: `SOL_SOCKET`; `SO_REUSEADDR` and `SO_REUSEPORT` (socket(7)). Whoever
/// builds a filter has them shown to the supervisor where the program has datagram sockets of the host's.
pub const PORT_SHARING: (u64, [u64; 2]) = (1, [2, 15]);

const MSG_FASTOPEN: u64 = 0x2000_0000;
const SET_ID: u64 = 0o6000;
/// O_CREAT and O_TMPFILE: only with these does open read a mode.
const CREATES: u64 = 0o20_000_100;
/// Every CLONE_NEW*. CLONE_NEWTIME's bit is part of the exit signal in clone's flags, where no signal has it.
const CLONE_NEW: u64 = 0x7e02_0080;

/// Unix sockets that have one peer. A datagram goes to whatever path its sender names, and a path in the view may be a
/// socket of the host's that only `connect` is mediated for. The kernel turns SOCK_RAW into a datagram socket.
const UNIX_WITH_A_PEER: Pattern = &[
    (0, Is::Equal(AF_UNIX)),
    (
        1,
        Is::In(&[
            SOCK_STREAM[0],
            SOCK_SEQPACKET[0],
            SOCK_STREAM[1],
            SOCK_SEQPACKET[1],
            SOCK_STREAM[2],
            SOCK_SEQPACKET[2],
            SOCK_STREAM[3],
            SOCK_SEQPACKET[3],
        ]),
    ),
];

/// The list. What a call does, and why that goes around another guard, is in the comment; sources are its manual page and
/// the kernel's own declarations (Linux 6.18).
static ENTRIES: &[Entry] = &[
    // A ring makes calls that no filter sees. One that was passed in from elsewhere is no better than one's own.
    Entry {
        name: "floor:io-uring",
        calls: &[nr::io_uring_setup],
        says: Says::Probed,
    },
    Entry {
        name: "floor:io-uring",
        calls: &[nr::io_uring_enter, nr::io_uring_register],
        says: Says::Closed,
    },
    // Flags, new namespaces among them, and modes lie in memory that another thread changes after the look.
    Entry {
        name: "floor:flags-in-memory",
        calls: &[nr::clone3, nr::openat2],
        says: Says::Probed,
    },
    // A namespace of one's own brings capabilities within it, and with them mounts, raw sockets and another network.
    Entry {
        name: "floor:namespaces",
        calls: &[nr::clone],
        says: Says::Not(&[&[(0, Is::AnyBit(CLONE_NEW))]]),
    },
    Entry {
        name: "floor:namespaces",
        calls: &[nr::unshare],
        says: Says::Not(&[&[(0, Is::AnyLongBit(CLONE_NEW))]]),
    },
    Entry {
        name: "floor:namespaces",
        calls: &[nr::setns],
        says: Says::Closed,
    },
    // The view of files is made before the program starts and stays as it was made.
    Entry {
        name: "floor:mounts",
        calls: &[
            nr::chroot,
            nr::fsconfig,
            nr::fsmount,
            nr::fsopen,
            nr::fspick,
            nr::mount,
            nr::mount_setattr,
            nr::move_mount,
            nr::open_tree,
            nr::open_tree_attr,
            nr::pivot_root,
            nr::umount2,
        ],
        says: Says::Closed,
    },
    // Opens files by number, past every path rule. Making such numbers (name_to_handle_at) opens nothing.
    Entry {
        name: "floor:file-handles",
        calls: &[nr::open_by_handle_at],
        says: Says::Closed,
    },
    // The sandbox's own init has the program's uid and holds what the program must not: its memory and descriptors.
    Entry {
        name: "floor:other-processes",
        calls: &[
            nr::kcmp,
            nr::pidfd_getfd,
            nr::process_madvise,
            nr::process_vm_readv,
            nr::process_vm_writev,
            nr::ptrace,
        ],
        says: Says::Closed,
    },
    // Its limits and its place in the scheduler are init's own: without descriptors or a processor it does nothing for the
    // session. It is always the first process of its pid namespace, and it has one thread.
    Entry {
        name: "floor:other-processes",
        calls: &[
            nr::prlimit64,
            nr::sched_setaffinity,
            nr::sched_setattr,
            nr::sched_setparam,
            nr::sched_setscheduler,
        ],
        says: Says::Not(&[&[(0, Is::Equal(1))]]),
    },
    Entry {
        name: "floor:other-processes",
        calls: &[nr::setpriority],
        says: Says::Not(&[&[(0, Is::Equal(0)), (1, Is::Equal(1))]]), // PRIO_PROCESS
    },
    Entry {
        name: "floor:other-processes",
        calls: &[nr::ioprio_set],
        says: Says::Not(&[&[(0, Is::Equal(1)), (1, Is::Equal(1))]]), // IOPRIO_WHO_PROCESS
    },
    // Programs and probes in the kernel; faults that stop it, and whoever copies for a judge, in the middle of a copy.
    Entry {
        name: "floor:kernel-programs",
        calls: &[nr::bpf, nr::lookup_dcookie, nr::perf_event_open, nr::userfaultfd],
        says: Says::Closed,
    },
    // Keys belong to the user and not to the session: they carry secrets in and messages out.
    Entry {
        name: "floor:keyrings",
        calls: &[nr::add_key, nr::keyctl, nr::request_key],
        says: Says::Closed,
    },
    // The machine's, not the session's. Capabilities guard these too; they are here because they cost nothing here.
    Entry {
        name: "floor:machine",
        calls: &[
            nr::acct,
            nr::delete_module,
            nr::finit_module,
            nr::init_module,
            nr::ioperm,
            nr::iopl,
            nr::kexec_file_load,
            nr::kexec_load,
            nr::quotactl,
            nr::quotactl_fd,
            nr::reboot,
            nr::swapoff,
            nr::swapon,
        ],
        says: Says::Closed,
    },
    // The terminal is the caller's: TIOCSTI and TIOCLINUX type into it, TIOCCONS takes the console's output, TIOCSETD
    // loads line disciplines, and the console's own commands (linux/kd.h, linux/vt.h) remap its keyboard and lock its screen.
    Entry {
        name: "floor:terminal",
        calls: &[nr::ioctl],
        says: Says::Not(&[
            &[(1, Is::In(&[0x5412, 0x541c, 0x541d, 0x5423]))],
            &[(1, Is::Range(0x4b00, 0x4bff))],
            &[(1, Is::Range(0x5600, 0x56ff))],
        ]),
    },
    // Input as a signal. Of a terminal the kernel makes its whole foreground group the owner, of which the program is one
    // among its caller's, and F_SETSIG makes the signal any: SIGKILL for the rest of the pipeline at the next key.
    Entry {
        name: "floor:terminal",
        calls: &[nr::fcntl],
        says: Says::Not(&[
            &[(1, Is::Equal(4)), (2, Is::AnyLongBit(0o20000))], // F_SETFL, O_ASYNC
            &[(1, Is::Equal(10))],                              // F_SETSIG
        ]),
    },
    Entry {
        name: "floor:terminal",
        calls: &[nr::ioctl],
        says: Says::Not(&[&[(1, Is::Equal(0x5452))]]), // FIOASYNC
    },
    // A socket for the outside lives on the host: these tell of and change its interfaces, routes and neighbours, and SIOCGSKNS
    // hands out its namespace. Left out are the questions about interfaces that the supervisor always answers itself, for the
    // session's own network ([`INTERFACE_QUESTIONS`]). Below them are the owner of a descriptor, looked up in the caller's own pid namespace, urgent
    // data and time stamps; 0x894b is SIOCOUTQNSD. From 0x8b00 on are the commands of wireless devices.
    Entry {
        name: "floor:interfaces",
        calls: &[nr::ioctl],
        says: Says::Not(&[
            &[(1, Is::Range(0x8908, 0x890f))],
            &[(1, Is::In(&[0x8911, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c]))],
            &[(1, Is::Range(0x891e, 0x8920))],
            &[(1, Is::Range(0x8922, 0x8926))],
            &[(1, Is::Range(0x8928, 0x8932))],
            &[(1, Is::Range(0x8934, 0x8941))],
            &[(1, Is::Range(0x8943, 0x894a))],
            &[(1, Is::Range(0x894c, 0x89ff))],
            &[(1, Is::Range(0x8b00, 0x8bff))],
        ]),
    },
    // What egress can judge: TCP and UDP. Not raw, ping, SCTP, netlink, packet, vsock, AF_ALG …
    Entry {
        name: "floor:sockets",
        calls: &[nr::socket],
        says: Says::Only(&[
            UNIX_WITH_A_PEER,
            &[
                (0, Is::In(&[AF_INET, AF_INET6])),
                (
                    1,
                    Is::In(&[
                        SOCK_STREAM[0],
                        SOCK_DGRAM[0],
                        SOCK_STREAM[1],
                        SOCK_DGRAM[1],
                        SOCK_STREAM[2],
                        SOCK_DGRAM[2],
                        SOCK_STREAM[3],
                        SOCK_DGRAM[3],
                    ]),
                ),
                // MPTCP is made as TCP by the supervisor, never by the kernel: its peer names further addresses, to which the
                // kernel then connects by itself.
                (2, Is::In(&[0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_MPTCP])),
            ],
        ]),
    },
    Entry {
        name: "floor:sockets",
        calls: &[nr::socketpair],
        says: Says::Only(&[UNIX_WITH_A_PEER]),
    },
    // Data in the first packet connects without a connect. The option that does the same is not in the list below.
    Entry {
        name: "floor:tcp-fast-open",
        calls: &[nr::sendto, nr::sendmmsg],
        says: Says::Not(&[&[(3, Is::AnyBit(MSG_FASTOPEN))]]),
    },
    Entry {
        name: "floor:tcp-fast-open",
        calls: &[nr::sendmsg],
        says: Says::Not(&[&[(2, Is::AnyBit(MSG_FASTOPEN))]]),
    },
    Entry {
        name: "floor:socket-options",
        calls: &[nr::setsockopt],
        says: Says::Only(SOCKET_OPTIONS),
    },
    // The first process group is the shell's: without these a program sets the priority of its caller and of whatever else
    // stands in the pipeline. By user: the kernel keeps that to the pid namespace; this does not rest on it.
    Entry {
        name: "floor:priority-of-others",
        calls: &[nr::setpriority],
        says: Says::Not(&[&[(0, Is::In(&[1, 2]))]]), // PRIO_PGRP, PRIO_USER
    },
    Entry {
        name: "floor:priority-of-others",
        calls: &[nr::ioprio_set],
        says: Says::Not(&[&[(0, Is::In(&[2, 3]))]]), // IOPRIO_WHO_PGRP, IOPRIO_WHO_USER
    },
    Entry {
        name: "floor:priority-of-others",
        calls: &[nr::prctl],
        says: Says::Not(&[&[(0, Is::Equal(62))]]), // PR_SCHED_CORE, which takes a process group
    },
    // Another listener would answer calls in the supervisor's place. The kernel takes one a chain; this does not rest on it.
    // SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
    Entry {
        name: "floor:seccomp-listener",
        calls: &[nr::seccomp],
        says: Says::Not(&[&[(1, Is::AnyBit(0x28))]]),
    },
    // A set-id file left behind hands its owner's rights to whoever runs it outside.
    Entry {
        name: "floor:set-id",
        calls: &[nr::chmod, nr::fchmod, nr::creat, nr::mknod],
        says: Says::Not(&[&[(1, Is::AnyModeBit(SET_ID))]]),
    },
    Entry {
        name: "floor:set-id",
        calls: &[nr::fchmodat, nr::fchmodat2, nr::mknodat],
        says: Says::Not(&[&[(2, Is::AnyModeBit(SET_ID))]]),
    },
    Entry {
        name: "floor:set-id",
        calls: &[nr::open],
        says: Says::Not(&[&[(1, Is::AnyBit(CREATES)), (2, Is::AnyModeBit(SET_ID))]]),
    },
    Entry {
        name: "floor:set-id",
        calls: &[nr::openat],
        says: Says::Not(&[&[(2, Is::AnyBit(CREATES)), (3, Is::AnyModeBit(SET_ID))]]),
    },
];

/// The socket options that are known to lead nowhere else: level, then options. Options of any other level stay closed, and
/// so do, of these levels: another way out (SO_BINDTODEVICE, SO_BINDTOIFINDEX, SO_MARK, SO_DONTROUTE, IP_UNICAST_IF,
/// IPV6_PKTINFO, IPV6_NEXTHOP), another source (IP_TRANSPARENT, IP_FREEBIND), routes and headers of one's own (IP_OPTIONS,
/// IP_HDRINCL, IPV6_RTHDR, IPV6_HOPOPTS, IPV6_DSTOPTS and their RFC 2292 forms, flow labels, which carry such options),
/// multicast and anycast joins, programs in the kernel (SO_ATTACH_*, TCP_ULP, UDP_ENCAP) and taking those away, connections
/// without connect (TCP_FASTOPEN*, TCP_REPAIR*), keys (TCP_MD5SIG*, TCP_AO_*), other families (IPV6_ADDRFORM), the packet
/// filter's (64 and above of IP, 64, 65 and 80 of IPv6), and SO_RCVMARK, which tells the host's marks.
const SOCKET_OPTIONS: &[Pattern] = &[
    // SOL_SOCKET: REUSEADDR BROADCAST SNDBUF RCVBUF KEEPALIVE OOBINLINE NO_CHECK PRIORITY LINGER BSDCOMPAT REUSEPORT PASSCRED,
    // RCVLOWAT SNDLOWAT RCVTIMEO SNDTIMEO TIMESTAMP PASSSEC TIMESTAMPNS TIMESTAMPING RXQ_OVFL PEEK_OFF SELECT_ERR_QUEUE,
    // MAX_PACING_RATE INCOMING_CPU ZEROCOPY; TIMESTAMP TIMESTAMPNS TIMESTAMPING RCVTIMEO SNDTIMEO in their newer layouts;
    // BUF_LOCK TXREHASH PASSPIDFD RCVPRIORITY PASSRIGHTS INQ.
    &[
        (1, Is::Equal(1)),
        (
            2,
            Is::In(&[
                2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 29, 34, 35, 37, 40, 42, 45, 47, 49, 60, 63,
                64, 65, 66, 67, 72, 74, 76, 82, 83, 84,
            ]),
        ),
    ],
    // SOL_TCP: NODELAY MAXSEG CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT WINDOW_CLAMP QUICKACK CONGESTION,
    // THIN_LINEAR_TIMEOUTS THIN_DUPACK USER_TIMEOUT NOTSENT_LOWAT SAVE_SYN INQ TX_DELAY RTO_MAX_MS RTO_MIN_US DELACK_MAX_US.
    &[
        (1, Is::Equal(6)),
        (
            2,
            Is::In(&[
                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 17, 18, 25, 27, 36, 37, 44, 45, 46,
            ]),
        ),
    ],
    // SOL_UDP: CORK NO_CHECK6_TX NO_CHECK6_RX SEGMENT GRO.
    &[(1, Is::Equal(17)), (2, Is::In(&[1, 101, 102, 103, 104]))],
    // SOL_IP: TOS TTL RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS PASSSEC RECVORIGDSTADDR MINTTL CHECKSUM,
    // BIND_ADDRESS_NO_PORT RECVFRAGSIZE RECVERR_RFC4884 MULTICAST_TTL MULTICAST_LOOP MULTICAST_ALL LOCAL_PORT_RANGE. Java sets
    // those of multicast on every UDP socket; a multicast destination needs a rule all the same.
    &[
        (1, Is::Equal(0)),
        (
            2,
            Is::In(&[
                1, 2, 6, 7, 8, 10, 11, 12, 13, 18, 20, 21, 23, 24, 25, 26, 33, 34, 49, 51,
            ]),
        ),
    ],
    // SOL_IPV6: UNICAST_HOPS MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER MTU RECVERR V6ONLY MULTICAST_ALL RECVERR_RFC4884,
    // RECVPKTINFO RECVHOPLIMIT RECVHOPOPTS RECVRTHDR RECVDSTOPTS RECVPATHMTU DONTFRAG RECVTCLASS TCLASS AUTOFLOWLABEL,
    // ADDR_PREFERENCES MINHOPCOUNT RECVORIGDSTADDR RECVFRAGSIZE.
    &[
        (1, Is::Equal(41)),
        (
            2,
            Is::In(&[
                16, 18, 19, 23, 24, 25, 26, 29, 31, 49, 51, 53, 56, 58, 60, 62, 66, 67, 70, 72, 73, 74, 77,
            ]),
        ),
    ],
];

/// The id of what the list does not speak of. No verdict names it, a trace may.
const OPEN: &str = "floor:open";

/// The first reference that stands for an entry of the floor, not for a rule of a policy. References from here up to, but
/// without, `u32::MAX` are the floor's; a policy's own are below [`RULES_MAX`](crate::RULES_MAX) for each of its layers.
pub const FLOOR_RULE_FIRST: u32 = u32::MAX - 256;

/// The stable id of an entry of the floor, such as `floor:tcp-fast-open`; `None` for a rule of a policy.
///
/// Once shipped, an id never changes its meaning.
#[must_use]
pub fn floor_rule_name(rule: RuleRef) -> Option<&'static str> {
    let at = usize::try_from(rule.0.checked_sub(FLOOR_RULE_FIRST)?).ok()?;
    match at.checked_sub(1) {
        None => Some(OPEN),
        Some(at) => ENTRIES.get(at).map(|entry| entry.name),
    }
}

fn rule_of(place: usize) -> RuleRef {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    RuleRef(FLOOR_RULE_FIRST.saturating_add(place).min(u32::MAX - 1))
}

/// The profile that is judged under every policy: put it last, so that a policy's own rule is the one that a reader is told.
///
/// Calls that it does not speak of are allowed without a look at their arguments, so they stay in the kernel's map of calls
/// that are always allowed.
#[must_use]
pub fn floor() -> Profile {
    let mut profile = Profile::default();
    let mut spoken_of: Vec<u32> = Vec::new();
    for (entry, place) in ENTRIES.iter().zip(1..) {
        for number in entry.calls.iter().copied().filter(|number| *number != syscall::ABSENT) {
            entry.add(number, rule_of(place), &mut profile);
            if !matches!(entry.says, Says::Not(_)) {
                spoken_of.push(number);
            }
        }
    }
    let others = syscall::all().filter_map(syscall::Syscall::number);
    for number in others.filter(|number| !spoken_of.contains(number)) {
        profile.rules.push(SyscallRule {
            number,
            effect: Effect::Allow,
            errno: Errno::EPERM,
            conditions: Vec::new(),
            rule: rule_of(0),
        });
    }
    profile.rules.sort_by_key(|rule| rule.number);
    profile.probed.sort_unstable();
    profile
}

impl Entry {
    fn add(&self, number: u32, rule: RuleRef, profile: &mut Profile) {
        let mut add = |effect, errno, pattern: Pattern| {
            profile.rules.push(SyscallRule {
                number,
                effect,
                errno,
                conditions: pattern.iter().map(condition).collect(),
                rule,
            });
        };
        match &self.says {
            Says::Closed => add(Effect::Deny, Errno::EPERM, &[]),
            Says::Not(patterns) => patterns.iter().for_each(|one| add(Effect::Deny, Errno::EPERM, one)),
            Says::Only(patterns) => patterns.iter().for_each(|one| add(Effect::Allow, Errno::EPERM, one)),
            Says::Probed => profile.probed.push(number),
        }
    }
}

fn condition((index, is): &(u8, Is)) -> Condition {
    let (width, test) = match is {
        Is::AnyBit(bits) => (Width::W32, ArgTest::AnyBit(*bits)),
        Is::AnyModeBit(bits) => (Width::W16, ArgTest::AnyBit(*bits)),
        Is::AnyLongBit(bits) => (Width::W64, ArgTest::AnyBit(*bits)),
        Is::In(values) => (Width::W32, ArgTest::OneOf(values.to_vec())),
        Is::Equal(value) => (Width::W32, ArgTest::Equal(*value)),
        Is::Range(first, last) => (
            Width::W32,
            ArgTest::Range {
                first: *first,
                last: *last,
            },
        ),
    };
    Condition::Arg {
        index: *index,
        width,
        test,
    }
}
