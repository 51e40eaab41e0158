//! Named groups of calls, with systemd's names and membership (systemd.exec(5), "System Call Filtering";
//! `systemd-analyze syscall-filter` prints its own).
//!
//! Membership is systemd 252's, as far as the calls exist on a 64-bit kernel, with calls that came later put beside
//! their kin: futex's successors, `mseal` and `uprobe` in `@default`, the `*xattrat` and `file_*attr` calls in
//! `@file-system`, `open_tree_attr` in `@mount`, and the group `@sandbox`. `open_tree` stays in `@mount`, although
//! systemd 258 moved it to `@file-system`: with one flag more it copies mounts.

use super::{NUMBERS_MAX, table::nr};

/// A named group of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name, with its `@`.
    pub name: &'static str,
    /// What the group is for, one sentence.
    pub about: &'static str,
    /// The numbers of its calls on this architecture, those of nested groups included; sorted, no duplicates.
    pub numbers: &'static [u32],
}

macro_rules! groups {
    ($(#[doc = $about:literal] $id:ident = $name:literal: [$($inner:ident),*] + [$($call:ident)*];)*) => {
        $(
            const $id: &[u32] = {
                const PARTS: &[&[u32]] = &[$($inner,)* &[$(nr::$call),*]];
                const MEMBERS: [u32; count(PARTS)] = members(PARTS);
                &MEMBERS
            };
        )*

        pub(super) static GROUPS: &[Group] =
            &[$(Group { name: $name, about: $about.trim_ascii(), numbers: $id }),*];
    };
}

/// Whether a number is in one of the parts.
const fn contains(mut parts: &[&[u32]], number: u32) -> bool {
    while let [part, others @ ..] = parts {
        let mut part: &[u32] = part;
        while let [first, rest @ ..] = part {
            if *first == number {
                return true;
            }
            part = rest;
        }
        parts = others;
    }
    false
}

/// How many different calls of this architecture the parts hold.
const fn count(parts: &[&[u32]]) -> usize {
    let mut count: usize = 0;
    let mut number: u32 = 0;
    while number < NUMBERS_MAX {
        if contains(parts, number) {
            count = count.saturating_add(1);
        }
        number = number.saturating_add(1);
    }
    count
}

/// The calls of this architecture that the parts hold, sorted, each once.
const fn members<const N: usize>(parts: &[&[u32]]) -> [u32; N] {
    let mut members = [0; N];
    let mut free: &mut [u32] = &mut members;
    let mut number: u32 = 0;
    while number < NUMBERS_MAX {
        if contains(parts, number) {
            let [slot, rest @ ..] = free else { break };
            *slot = number;
            free = rest;
        }
        number = number.saturating_add(1);
    }
    members
}

groups! {
    /// Asynchronous input and output: Linux AIO and io_uring.
    AIO = "@aio": [] + [
        io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit io_uring_enter io_uring_register
        io_uring_setup
    ];
    /// Reading, writing and seeking on open descriptors.
    BASIC_IO = "@basic-io": [] + [
        close close_range dup dup2 dup3 lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readv write
        writev
    ];
    /// Changing a file's owner.
    CHOWN = "@chown": [] + [
        chown fchown fchownat lchown
    ];
    /// Setting the system's clocks.
    CLOCK = "@clock": [] + [
        adjtimex clock_adjtime clock_settime settimeofday
    ];
    /// Emulating other processors.
    CPU_EMULATION = "@cpu-emulation": [] + [
        modify_ldt
    ];
    /// Tracing, profiling and taking descriptors from other processes.
    DEBUG = "@debug": [] + [
        lookup_dcookie perf_event_open pidfd_getfd ptrace
    ];
    /// What every program needs to run and end: clocks, its own identity, memory, futexes.
    DEFAULT = "@default": [] + [
        arch_prctl brk clock_getres clock_gettime clock_nanosleep execve exit exit_group futex futex_requeue
        futex_wait futex_waitv futex_wake get_robust_list get_thread_area getegid geteuid getgid getgroups
        getpgid getpgrp getpid getppid getrandom getresgid getresuid getrlimit getsid gettid gettimeofday getuid
        membarrier mmap mprotect mseal munmap nanosleep pause prlimit64 restart_syscall riscv_flush_icache
        riscv_hwprobe rseq rt_sigreturn sched_getaffinity sched_yield set_robust_list set_thread_area
        set_tid_address time uprobe uretprobe
    ];
    /// Opening, making, naming and describing files.
    FILE_SYSTEM = "@file-system": [] + [
        access chdir chmod close creat faccessat faccessat2 fallocate fchdir fchmod fchmodat fchmodat2
        fcntl fgetxattr file_getattr file_setattr flistxattr fremovexattr fsetxattr fstat fstatfs ftruncate
        futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
        inotify_rm_watch lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lsetxattr lstat
        mkdir mkdirat mknod mknodat newfstatat open openat openat2 readlink readlinkat removexattr removexattrat
        rename renameat renameat2 rmdir setxattr setxattrat stat statfs statx symlink symlinkat truncate unlink
        unlinkat utime utimensat utimes
    ];
    /// Waiting for descriptors.
    IO_EVENT = "@io-event": [] + [
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
        eventfd eventfd2 poll ppoll pselect6 select
    ];
    /// Pipes, SysV IPC, POSIX queues, memory of other processes.
    IPC = "@ipc": [] + [
        memfd_create mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv
        msgsnd pipe pipe2 process_madvise process_vm_readv process_vm_writev semctl semget semop semtimedop
        shmat shmctl shmdt shmget
    ];
    /// The kernel's key store.
    KEYRING = "@keyring": [] + [
        add_key keyctl request_key
    ];
    /// Pinning memory.
    MEMLOCK = "@memlock": [] + [
        mlock mlock2 mlockall munlock munlockall
    ];
    /// Kernel modules.
    MODULE = "@module": [] + [
        delete_module finit_module init_module
    ];
    /// The tree of mounts.
    MOUNT = "@mount": [] + [
        chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root
        umount2
    ];
    /// Sockets.
    NETWORK_IO = "@network-io": [] + [
        accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg
        sendmsg sendto setsockopt shutdown socket socketpair
    ];
    /// Calls that are gone or that nothing uses.
    OBSOLETE = "@obsolete": [] + [
        _sysctl afs_syscall create_module get_kernel_syms getpmsg putpmsg query_module security sysfs tuxcall
        uselib ustat vserver
    ];
    /// Memory protection keys.
    PKEY = "@pkey": [] + [
        pkey_alloc pkey_free pkey_mprotect
    ];
    /// Calls that need a capability.
    PRIVILEGED = "@privileged": [CHOWN, CLOCK, MODULE, RAW_IO, REBOOT, SWAP] + [
        _sysctl acct bpf capset chroot fanotify_init fanotify_mark nfsservctl open_by_handle_at pivot_root
        quotactl quotactl_fd setdomainname setfsuid setgroups sethostname setresuid setreuid setuid vhangup
    ];
    /// Making, waiting for, signalling and describing processes, and namespaces.
    PROCESS = "@process": [] + [
        capget clone clone3 execveat fork getrusage kill pidfd_open pidfd_send_signal prctl rt_sigqueueinfo
        rt_tgsigqueueinfo setns tgkill times tkill unshare vfork wait4 waitid
    ];
    /// Input and output ports.
    RAW_IO = "@raw-io": [] + [
        ioperm iopl
    ];
    /// Restarting, and loading another kernel.
    REBOOT = "@reboot": [] + [
        kexec_file_load kexec_load reboot
    ];
    /// Changing a process's share of the machine.
    RESOURCES = "@resources": [] + [
        ioprio_set mbind migrate_pages move_pages sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler set_mempolicy set_mempolicy_home_node setpriority setrlimit
    ];
    /// A program narrowing itself.
    SANDBOX = "@sandbox": [] + [
        landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
    ];
    /// Changing user and group ids.
    SETUID = "@setuid": [] + [
        setgid setgroups setregid setresgid setresuid setreuid setuid
    ];
    /// Signal handlers and masks.
    SIGNAL = "@signal": [] + [
        rt_sigaction rt_sigpending rt_sigprocmask rt_sigsuspend rt_sigtimedwait sigaltstack signalfd signalfd4
    ];
    /// Swap space.
    SWAP = "@swap": [] + [
        swapoff swapon
    ];
    /// Writing back to storage.
    SYNC = "@sync": [] + [
        fdatasync fsync msync sync sync_file_range syncfs
    ];
    /// What an ordinary service needs; wider than this project's own profile.
    SYSTEM_SERVICE = "@system-service": [AIO, BASIC_IO, CHOWN, DEFAULT, FILE_SYSTEM, IO_EVENT, IPC, KEYRING, MEMLOCK, NETWORK_IO, PROCESS, RESOURCES, SETUID, SIGNAL, SYNC, TIMER] + [
        capget capset copy_file_range fadvise64 flock get_mempolicy getcpu getpriority ioctl ioprio_get kcmp
        madvise mremap name_to_handle_at personality readahead remap_file_pages sched_get_priority_max
        sched_get_priority_min sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_yield
        sendfile setfsgid setfsuid setpgid setsid splice sysinfo tee umask uname userfaultfd vmsplice
    ];
    /// Timers and alarms.
    TIMER = "@timer": [] + [
        alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_settime
        timerfd_create timerfd_gettime timerfd_settime times
    ];
}
