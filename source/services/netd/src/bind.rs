//! bind(2)

use crate::caller::Caller;
use crate::connect::{family_denied, is, protocol_of};
use crate::side::{Side, swap};
use crate::{Answer, Netd, Outcome, unix};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use nexus_wire::broker::UnixAction;
use rustix::net::AddressFamily;

/// A local address is always one of the program's own network namespace: nothing listens on the host.
pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [fd, pointer, length, ..] = call.args;
    let caller = Caller::of(call, &netd.listener);
    let socket = caller.take(fd)?;
    let domain = sys::domain(&socket)?;
    let bytes = caller.address(pointer, length)?;
    if is(domain, AddressFamily::UNIX) {
        return unix::run(netd, call, socket, UnixAction::Bind, bytes);
    }
    if protocol_of(&socket, domain)?.is_none() {
        return Err(family_denied(domain));
    }
    let socket = match netd.sides.of(&socket)? {
        Side::Inside => socket,
        Side::Host => swap(netd, call, fd, &socket, Side::Inside)?,
    };
    sys::bind(&socket, &bytes)?;
    Ok(Answer::Value(0))
}
