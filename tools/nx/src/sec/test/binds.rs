//! Ports to send from: one that a rule gives is the port that a connection arrives from, and its nearest neighbour is refused.

use super::Found;
use super::all::PORTS_MAX;
use super::claim::{Claim, Refusal, Wants};
use super::context::Context;
use super::egress::{self, Target};
use super::tamper::Tamper;
use crate::run::Failure;
use nexus_abi::{Errno, Operation, Protocol, Reason};
use nexus_audit::Counter;
use nexus_net_egress::Reachable;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Below this a port is root's, whatever policy says (`net.ipv4.ip_unprivileged_port_start`, ip(7)).
const FIRST_OF_EVERYBODY: u16 = 1024;

/// Sees the edges of every rule for a port to send from.
pub(super) fn prove(
    context: &Context,
    reachable: &Reachable,
    found: &mut Found,
    tamper: &dyn Tamper,
) -> Result<(), Failure> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let ports = edges(context, protocol);
        if ports.is_empty() {
            continue;
        }
        let Some(target) = destination(context, reachable, protocol, &ports) else {
            let count = ports.len();
            found.left_out.push(format!(
                "{count} edges of rules for {protocol} ports to send from: no rule by address opens a destination where they would be seen"
            ));
            continue;
        };
        let port = (protocol, target.address.port());
        let mut live = super::start(context, &[port], tamper)?;
        let mut seen = Vec::new();
        for port in ports {
            match obstacle(context, protocol, port, target) {
                Some(why) => found
                    .left_out
                    .push(format!("to send from {protocol} port {port}: {why}")),
                None => {
                    let claim = claim(context, target, port);
                    let outcome = egress::attempt_from(context, &mut live, target, Some(port), &claim, Some(0));
                    seen.push((claim, outcome));
                }
            }
        }
        found.add(super::finish(context, live, &seen, tamper)?);
    }
    Ok(())
}

/// The first and the last port of each range that a rule gives, and what stands just outside.
fn edges(context: &Context, protocol: Protocol) -> BTreeSet<u16> {
    let own = context.session.rules.egress.iter().next_back();
    let rules = own.into_iter().flat_map(|layer| &layer.binds);
    let ranges = rules
        .filter(|rule| rule.protocol == protocol)
        .flat_map(|rule| &rule.ports);
    let edges = ranges.flat_map(|range| {
        let (first, last) = (range.first(), range.last());
        [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)]
    });
    edges.flatten().filter(|port| *port > 0).take(PORTS_MAX).collect()
}

/// A destination that is allowed and can be seen to be reached, on a port that no edge is.
fn destination(context: &Context, reachable: &Reachable, protocol: Protocol, ports: &BTreeSet<u16>) -> Option<Target> {
    let sets = [&reachable.outside, &reachable.host_own];
    let pieces = sets.into_iter().flat_map(|set| set.pieces());
    let addresses = pieces.filter(|piece| piece.protocol == protocol).flat_map(|piece| {
        let at = [piece.first, piece.last];
        let ports = piece.ports.iter().flat_map(|range| [range.first(), range.last()]);
        ports.flat_map(move |port| at.map(|ip| SocketAddr::new(ip, port)))
    });
    addresses
        .map(|address| Target { protocol, address })
        .filter(|target| {
            let claim = egress::claim(context, *target);
            !ports.contains(&target.address.port())
                && egress::unreachable(*target).is_none()
                && matches!(claim.wants, Wants::Passage(Some(Counter::EgressAllows)))
        })
        // The host's own loopback only where there is nothing else.
        .min_by_key(|target| {
            (
                target.address.ip().is_loopback() || target.address.ip().is_unspecified(),
                *target,
            )
        })
}

/// Why it cannot be seen.
fn obstacle(context: &Context, protocol: Protocol, port: u16, target: Target) -> Option<String> {
    if port < FIRST_OF_EVERYBODY {
        return Some(format!(
            "the kernel gives ports below {FIRST_OF_EVERYBODY} to root alone"
        ));
    }
    if !context.gate.allows_bind(protocol, port) && netd::is_ephemeral(port) {
        return Some("the kernel chooses such ports itself, so no rule is asked".to_owned());
    }
    egress::bind_denied(context, target, port)
}

fn claim(context: &Context, target: Target, port: u16) -> Claim {
    let Target { protocol, address } = target;
    let name = format!("{protocol} {address} from port {port}");
    if context.gate.allows_bind(protocol, port) {
        let layers = context.session.rules.egress.iter();
        let mut rules = layers.flat_map(|layer| &layer.binds);
        let gives = |rule: &&nexus_policy::BindRule| {
            rule.protocol == protocol && rule.ports.iter().any(|range| range.contains(port))
        };
        let rule = rules.rfind(gives).map(|rule| rule.rule);
        return Claim {
            part: "egress",
            name,
            wants: Wants::Passage(Some(Counter::EgressAllows)),
            rule: context.rule(rule, None),
        };
    }
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Claim {
        part: "egress",
        name,
        wants: Wants::Refusal(Refusal {
            op: Operation::Bind,
            object: format!("{protocol} {}", SocketAddr::new(any, port)),
            reason: Reason::EgressNoRule,
            errno: Errno::EPERM,
        }),
        rule: context.rule(context.gate.bind_rule_missing(), Some(Reason::EgressNoRule)),
    }
}
