//! bind(2)

use crate::caller::Caller;
use crate::connect::{family_denied, is, protocol_of};
use crate::local::{address_of, bind_denied, bind_to, is_wildcard, plain};
use crate::route::{judge_local, judge_without_destination};
use crate::side::{Address, Move, Side, swap};
use crate::{Answer, Netd, Outcome, Stop, unix};
use nexus_abi::{Errno, Protocol};
use nexus_net_egress::sockaddr;
use nexus_sys::seccomp::Notification;
use nexus_sys::socket as sys;
use nexus_wire::broker::UnixAction;
use rustix::net::AddressFamily;
use std::net::SocketAddr;

/// A local address is one of the program's own network namespace, but where only the host's makes sense: an ephemeral port
/// to send from, and a port that a rule gives.
pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [fd, pointer, length, ..] = call.args;
    let caller = Caller::of(call, &netd.listener);
    let socket = caller.take(fd)?;
    let domain = sys::domain(&socket)?;
    let bytes = caller.address(pointer, length)?;
    caller.still()?;
    if is(domain, AddressFamily::UNIX) {
        judge_without_destination(netd, call, "unix")?;
        return unix::run(netd, call, socket, UnixAction::Bind, bytes);
    }
    let Some(protocol) = protocol_of(&socket, domain)? else {
        return Err(family_denied(domain));
    };
    let is_now = netd.sides.of(&socket)?;
    // What is no address of these families means nothing on either side; the kernel says so.
    let to = match sockaddr::parse(&bytes).ok().and_then(|address| address.destination()) {
        None => {
            judge_without_destination(netd, call, "no address")?;
            Side::Inside
        }
        Some((ip, port)) => {
            let address = SocketAddr::new(ip, port);
            judge_local(netd, call, protocol, address)?;
            side_of(netd, protocol, address)?
        }
    };
    let how = Move {
        protocol,
        to,
        address: Address::Given(&bytes),
    };
    if is_now == to {
        bind_to(netd, &socket, how, &bytes)?;
    } else if address_of(&socket).is_some_and(|bound| bound.port() != 0) {
        // It has an address, and perhaps a peer, which it would lose on the other side. bind(2).
        return Err(Errno::EINVAL.into());
    } else {
        swap(netd, call, fd, &socket, how)?;
    }
    Ok(Answer::Value(0))
}

/// On which side a socket is bound to this address. One of every address is the program's own, where its others find it, until it
/// turns to the outside.
fn side_of(netd: &mut Netd, protocol: Protocol, address: SocketAddr) -> Result<Side, Stop> {
    let (ip, port) = (plain(address.ip()), address.port());
    if !netd.judges.egress.opens(protocol) || ip.is_loopback() {
        return Ok(Side::Inside);
    }
    let by_rule = port != 0 && netd.judges.egress.allows_bind(protocol, port);
    if is_wildcard(ip) {
        return Ok(if by_rule { Side::Host } else { Side::Inside });
    }
    if !netd.is_host_address(ip)? {
        return Ok(Side::Inside);
    }
    if port == 0 || by_rule {
        Ok(Side::Host)
    } else {
        Err(bind_denied(protocol, address, netd))
    }
}
