//! socket(2)

use crate::{Answer, Netd, Outcome, int};
use nexus_abi::Protocol;
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use rustix::net::{SocketFlags, SocketType, ipproto};

/// Only what the filter was told to hand over comes here: sockets of the internet, for a subject that has somewhere to go
/// with them, and everybody's for MPTCP.
pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [domain, kind, protocol, ..] = call.args;
    let (domain, kind, protocol) = (int(domain), int(kind), as_made(int(protocol)));
    let fd = if leads_out(netd, kind) {
        let fd = sys::socket(domain, kind, protocol)?;
        netd.made(&fd, domain, kind, protocol);
        fd
    } else {
        netd.broker.socket(domain, kind, protocol)?
    };
    let cloexec = SocketFlags::from_bits_retain(kind.cast_unsigned()).contains(SocketFlags::CLOEXEC);
    Ok(Answer::Descriptor { fd, cloexec })
}

/// TCP for MPTCP, which falls back to it by itself where the other side has none (RFC 8684): an MPTCP peer names further
/// addresses, to which the kernel connects and nobody is asked.
fn as_made(protocol: i32) -> i32 {
    let is = |known: rustix::net::Protocol| protocol.cast_unsigned() == known.as_raw().get();
    if is(ipproto::MPTCP) {
        ipproto::TCP.as_raw().get().cast_signed()
    } else {
        protocol
    }
}

/// Whether an outside rule speaks of what this type of socket carries.
fn leads_out(netd: &Netd, kind: i32) -> bool {
    const FLAGS: u32 = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK).bits();
    let protocol = match SocketType::from_raw(kind.cast_unsigned() & !FLAGS) {
        SocketType::STREAM => Protocol::Tcp,
        SocketType::DGRAM => Protocol::Udp,
        _ => return false,
    };
    netd.judges.egress.opens(protocol)
}

#[cfg(test)]
mod tests {
    use super::as_made;

    #[test]
    fn mptcp_is_made_as_tcp_and_its_neighbours_as_they_are() {
        assert_eq!(as_made(262), 6);
        for protocol in [0, 6, 17, 261, 263, -1] {
            assert_eq!(as_made(protocol), protocol);
        }
    }
}
