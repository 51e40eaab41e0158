//! socket(2)

use crate::{Answer, Netd, Outcome, int};
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use rustix::net::SocketFlags;

/// Only what the filter was told to hand over comes here: sockets of the internet, for a subject that has somewhere to go
/// with them.
pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [domain, kind, protocol, ..] = call.args;
    let kind = int(kind);
    let fd = sys::socket(int(domain), kind, int(protocol))?;
    netd.made(&fd, int(domain), kind, int(protocol));
    let cloexec = SocketFlags::from_bits_retain(kind.cast_unsigned()).contains(SocketFlags::CLOEXEC);
    Ok(Answer::Descriptor { fd, cloexec })
}
