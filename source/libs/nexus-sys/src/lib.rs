//! The kernel interfaces that nexus uses and that no kept library wraps, and the only crate with unsafe code.
//!
//! Each function's first line is the C call; each names its man page and the kernel version that brought it. Nothing
//! here decides anything: a verdict is made elsewhere and carried out here.

pub mod apart;
pub mod counters;
pub mod epoll;
pub mod heap;
pub mod hurry;
pub mod interface;
pub mod keyring;
pub mod memory;
pub mod message;
pub mod mount;
pub mod probe;
pub mod process;
pub mod procfs;
pub mod ptrace;
pub mod schedule;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod stdio;
pub mod userns;

use std::io;

/// The result of a raw syscall, as `io::Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
