//! setsockopt(2) with `SO_REUSEADDR` or `SO_REUSEPORT`: who may have a socket's port as well. socket(7)
//!
//! The kernel gives a datagram for a port that two sockets share to one of them, and the program can see to it that it is its own. So
//! a port on the host that no rule gives is nobody else's, and stays so: no datagram socket there has the option but at a port that a rule gives. Also
//! not before it has one, for a write lets the kernel bind it, and nobody is asked.

use crate::caller::Caller;
use crate::local::{SHARING, SOL_SOCKET, address_of};
use crate::side::{Address, Move, Side, swap};
use crate::{Answer, Denial, Netd, Outcome, Stop, int};
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use std::net::SocketAddr;

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
    let of_host = traits.protocol == Some(Protocol::Udp) && traits.side == Side::Host;
    let socket = if value != 0 && of_host {
        match address_of(&socket).filter(|bound| bound.port() != 0) {
            Some(bound) if netd.judges.egress.allows_bind(Protocol::Udp, bound.port()) => socket,
            Some(bound) => return Err(denied(netd, bound)),
            // It gets its port on the host without the option, if it ever goes there.
            None => {
                let how = Move {
                    protocol: Protocol::Udp,
                    to: Side::Inside,
                    address: Address::Kept,
                };
                swap(netd, call, fd, &socket, how)?.into()
            }
        }
    } else {
        socket
    };
    sys::set_int_option(&socket, level, name, value)?;
    Ok(Answer::Value(0))
}

fn denied(netd: &Netd, bound: SocketAddr) -> Stop {
    Stop::Denied(Denial {
        operation: Operation::Bind,
        object: format!("udp {bound}, shared"),
        reason: Reason::EgressNoRule,
        errno: Errno::EPERM,
        rule: netd.judges.egress.bind_rule_missing(),
    })
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
