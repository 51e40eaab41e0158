use std::net::IpAddr;

use nexus_abi::{Protocol, RuleRef, Verdict};
use nexus_net_egress::{CompileError, EgressTable, HostAddresses, Reach, Route};

use crate::effective::EgressLayer;
use crate::layers::Layers;

/// A subject's egress rules under all its ceilings, ready to judge.
#[derive(Clone, Debug)]
pub struct EgressGate {
    tables: Layers<(EgressTable, RuleRef)>,
}

impl EgressGate {
    pub(crate) fn new(layers: &Layers<EgressLayer>) -> Result<Self, CompileError> {
        let tables = layers.try_map(|layer| Ok((EgressTable::compile(&layer.rules)?, layer.no_rule)))?;
        Ok(Self { tables })
    }

    /// Judges one destination: allowed where every layer allows it; where several deny, the outermost ceiling's word is
    /// given. Where one layer means the subject's own loopback and another the host's, it is the subject's own.
    ///
    /// A deny for the lack of a rule names the rule that stands for it.
    #[must_use]
    pub fn judge(&self, protocol: Protocol, address: IpAddr, port: u16, host: &HostAddresses) -> Route {
        let mut out: Option<Route> = None;
        for (table, no_rule) in self.tables.iter() {
            let route = table.judge(protocol, address, port, host);
            match (route.verdict, route.reach) {
                (Verdict::Deny { reason, errno, rule }, _) => {
                    let verdict = Verdict::Deny {
                        reason,
                        errno,
                        rule: rule.or(Some(*no_rule)),
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
                reason: nexus_abi::Reason::EgressNoRule,
                errno: nexus_abi::Errno::EPERM,
                rule: None,
            },
            reach: None,
        })
    }

    /// Whether any rule allows anything outside over this protocol, by address.
    #[must_use]
    pub fn opens(&self, protocol: Protocol) -> bool {
        self.tables.iter().all(|(table, _)| table.opens(protocol))
    }
}
