//! memfd_create(2)

use crate::{Answer, Netd, Outcome, errno_of};
use nexus_abi::Errno;
use nexus_sys::seccomp::Notification;
use nexus_wire::broker::Request;
use std::os::fd::AsFd;

/// `MFD_CLOEXEC` and `MFD_EXEC` (linux/memfd.h): what a file in the session's bounded memory can be.
const CLOEXEC: u64 = 1;
const EXEC: u64 = 0x10;

/// Gives a file without a name in a tmpfs of the size that policy gives the session: what does not fit is `ENOSPC` at the
/// write, or `SIGBUS` at a mapping, as on any full tmpfs.
///
/// It cannot be sealed, which only the kernel's own unbounded memory files can: asking for that is `EINVAL`, as on a
/// kernel without it. The name is for debuggers and is not looked at.
pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [_, flags, ..] = call.args;
    // The kernel takes an unsigned int and refuses what it does not know in it.
    let flags = flags & u64::from(u32::MAX);
    if flags & !(CLOEXEC | EXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = netd.broker.ask_for_all(&Request::MemoryFile)?.pop().ok_or(Errno::EIO)?;
    let number = netd
        .listener
        .give_descriptor(call.id, file.as_fd(), flags & CLOEXEC != 0)
        .map_err(|error| errno_of(error.raw_os_error()))?;
    // Nobody but the program has it when it goes on: what it closes is free at once.
    drop(file);
    Ok(Answer::Value(number.into()))
}
