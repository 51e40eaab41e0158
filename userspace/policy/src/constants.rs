//! Names of the integers that syscall rules compare with, where the integer says nothing to a reader.

/// Sorted by name; the numbers are those of x86-64, arm64 and riscv64, which share them.
static CONSTANTS: &[(&str, u64)] = &[
    // bits/socket.h
    ("AF_ALG", 38),
    ("AF_INET", 2),
    ("AF_INET6", 10),
    ("AF_NETLINK", 16),
    ("AF_PACKET", 17),
    ("AF_UNIX", 1),
    ("AF_VSOCK", 40),
    // linux/sched.h
    ("CLONE_FILES", 0x400),
    ("CLONE_FS", 0x200),
    ("CLONE_NEWCGROUP", 0x0200_0000),
    ("CLONE_NEWIPC", 0x0800_0000),
    ("CLONE_NEWNET", 0x4000_0000),
    ("CLONE_NEWNS", 0x0002_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWTIME", 0x80),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWUTS", 0x0400_0000),
    ("CLONE_PARENT", 0x8000),
    ("CLONE_SYSVSEM", 0x0004_0000),
    ("CLONE_THREAD", 0x0001_0000),
    ("CLONE_UNTRACED", 0x0080_0000),
    ("CLONE_VM", 0x100),
    // linux/fcntl.h
    ("F_DUPFD", 0),
    ("F_DUPFD_CLOEXEC", 1030),
    ("F_GETFD", 1),
    ("F_GETFL", 3),
    ("F_SETFD", 2),
    ("F_SETFL", 4),
    ("F_SETOWN", 8),
    ("F_SETSIG", 10),
    // asm-generic/ioctls.h
    ("FIOASYNC", 0x5452),
    ("FIOCLEX", 0x5451),
    ("FIONBIO", 0x5421),
    ("FIONCLEX", 0x5450),
    ("FIONREAD", 0x541b),
    // linux/in.h, linux/in6.h
    ("IPPROTO_ICMP", 1),
    ("IPPROTO_ICMPV6", 58),
    ("IPPROTO_IP", 0),
    ("IPPROTO_IPV6", 41),
    ("IPPROTO_MPTCP", 262),
    ("IPPROTO_RAW", 255),
    ("IPPROTO_SCTP", 132),
    ("IPPROTO_TCP", 6),
    ("IPPROTO_UDP", 17),
    // asm-generic/mman.h
    ("MAP_32BIT", 0x40),
    ("MAP_ANONYMOUS", 0x20),
    ("MAP_FIXED", 0x10),
    ("MAP_SHARED", 1),
    // linux/memfd.h
    ("MFD_ALLOW_SEALING", 2),
    ("MFD_CLOEXEC", 1),
    ("MFD_EXEC", 0x10),
    ("MFD_HUGETLB", 4),
    ("MFD_NOEXEC_SEAL", 8),
    // linux/socket.h
    ("MSG_FASTOPEN", 0x2000_0000),
    // linux/personality.h
    ("PER_LINUX", 0),
    // linux/prctl.h
    ("PR_CAPBSET_READ", 23),
    ("PR_GET_DUMPABLE", 3),
    ("PR_GET_NAME", 16),
    ("PR_GET_NO_NEW_PRIVS", 39),
    ("PR_GET_PDEATHSIG", 2),
    ("PR_GET_SECCOMP", 21),
    ("PR_SET_DUMPABLE", 4),
    ("PR_SET_MM", 35),
    ("PR_SET_NAME", 15),
    ("PR_SET_NO_NEW_PRIVS", 38),
    ("PR_SET_PDEATHSIG", 1),
    ("PR_SET_PTRACER", 0x5961_6d61),
    ("PR_SET_SECCOMP", 22),
    ("PR_SET_TIMERSLACK", 29),
    ("PR_SET_VMA", 0x5356_4d41),
    // bits/mman-linux.h
    ("PROT_EXEC", 4),
    ("PROT_READ", 1),
    ("PROT_WRITE", 2),
    // linux/net.h
    ("SOCK_CLOEXEC", 0x0008_0000),
    ("SOCK_DGRAM", 2),
    ("SOCK_NONBLOCK", 0x800),
    ("SOCK_RAW", 3),
    ("SOCK_SEQPACKET", 5),
    ("SOCK_STREAM", 1),
    // asm-generic/socket.h, linux/tcp.h, linux/in.h
    ("SOL_IP", 0),
    ("SOL_IPV6", 41),
    ("SOL_SOCKET", 1),
    ("SOL_TCP", 6),
    ("SOL_UDP", 17),
    ("SO_BINDTODEVICE", 25),
    ("SO_MARK", 36),
    ("TCP_FASTOPEN", 23),
    ("TCP_FASTOPEN_CONNECT", 30),
    // asm-generic/ioctls.h
    ("TCGETS", 0x5401),
    ("TCSETS", 0x5402),
    ("TCSETSF", 0x5404),
    ("TCSETSW", 0x5403),
    ("TIOCGPGRP", 0x540f),
    ("TIOCGWINSZ", 0x5413),
    ("TIOCLINUX", 0x541c),
    ("TIOCSCTTY", 0x540e),
    ("TIOCSPGRP", 0x5410),
    ("TIOCSTI", 0x5412),
    ("TIOCSWINSZ", 0x5414),
];

/// The integer of a name.
pub(crate) fn constant(name: &str) -> Option<u64> {
    CONSTANTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// Every name with its integer, sorted by name.
pub fn constants() -> impl Iterator<Item = (&'static str, u64)> {
    CONSTANTS.iter().copied()
}

/// Every name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CONSTANTS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_there_once() {
        for name in names() {
            assert_eq!(names().filter(|other| *other == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_c_headers() {
        assert_eq!(constant("TIOCSTI"), Some(0x5412));
        assert_eq!(constant("AF_INET6"), Some(10));
        assert_eq!(constant("TIOCST"), None);
    }
}
