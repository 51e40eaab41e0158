use std::net::IpAddr;

use nexus_abi::{Effect, Errno, Protocol, Reason, RuleRef, Verdict};
use nexus_abi_policy::{Destination, Facts, Growth, NoFacts};
use nexus_net_egress::{CompileError, EgressTable, HostAddresses, PortRange, Reach, Route};

use crate::effective::EgressLayer;
use crate::egress::BindRule;
use crate::layers::Layers;
use crate::names::NameRule;

/// A subject's egress rules under all its ceilings, ready to judge.
#[derive(Clone, Debug)]
pub struct EgressGate {
    layers: Layers<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    table: EgressTable,
    names: Vec<NameRule>,
    binds: Vec<BindRule>,
    no_rule: RuleRef,
}

/// What the guard asks about destinations, answered by a gate; of budgets nobody knows.
#[derive(Clone, Copy, Debug)]
pub struct EgressFacts<'a> {
    /// Who judges.
    pub gate: &'a EgressGate,
    /// The host's own addresses.
    pub host: &'a HostAddresses,
    /// The names that every address was resolved from.
    pub names: &'a [&'a NameGrants],
}

impl Facts for EgressFacts<'_> {
    fn egress(&self, to: &Destination) -> Verdict {
        let (ip, port) = (to.address.ip(), to.address.port());
        self.gate
            .judge_named(to.protocol, ip, port, self.host, self.names)
            .verdict
    }

    fn budget(&self, growth: &Growth) -> Verdict {
        NoFacts.budget(growth)
    }
}

/// What the rules by name say of the addresses of one name: of each layer, what its rules open and close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameGrants {
    layers: Vec<Vec<NameRule>>,
}

impl NameGrants {
    /// The rule by which this layer opens a port; `None` where none does or one closes it.
    fn opens(&self, layer: usize, protocol: Protocol, port: u16) -> Option<RuleRef> {
        let rules = self.layers.get(layer)?;
        let speaking = |effect: Effect| {
            rules.iter().find(move |rule| {
                rule.effect == effect
                    && rule.protocol == protocol
                    && rule.ports.iter().any(|range| range.contains(port))
            })
        };
        match speaking(Effect::Deny) {
            Some(_) => None,
            None => speaking(Effect::Allow).map(|rule| rule.rule),
        }
    }

    /// The rule by which some layer closes all that it would open.
    #[must_use]
    pub fn closed_by(&self) -> Option<RuleRef> {
        self.layers.iter().find_map(|rules| {
            let deny = rules.iter().find(|rule| rule.effect == Effect::Deny)?;
            (!leaves_a_port(rules)).then_some(deny.rule)
        })
    }

    /// Whether this layer says nothing of the name.
    fn is_silent(&self, layer: usize) -> bool {
        self.layers.get(layer).is_none_or(Vec::is_empty)
    }

    /// Takes what the rules that deny this other name close as well: an alias leads no further than its target.
    pub fn close(&mut self, target: &Self) {
        for (own, other) in self.layers.iter_mut().zip(&target.layers) {
            own.extend(other.iter().filter(|rule| rule.effect == Effect::Deny).cloned());
        }
    }
}

impl Layer {
    fn speaking_of(&self, name: &str) -> Vec<NameRule> {
        let covering = self.names.iter().filter(|rule| rule.pattern.covers(name));
        covering.cloned().collect()
    }

    fn opens(&self, protocol: Protocol) -> bool {
        let by_name = |rule: &NameRule| rule.effect == Effect::Allow && rule.protocol == protocol;
        self.table.opens(protocol) || self.names.iter().any(by_name)
    }
}

/// Whether rules that open leave a port after those that close.
fn leaves_a_port(rules: &[NameRule]) -> bool {
    let closing = |protocol: Protocol, port: u16| -> Option<PortRange> {
        let denies = rules
            .iter()
            .filter(|rule| rule.effect == Effect::Deny && rule.protocol == protocol);
        denies
            .flat_map(|rule| &rule.ports)
            .find(|range| range.contains(port))
            .copied()
    };
    rules.iter().filter(|rule| rule.effect == Effect::Allow).any(|rule| {
        rule.ports.iter().any(|range| {
            let mut port = range.first();
            loop {
                match closing(rule.protocol, port) {
                    None => return true,
                    Some(closed) if closed.last() >= range.last() => return false,
                    Some(closed) => port = closed.last().saturating_add(1),
                }
            }
        })
    })
}

impl EgressGate {
    pub(crate) fn new(layers: &Layers<EgressLayer>) -> Result<Self, CompileError> {
        let layers = layers.try_map(|layer| {
            Ok(Layer {
                table: EgressTable::compile(&layer.rules)?,
                names: layer.names.clone(),
                binds: layer.binds.clone(),
                no_rule: layer.no_rule,
            })
        })?;
        Ok(Self { layers })
    }

    /// Judges one destination: allowed where every layer allows it; where several deny, the outermost ceiling's word is
    /// given. Where one layer means the subject's own loopback and another the host's, it is the subject's own.
    ///
    /// A deny for the lack of a rule names the rule that stands for it.
    #[must_use]
    pub fn judge(&self, protocol: Protocol, address: IpAddr, port: u16, host: &HostAddresses) -> Route {
        self.judge_named(protocol, address, port, host, &[])
    }

    /// The same for an address that these names were resolved to. A name opens what no rule by address speaks of: a denied
    /// address stays denied, and a special one closed.
    #[must_use]
    pub fn judge_named(
        &self,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        host: &HostAddresses,
        names: &[&NameGrants],
    ) -> Route {
        let mut out: Option<Route> = None;
        for (place, layer) in self.layers.iter().enumerate() {
            let mut route = layer.table.judge(protocol, address, port, host);
            if let Verdict::Deny {
                reason: Reason::EgressNoRule,
                ..
            } = route.verdict
                && let Some(rule) = names.iter().find_map(|name| name.opens(place, protocol, port))
            {
                route = Route {
                    verdict: Verdict::Allow { rule: Some(rule) },
                    reach: Some(Reach::Outside),
                };
            }
            match (route.verdict, route.reach) {
                (Verdict::Deny { reason, errno, rule }, _) => {
                    let verdict = Verdict::Deny {
                        reason,
                        errno,
                        rule: rule.or(Some(layer.no_rule)),
                    };
                    return Route { verdict, reach: None };
                }
                (Verdict::Allow { .. }, Some(Reach::Outside))
                    if out.is_some_and(|outer| outer.reach == Some(Reach::OwnLoopback)) => {}
                // The innermost layer's rule is the one that the reader wrote.
                (Verdict::Allow { .. }, _) => out = Some(route),
            }
        }
        // There is at least one layer; were there none, nothing would be allowed.
        out.unwrap_or(Route {
            verdict: Verdict::Deny {
                reason: Reason::EgressNoRule,
                errno: Errno::EPERM,
                rule: None,
            },
            reach: None,
        })
    }

    /// Whether a name may be resolved, and what its addresses are then open for: the subject's own tree has to open it by
    /// name, and no layer may close all of that. A ceiling without a rule for the name judges the addresses.
    ///
    /// # Errors
    /// The denial, [`Reason::EgressNameNoRule`] or [`Reason::EgressDenyRule`].
    pub fn judge_name(&self, name: &str) -> Result<NameGrants, Verdict> {
        let mut layers = Vec::new();
        let last = self.layers.count().saturating_sub(1);
        for (place, layer) in self.layers.iter().enumerate() {
            let rules = layer.speaking_of(name);
            let allows = rules.iter().any(|rule| rule.effect == Effect::Allow);
            let by_address = place < last && (layer.table.opens(Protocol::Tcp) || layer.table.opens(Protocol::Udp));
            let deny = rules.iter().find(|rule| rule.effect == Effect::Deny);
            let refused = |reason: Reason, rule: RuleRef| Verdict::Deny {
                reason,
                errno: Errno::EPERM,
                rule: Some(rule),
            };
            match deny {
                Some(deny) if !leaves_a_port(&rules) => return Err(refused(Reason::EgressDenyRule, deny.rule)),
                _ if !allows && !by_address => return Err(refused(Reason::EgressNameNoRule, layer.no_rule)),
                _ => layers.push(rules),
            }
        }
        Ok(NameGrants { layers })
    }

    /// What the rules by name say of a port of an address of which no rule by address speaks, and that is not special.
    #[must_use]
    pub fn judge_port(&self, grants: &NameGrants, protocol: Protocol, port: u16) -> Verdict {
        let mut verdict = Verdict::Allow { rule: None };
        let last = self.layers.count().saturating_sub(1);
        for (place, layer) in self.layers.iter().enumerate() {
            match grants.opens(place, protocol, port) {
                Some(rule) => verdict = Verdict::Allow { rule: Some(rule) },
                // A ceiling that does not know the name judges the addresses.
                None if place < last && grants.is_silent(place) => {}
                None => {
                    return Verdict::Deny {
                        reason: Reason::EgressNoRule,
                        errno: Errno::EPERM,
                        rule: Some(layer.no_rule),
                    };
                }
            }
        }
        verdict
    }

    /// What the rules say of a name that only stands in an answer: nothing is opened by it, but what a rule denies is.
    #[must_use]
    pub fn alias(&self, name: &str) -> NameGrants {
        NameGrants {
            layers: self.layers.iter().map(|layer| layer.speaking_of(name)).collect(),
        }
    }

    /// Whether any rule allows anything outside over this protocol, by address or by name.
    #[must_use]
    pub fn opens(&self, protocol: Protocol) -> bool {
        self.layers.iter().all(|layer| layer.opens(protocol))
    }

    /// Whether any name may be resolved.
    #[must_use]
    pub fn opens_names(&self) -> bool {
        let own = self.layers.iter().next_back();
        own.is_some_and(|layer| layer.names.iter().any(|rule| rule.effect == Effect::Allow))
    }

    /// Whether the program may take this port of the host's to send from: every layer has to say so.
    #[must_use]
    pub fn allows_bind(&self, protocol: Protocol, port: u16) -> bool {
        self.layers.iter().all(|layer| {
            layer
                .binds
                .iter()
                .any(|rule| rule.protocol == protocol && rule.ports.iter().any(|range| range.contains(port)))
        })
    }

    /// Stands for the lack of a rule for a port: where one would be written.
    #[must_use]
    pub fn bind_rule_missing(&self) -> Option<RuleRef> {
        self.layers.iter().next_back().map(|layer| layer.no_rule)
    }
}
