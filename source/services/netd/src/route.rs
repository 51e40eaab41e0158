//! Where a destination leads.

use crate::host::Host;
use crate::{Denial, Netd, Stop};
use nexus_abi::{Errno, Operation, Protocol, Reason, Verdict};
use nexus_abi_policy::{Call, Destination, Fact, Facts, Growth, NoFacts, Request};
use nexus_net_egress::{HostAddresses, Reach};
use nexus_policy::EgressGate;
use nexus_sys::seccomp::Notification;
use std::net::SocketAddr;

struct Known<'a> {
    egress: &'a EgressGate,
    host: &'a HostAddresses,
}

impl Facts for Known<'_> {
    fn egress(&self, to: &Destination) -> Verdict {
        self.egress
            .judge(to.protocol, to.address.ip(), to.address.port(), self.host)
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
    let Netd { judges, host, .. } = netd;
    let denied = |verdict: Verdict| match verdict {
        Verdict::Allow { .. } => Ok(()),
        Verdict::Deny { reason, errno, rule } => {
            let object = format!("{protocol} {address}");
            Err(Stop::Denied(Denial {
                operation,
                object,
                reason,
                errno,
                rule,
            }))
        }
    };
    // Without knowing which addresses are the host's nothing can be told apart: fail closed.
    let unknown = Verdict::Deny {
        reason: Reason::EgressSpecialAddress,
        errno: Errno::EPERM,
        rule: None,
    };
    if host.is_none() {
        *host = Host::watch().ok();
    }
    let Some(Ok(host)) = host.as_mut().map(Host::now) else {
        denied(unknown)?;
        return Err(Errno::EPERM.into());
    };
    let destination = Fact::Is(Destination { protocol, address });
    let request = Request {
        destination,
        growth: Fact::Nothing,
        ..Request::scalar(native(call))
    };
    denied(judges.guard.judge(
        &request,
        &Known {
            egress: &judges.egress,
            host,
        },
    ))?;
    let route = judges.egress.judge(protocol, address.ip(), address.port(), host);
    denied(route.verdict)?;
    // An allowed route says where to; were it silent, it would stay inside.
    Ok(route.reach.unwrap_or(Reach::OwnLoopback))
}

/// Judges a call that goes nowhere that egress rules speak of.
pub(crate) fn judge_without_destination(netd: &Netd, call: &Notification, object: &str) -> Result<(), Stop> {
    let request = Request {
        destination: Fact::Nothing,
        growth: Fact::Nothing,
        ..Request::scalar(native(call))
    };
    match netd.judges.guard.judge(&request, &NoFacts) {
        Verdict::Allow { .. } => Ok(()),
        Verdict::Deny { reason, errno, rule } => {
            let object = object.to_owned();
            Err(Stop::Denied(Denial {
                operation: Operation::Connect,
                object,
                reason,
                errno,
                rule,
            }))
        }
    }
}

fn native(call: &Notification) -> Call {
    Call {
        number: call.number.cast_unsigned(),
        arch: call.arch,
        args: call.args,
    }
}
