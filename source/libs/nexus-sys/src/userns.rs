//! A user namespace of one's own, and the identity maps that make it usable. user_namespaces(7).

use std::fmt::Write as _;
use std::io;

/// `unshare(CLONE_NEWUSER | CLONE_NEWNS)` unshare(2), Linux 3.8 without privilege: from here on this process has every
/// capability over its own mounts and over files of mapped owners, and none over the host.
///
/// # Errors
/// `EPERM` where the host forbids user namespaces, `ENOSPC` or `EUSERS` past its limit, `EINVAL` with several threads.
pub fn unshare_user_and_mounts() -> io::Result<()> {
    // SAFETY: the flags do not hold CLONE_FILES, so no thread is left with another table of descriptors than it was
    // given; the kernel refuses CLONE_NEWUSER to a process with several threads.
    let result = unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNS)
    };
    result.map_err(io::Error::from)
}

/// `unshare(CLONE_NEWNET)` unshare(2), with `CLONE_NEWUSER` before it where `user` says so: a network namespace that leads
/// nowhere. Without a user namespace of one's own it takes `CAP_SYS_ADMIN`.
///
/// # Errors
/// As [`unshare_user_and_mounts`]; `ENOSPC` past the limit of network namespaces.
pub fn unshare_network(user: bool) -> io::Result<()> {
    let flags = if user {
        rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNET
    } else {
        rustix::thread::UnshareFlags::NEWNET
    };
    // SAFETY: the flags do not hold CLONE_FILES, so no thread is left with another table of descriptors than it was
    // given; the kernel refuses CLONE_NEWUSER to a process with several threads.
    let result = unsafe { rustix::thread::unshare_unsafe(flags) };
    result.map_err(io::Error::from)
}

/// Maps the caller's own user and group to themselves in its new namespace: `/proc/self/{setgroups,uid_map,gid_map}`.
///
/// `uid` and `gid` are those that the caller had before it entered the namespace.
///
/// # Errors
/// `EPERM` if they are not the caller's, or if maps were written before.
pub fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
}

/// Maps several users and groups to themselves in the new namespace of the process `pid`, a child of a caller with
/// `CAP_SETUID` and `CAP_SETGID`: `/proc/PID/{uid_map,gid_map}`.
///
/// # Errors
/// `EPERM` without the capabilities, `EINVAL` for an empty or a doubled identity.
pub fn map_child(pid: i32, uids: &[u32], gids: &[u32]) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/uid_map"), identities(uids))?;
    std::fs::write(format!("/proc/{pid}/gid_map"), identities(gids))
}

// One write, because the kernel takes a map only once.
fn identities(ids: &[u32]) -> String {
    let mut map = String::new();
    for id in ids {
        // Writing to a string cannot fail.
        let _ = writeln!(map, "{id} {id} 1");
    }
    map
}
