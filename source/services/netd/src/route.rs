//! Where a destination leads.

use crate::{Denial, Netd, Stop};
use nexus_abi::{Errno, Operation, Protocol, Reason, RuleRef, Verdict};
use nexus_net_egress::Reach;
use std::net::{IpAddr, SocketAddr};

/// A judged destination.
pub(crate) struct Allowed {
    pub(crate) reach: Reach,
}

/// Judges a destination by every layer: one that refuses decides, and only what all send outside goes outside.
pub(crate) fn judge(
    netd: &mut Netd,
    operation: Operation,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
) -> Result<Allowed, Stop> {
    let Netd { tables, host, .. } = netd;
    let denied = |reason: Reason, errno: Errno, rule: Option<RuleRef>| {
        let object = format!("{protocol} {}", SocketAddr::new(address, port));
        Stop::Denied(Denial {
            operation,
            object,
            reason,
            errno,
            rule,
        })
    };
    // Without knowing which addresses are the host's nothing can be told apart: fail closed.
    let host = host
        .now()
        .map_err(|_| denied(Reason::EgressSpecialAddress, Errno::EPERM, None))?;
    let mut reach = Reach::Outside;
    for table in tables.iter() {
        let route = table.judge(protocol, address, port, host);
        match (route.verdict, route.reach) {
            (Verdict::Deny { reason, errno, rule }, _) => return Err(denied(reason, errno, rule)),
            (Verdict::Allow { .. }, Some(Reach::Outside)) => {}
            (Verdict::Allow { .. }, Some(Reach::OwnLoopback) | None) => reach = Reach::OwnLoopback,
        }
    }
    Ok(Allowed { reach })
}
