//! ioctl(2) with a question about interfaces: netdevice(7).
//!
//! On a socket that lives on the host the kernel would tell of the host. It is asked here on a socket of the program's own
//! network, wherever the program's lives, and what it says is copied.

use crate::caller::Caller;
use crate::{Answer, Netd, Outcome, Stop, int};
use nexus_abi::Errno;
use nexus_abi_policy::INTERFACE_QUESTIONS;
use nexus_sys::interface::{self, REQUEST_BYTES};
use nexus_sys::memory;
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;

/// `SIOCGIFCONF`
const LIST: u32 = 0x8912;

/// `struct ifconf`: a length, and where the list goes.
const LIST_HEADER_BYTES: usize = 16;
const POINTER_AT: usize = 8;

/// The longest list that is asked for: the session's own network has the loopback.
const LIST_BYTES_MAX: usize = 64 * REQUEST_BYTES;

pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [fd, command, pointer, ..] = call.args;
    let command = int(command).cast_unsigned();
    if !INTERFACE_QUESTIONS.contains(&u64::from(command)) {
        return Err(Errno::EPERM.into());
    }
    let caller = Caller::of(call, &netd.listener);
    let socket = caller.take(fd)?;
    // Anything else has no such questions.
    sys::domain(&socket).map_err(|_| Errno::ENOTTY)?;
    if command == LIST {
        let header = caller.bytes(pointer, LIST_HEADER_BYTES)?;
        let half = |at: usize| {
            header
                .get(at..)
                .and_then(|rest| rest.first_chunk::<8>())
                .copied()
                .unwrap_or_default()
        };
        // Not looked at by who only wants to know how much room it takes; no room at all where it is below 0.
        let [a, b, c, d, ..] = half(0);
        let room = usize::try_from(i32::from_ne_bytes([a, b, c, d])).unwrap_or(0);
        let to = u64::from_ne_bytes(half(POINTER_AT));
        let mut list = vec![0; LIST_BYTES_MAX];
        let length = interface::list(&netd.inside, &mut list)?;
        list.truncate(length);
        if to != 0 {
            // As many whole entries as there is room for.
            list.truncate(room.min(length) / REQUEST_BYTES * REQUEST_BYTES);
            tell(&caller, to, &list)?;
        }
        let told = i32::try_from(list.len()).map_err(|_| Errno::EINVAL)?;
        tell(&caller, pointer, &told.to_ne_bytes())?;
        return Ok(Answer::Value(0));
    }
    let mut request: [u8; REQUEST_BYTES] = caller
        .bytes(pointer, REQUEST_BYTES)?
        .try_into()
        .map_err(|_| Errno::EFAULT)?;
    interface::ask(&netd.inside, command, &mut request)?;
    tell(&caller, pointer, &request)?;
    Ok(Answer::Value(0))
}

fn tell(caller: &Caller<'_>, at: u64, bytes: &[u8]) -> Result<(), Stop> {
    caller.still()?;
    if !bytes.is_empty() && memory::write(caller.tid(), at, bytes)? != bytes.len() {
        return Err(Errno::EFAULT.into());
    }
    Ok(())
}
