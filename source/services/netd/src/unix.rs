//! Unix sockets: judged by where they are, acted on from inside.

use crate::caller::Caller;
use crate::side::Side;
use crate::taken::Taken;
use crate::{Answer, Denial, Netd, Outcome, Stop};
use nexus_abi::{Errno, Operation, Reason};
use nexus_net_egress::sockaddr::{self, SockAddr, UnixAddr};
use nexus_sys::seccomp::Notification;
use nexus_wire::broker::{Request, UnixAction};
use nexus_wire::packet::PacketSocket;
use std::os::fd::AsFd;

/// The view decides which paths there are and the network namespace which abstract names; init walks the path as the
/// program would. What is not in one of the subject's areas belongs to the host and needs a rule.
pub(crate) fn run(
    netd: &mut Netd,
    call: &Notification,
    socket: Taken,
    action: UnixAction,
    address: Vec<u8>,
) -> Outcome {
    let object = match action {
        UnixAction::Listen(_) => String::new(),
        UnixAction::Connect | UnixAction::Bind => match sockaddr::parse(&address)? {
            SockAddr::Unix(name) => describe(&name),
            SockAddr::Unspec { .. } if action == UnixAction::Connect => "unspecified".to_owned(),
            _ => return Err(Errno::EINVAL.into()),
        },
    };
    let denial = Denial {
        operation: Operation::Connect,
        object,
        reason: Reason::IpcNoRule,
        errno: Errno::EPERM,
        rule: None,
    };
    // One that was handed in from outside: an abstract name means the host's to it.
    if netd.sides.of(&socket)? == Side::Host {
        return Err(Stop::Denied(denial));
    }
    let caller = Caller::of(call, &netd.listener);
    let directory = caller.directory()?;
    let umask = if action == UnixAction::Bind { caller.umask()? } else { 0 };
    let (ours, theirs) = PacketSocket::pair()?;
    let request = Request::Unix { action, umask, address };
    netd.broker
        .ask(&request, &[socket.as_fd(), directory.as_fd(), theirs.as_fd()])?;
    netd.workers.unix(call, action, ours, denial).map_err(Stop::from)?;
    Ok(Answer::Later)
}

fn describe(name: &UnixAddr) -> String {
    match name {
        UnixAddr::Unnamed => "unix unnamed".to_owned(),
        UnixAddr::Path(path) => format!("unix {}", String::from_utf8_lossy(path)),
        UnixAddr::Abstract(name) => format!("unix @{}", String::from_utf8_lossy(name)),
    }
}
