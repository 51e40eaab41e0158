//! Where a destination leads.

use crate::host::Host;
use crate::pins::Pins;
use crate::{Denial, Netd, Stop};
use nexus_abi::{Errno, Operation, Protocol, Reason, Verdict};
use nexus_abi_policy::{Call, Destination, Fact, Facts, Growth, NoFacts, Request};
use nexus_net_egress::{HostAddresses, Reach, SpecialKind, judged_as, special_block};
use nexus_policy::EgressGate;
use nexus_sys::seccomp::Notification;
use std::net::{IpAddr, SocketAddr};

struct Known<'a> {
    egress: &'a EgressGate,
    host: &'a HostAddresses,
    names: &'a Pins,
}

impl Facts for Known<'_> {
    fn egress(&self, to: &Destination) -> Verdict {
        self.names
            .judge(self.egress, to.protocol, to.address, self.host)
            .verdict
    }

    fn budget(&self, growth: &Growth) -> Verdict {
        NoFacts.budget(growth)
    }
}

/// Judges a call by where it goes: first by the syscall rules, which may ask the egress rules, then by the egress rules
/// themselves. Says on which side the destination is.
pub(crate) fn judge(
    netd: &mut Netd,
    call: &Notification,
    operation: Operation,
    protocol: Protocol,
    address: SocketAddr,
) -> Result<Reach, Stop> {
    let denied = |verdict: Verdict| refuse(verdict, operation, || format!("{protocol} {address}"));
    let Netd { judges, host, pins, .. } = netd;
    let Some(host) = speaking_of(host, address.ip()) else {
        denied(UNKNOWN)?;
        return Err(Errno::EPERM.into());
    };
    let request = Request {
        destination: Fact::Is(Destination { protocol, address }),
        growth: Fact::Nothing,
        ..Request::scalar(native(call))
    };
    let facts = Known {
        egress: &judges.egress,
        host,
        names: pins,
    };
    denied(judges.guard.judge(&request, &facts))?;
    let route = pins.judge(&judges.egress, protocol, address, host);
    denied(route.verdict)?;
    // An allowed route says where to; were it silent, it would stay inside.
    Ok(route.reach.unwrap_or(Reach::OwnLoopback))
}

/// Judges a bind by the syscall rules alone; one that asks for egress is asked of the local address.
pub(crate) fn judge_local(
    netd: &mut Netd,
    call: &Notification,
    protocol: Protocol,
    address: SocketAddr,
) -> Result<(), Stop> {
    let denied = |verdict: Verdict| refuse(verdict, Operation::Bind, || format!("{protocol} {address}"));
    let Netd { judges, host, pins, .. } = netd;
    let Some(host) = speaking_of(host, address.ip()) else {
        return denied(UNKNOWN);
    };
    let request = Request {
        destination: Fact::Is(Destination { protocol, address }),
        growth: Fact::Nothing,
        ..Request::scalar(native(call))
    };
    let facts = Known {
        egress: &judges.egress,
        host,
        names: pins,
    };
    denied(judges.guard.judge(&request, &facts))
}

/// Without knowing which addresses are the host's nothing can be told apart: fail closed.
const UNKNOWN: Verdict = Verdict::Deny {
    reason: Reason::EgressSpecialAddress,
    errno: Errno::EPERM,
    rule: None,
};

/// The host's addresses where the verdict on this one depends on them: loopback is loopback, whoever has it.
fn speaking_of(host: &mut Option<Host>, ip: IpAddr) -> Option<&HostAddresses> {
    static NONE: HostAddresses = HostAddresses::none();
    match special_block(judged_as(ip)) {
        Some(block) if block.kind == SpecialKind::Loopback => Some(&NONE),
        _ => known(host),
    }
}

fn known(host: &mut Option<Host>) -> Option<&HostAddresses> {
    if host.is_none() {
        *host = Host::watch().ok();
    }
    host.as_mut()?.now().ok()
}

fn refuse(verdict: Verdict, operation: Operation, object: impl Fn() -> String) -> Result<(), Stop> {
    match verdict {
        Verdict::Allow { .. } => Ok(()),
        Verdict::Deny { reason, errno, rule } => Err(Stop::Denied(Denial {
            operation,
            object: object(),
            reason,
            errno,
            rule,
        })),
    }
}

impl Netd {
    /// Whether an address is one of the host's own.
    pub(crate) fn is_host_address(&mut self, ip: std::net::IpAddr) -> Result<bool, Stop> {
        let host = known(&mut self.host).ok_or(Errno::EPERM)?;
        Ok(host.contains(ip))
    }
}

/// Judges a call that goes nowhere that egress rules speak of.
pub(crate) fn judge_without_destination(netd: &Netd, call: &Notification, object: &str) -> Result<(), Stop> {
    let request = Request {
        destination: Fact::Nothing,
        growth: Fact::Nothing,
        ..Request::scalar(native(call))
    };
    let operation = match nexus_abi::syscall::name(request.call.number) {
        Some("bind") => Operation::Bind,
        Some("connect") => Operation::Connect,
        _ => Operation::Send,
    };
    refuse(netd.judges.guard.judge(&request, &NoFacts), operation, || {
        object.to_owned()
    })
}

fn native(call: &Notification) -> Call {
    Call {
        number: call.number.cast_unsigned(),
        arch: call.arch,
        args: call.args,
    }
}
