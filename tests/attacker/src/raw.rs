//! Raw calls and how their answers are told.

use libc::c_long;

/// Tells the answer of a libc call: `result` below 0 means errno.
pub(crate) fn say(name: &str, result: impl Into<i64>) -> bool {
    let result = result.into();
    if result < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name} {}", errno_name(errno));
    } else {
        println!("{name} ok {result}");
    }
    result >= 0
}

/// The same for `std::io`.
pub(crate) fn say_io<T>(name: &str, result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => {
            println!("{name} ok 0");
            Some(value)
        }
        Err(error) => {
            println!(
                "{name} {}",
                error.raw_os_error().map_or_else(|| "EIO".to_owned(), errno_name)
            );
            None
        }
    }
}

/// A raw call with up to six arguments.
pub(crate) fn call(number: c_long, args: &[u64]) -> i64 {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    // SAFETY: an attack: whatever memory it names is this process's own, and the kernel checks it.
    unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) }
}

/// Tells what a raw call gives.
pub(crate) fn try_call(name: &str, number: c_long, args: &[u64]) -> i64 {
    let result = call(number, args);
    say(name, result);
    result
}

/// `int 0x80` on a 64-bit kernel: the 32-bit table, with 32-bit arguments. Sets errno as libc does.
#[cfg(target_arch = "x86_64")]
pub(crate) fn int80(number: u32, b: u32, c: u32, d: u32) -> i64 {
    int80_full(number, [b, c, d, 0, 0, 0])
}

/// The same with all six arguments.
#[cfg(target_arch = "x86_64")]
pub(crate) fn int80_full(number: u32, [b, c, d, si, di, bp]: [u32; 6]) -> i64 {
    let result: i32;
    // SAFETY: the call reads or writes memory below 4 GiB only where an argument names it; rbx and rbp, which the compiler
    // keeps for itself, are put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, r12",
            "xchg rbp, r13",
            "int 0x80",
            "xchg rbp, r13",
            "xchg rbx, r12",
            // By name: the compiler may not choose the very registers that they change places with.
            inout("r12") u64::from(b) => _,
            inout("r13") u64::from(bp) => _,
            inlateout("eax") number => result,
            in("ecx") c,
            in("edx") d,
            in("esi") si,
            in("edi") di,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if (-4095..0).contains(&result) {
        // SAFETY: errno is this thread's own.
        unsafe { *libc::__errno_location() = -result };
        return -1;
    }
    i64::from(result)
}

pub(crate) fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::E2BIG => "E2BIG",
        libc::ENOEXEC => "ENOEXEC",
        libc::EBADF => "EBADF",
        libc::ECHILD => "ECHILD",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::ENOTTY => "ENOTTY",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EPIPE => "EPIPE",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ELOOP => "ELOOP",
        libc::ENOTSOCK => "ENOTSOCK",
        libc::EDESTADDRREQ => "EDESTADDRREQ",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EPROTOTYPE => "EPROTOTYPE",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::ESOCKTNOSUPPORT => "ESOCKTNOSUPPORT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::ECONNRESET => "ECONNRESET",
        libc::EISCONN => "EISCONN",
        libc::ENOTCONN => "ENOTCONN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::EALREADY => "EALREADY",
        libc::EINPROGRESS => "EINPROGRESS",
        libc::ESTALE => "ESTALE",
        libc::EDQUOT => "EDQUOT",
        libc::EUSERS => "EUSERS",
        other => return format!("E{other}"),
    };
    name.to_owned()
}

/// A socket; the number, or below 0.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::socket(domain, kind, protocol) }
}

pub(crate) fn close(fd: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::close(fd) };
}

pub(crate) fn c(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

/// Ends this program unless a user namespace is around it: for what would reach all of a user's processes, or the machine.
pub(crate) fn only_confined() {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if map
        .split_ascii_whitespace()
        .nth(2)
        .is_none_or(|count| count == "4294967295")
    {
        eprintln!("attacker: this is tried in a sandbox only");
        std::process::exit(2);
    }
}
