//! setsockopt(2) with `SO_REUSEADDR` or `SO_REUSEPORT`: who may have a socket's port as well. socket(7)
//!
//! The kernel gives a datagram for a port that two sockets share to one of them, and the program can see to it that it is its own. So
//! a port on the host that no rule gives is nobody else's, and stays so.

use crate::caller::Caller;
use crate::local::{SHARING, SOL_SOCKET, address_of};
use crate::side::Side;
use crate::{Answer, Denial, Netd, Outcome, Stop, int};
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;

pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [fd, level, name, pointer, length, ..] = call.args;
    let (level, name) = (int(level), int(name));
    if level != SOL_SOCKET || !SHARING.contains(&name) {
        return Err(Errno::EPERM.into());
    }
    let caller = Caller::of(call, &netd.listener);
    let value = value(&caller, pointer, int(length));
    let socket = caller.take(fd)?;
    caller.still()?;
    let traits = netd.traits(&socket)?;
    let value = value?;
    if value != 0 && traits.protocol == Some(Protocol::Udp) && traits.side == Side::Host {
        // Without a port it is set, and taken back before it gets one.
        let bound = address_of(&socket).filter(|bound| bound.port() != 0);
        if let Some(bound) = bound.filter(|bound| !netd.judges.egress.allows_bind(Protocol::Udp, bound.port())) {
            return Err(Stop::Denied(Denial {
                operation: Operation::Bind,
                object: format!("udp {bound}, shared"),
                reason: Reason::EgressNoRule,
                errno: Errno::EPERM,
                rule: netd.judges.egress.bind_rule_missing(),
            }));
        }
    }
    sys::set_int_option(&socket, level, name, value)?;
    Ok(Answer::Value(0))
}

/// What the kernel would read (`sk_setsockopt`): an `int`, whatever follows it.
fn value(caller: &Caller<'_>, pointer: u64, length: i32) -> Result<i32, Stop> {
    let whole = usize::try_from(length).is_ok_and(|length| length >= size_of::<i32>());
    if !whole {
        return Err(Errno::EINVAL.into());
    }
    let bytes = caller.bytes(pointer, size_of::<i32>())?;
    let bytes = bytes.try_into().map_err(|_| Errno::EFAULT)?;
    Ok(i32::from_ne_bytes(bytes))
}
