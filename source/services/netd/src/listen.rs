//! listen(2)

use crate::caller::Caller;
use crate::connect::is;
use crate::side::{Address, Move, Side, swap};
use crate::{Answer, Netd, Outcome, int, unix};
use nexus_abi::{Errno, Protocol};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use nexus_wire::broker::UnixAction;
use rustix::net::{AddressFamily, SocketType};

/// A socket that lives on the host never listens there: one without a peer moves inside first, one with a peer gets the
/// answer that Linux has for it.
pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [fd, backlog, ..] = call.args;
    let backlog = int(backlog);
    let caller = Caller::of(call, &netd.listener);
    let socket = caller.take(fd)?;
    caller.still()?;
    let domain = sys::domain(&socket)?;
    if is(domain, AddressFamily::UNIX) {
        return unix::run(netd, call, socket, UnixAction::Listen(backlog), Vec::new());
    }
    if sys::kind(&socket)?.cast_unsigned() != SocketType::STREAM.as_raw() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let socket = match netd.sides.of(&socket)? {
        Side::Inside => socket,
        Side::Host if !sys::is_tcp_closed(&socket)? => return Err(Errno::EINVAL.into()),
        Side::Host => {
            let how = Move {
                protocol: Protocol::Tcp,
                to: Side::Inside,
                address: Address::Kept,
            };
            swap(netd, call, fd, &socket, how)?.into()
        }
    };
    sys::listen(&socket, backlog)?;
    Ok(Answer::Value(0))
}
