use crate::cidr::Cidr;
use crate::family::{Family, Tops};
use crate::layer::{Entry, LayerTooBig};
use crate::special::{Form, HostAddresses, SpecialKind, naming_prefix, specified, strip, translated};
use crate::{EgressRule, PORT_RANGES_MAX};
use alloc::vec::Vec;
use core::net::IpAddr;
use nexus_abi::{Effect, Errno, Protocol, Reason, RuleRef, Verdict};
use thiserror::Error;

/// The most rules of a table: a country's address list has some ten thousand prefixes, twice that with both families.
pub const EGRESS_RULES_MAX: usize = 131_072;

/// The most port ranges of all rules of a table together: two each, at 8 bytes of table each.
pub const EGRESS_RANGES_MAX: usize = 262_144;

/// Where an allowed request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// To the host's network, the host's own loopback among it where a rule names it.
    Outside,
    /// To the subject's own loopback, which needs no rule and reaches nobody else.
    OwnLoopback,
}

/// The judgement of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether it may be reached, why not, and by which rule.
    pub verdict: Verdict,
    /// Where it goes; `None` for a denial.
    pub reach: Option<Reach>,
}

impl Route {
    const fn deny(reason: Reason, rule: Option<RuleRef>) -> Self {
        Self {
            verdict: Verdict::Deny {
                reason,
                errno: Errno::EPERM,
                rule,
            },
            reach: None,
        }
    }

    const fn allow(reach: Reach, rule: Option<RuleRef>) -> Self {
        Self {
            verdict: Verdict::Allow { rule },
            reach: Some(reach),
        }
    }
}

/// Why rules make no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// More than [`EGRESS_RULES_MAX`] rules.
    #[error("{count} egress rules are more than the {EGRESS_RULES_MAX} that a subject may have")]
    TooManyRules {
        /// How many there are.
        count: usize,
    },
    /// More than [`EGRESS_RANGES_MAX`] port ranges.
    #[error("the egress rules have more than {EGRESS_RANGES_MAX} port ranges together")]
    TooManyRanges,
    /// A rule without ports, with more than [`PORT_RANGES_MAX`], or with ports that are not in order.
    #[error("the ports of egress rule {} are empty, too many, not sorted, or overlap", .rule.0)]
    Ports {
        /// Which rule.
        rule: RuleRef,
    },
    /// An allow rule for `0.0.0.0` or `::`, which are judged as loopback: it would match nothing.
    #[error("`{cidr}` of egress rule {} is judged as loopback and would match nothing", .rule.0)]
    Unspecified {
        /// Which rule.
        rule: RuleRef,
        /// Its prefix.
        cidr: Cidr,
        /// The prefix to write instead.
        write: Cidr,
    },
    /// A rule for IPv4-mapped or NAT64 addresses, which are judged as IPv4: it would match nothing.
    #[error("`{cidr}` of egress rule {} is judged as IPv4 and would match nothing", .rule.0)]
    Translated {
        /// Which rule.
        rule: RuleRef,
        /// Its prefix.
        cidr: Cidr,
        /// The prefix to write instead.
        write: Cidr,
    },
}

/// The rules of one protocol.
#[derive(Clone, Debug)]
struct Protocols {
    v4: Family<u32>,
    v6: Family<u128>,
}

/// A place in one of the families.
#[derive(Clone, Copy)]
enum Place {
    V4(Tops),
    V6(Tops),
}

/// A subject's egress rules, ready to judge.
#[derive(Clone, Debug)]
pub struct EgressTable {
    tcp: Protocols,
    udp: Protocols,
}

impl EgressTable {
    /// A table without a rule: everything but the subject's own loopback is denied.
    pub const EMPTY: Self = Self {
        tcp: Protocols::EMPTY,
        udp: Protocols::EMPTY,
    };

    /// A table of these rules. Their order decides only which of two rules with the same prefix is named: the one with
    /// the lower [`RuleRef`].
    ///
    /// # Errors
    /// [`CompileError`], naming the rule.
    pub fn compile(rules: &[EgressRule]) -> Result<Self, CompileError> {
        if rules.len() > EGRESS_RULES_MAX {
            return Err(CompileError::TooManyRules { count: rules.len() });
        }
        let mut ranges = 0_usize;
        for rule in rules {
            check(rule)?;
            ranges = ranges.saturating_add(rule.ports.len());
        }
        if ranges > EGRESS_RANGES_MAX {
            return Err(CompileError::TooManyRanges);
        }
        Ok(Self {
            tcp: Protocols::compile(rules, Protocol::Tcp)?,
            udp: Protocols::compile(rules, Protocol::Udp)?,
        })
    }

    /// Judges one destination. Deny beats allow, then the longest prefix is the rule that is named; a special address
    /// is opened only by a rule inside its block; without a rule there is only the subject's own loopback.
    ///
    /// The address is the one the program gave; what to act on is [`crate::acted_on`] of it.
    #[must_use]
    pub fn judge(&self, protocol: Protocol, address: IpAddr, port: u16, host: &HostAddresses) -> Route {
        let (stripped, form) = strip(address);
        let judged = specified(stripped);
        let rules = self.of(protocol);
        if port == 0 {
            // No rule can name it.
            return Route::deny(Reason::EgressNoRule, None);
        }
        let place = rules.place(judged);
        let mut denied = rules.denying(place, port);
        if denied.is_none() && judged != stripped {
            // A deny rule that covers 0.0.0.0 and not loopback speaks of 0.0.0.0 too.
            denied = rules.denying(rules.place(stripped), port);
        }
        if denied.is_some() {
            return Route::deny(Reason::EgressDenyRule, denied);
        }
        let Some((shortest, kind)) = naming_prefix(judged, host) else {
            return match rules.allowing(place, port, 0) {
                Some(rule) => Route::allow(Reach::Outside, Some(rule)),
                None => Route::deny(Reason::EgressNoRule, None),
            };
        };
        if form == Form::Nat64 {
            // A gateway's idea of a special address is not ours: RFC 6052 forbids to send one there.
            return Route::deny(Reason::EgressSpecialAddress, None);
        }
        match rules.allowing(place, port, shortest) {
            Some(rule) => Route::allow(Reach::Outside, Some(rule)),
            None if kind == SpecialKind::Loopback => Route::allow(Reach::OwnLoopback, None),
            None => Route::deny(Reason::EgressSpecialAddress, None),
        }
    }

    /// Whether any rule allows anything outside over this protocol. Where not, its sockets can stay in the subject's
    /// own, empty network.
    #[must_use]
    pub fn opens(&self, protocol: Protocol) -> bool {
        let rules = self.of(protocol);
        rules.v4.opens() || rules.v6.opens()
    }

    const fn of(&self, protocol: Protocol) -> &Protocols {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }
}

impl Default for EgressTable {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Protocols {
    const EMPTY: Self = Self {
        v4: Family::EMPTY,
        v6: Family::EMPTY,
    };

    fn compile(rules: &[EgressRule], protocol: Protocol) -> Result<Self, CompileError> {
        let (mut allow4, mut deny4) = (Vec::new(), Vec::new());
        let (mut allow6, mut deny6) = (Vec::new(), Vec::new());
        for rule in rules.iter().filter(|rule| rule.protocol == protocol) {
            let (prefix, ports, reference) = (rule.cidr.prefix(), rule.ports.as_slice(), rule.rule);
            match rule.cidr.address() {
                IpAddr::V4(v4) => {
                    let entry = Entry {
                        address: v4.to_bits(),
                        prefix,
                        ports,
                        rule: reference,
                    };
                    match rule.effect {
                        Effect::Allow => allow4.push(entry),
                        Effect::Deny => deny4.push(entry),
                    }
                }
                IpAddr::V6(v6) => {
                    let entry = Entry {
                        address: v6.to_bits(),
                        prefix,
                        ports,
                        rule: reference,
                    };
                    match rule.effect {
                        Effect::Allow => allow6.push(entry),
                        Effect::Deny => deny6.push(entry),
                    }
                }
            }
        }
        // The limits on rules and ranges keep every number far below what a layer can count.
        let too_big = |_: LayerTooBig| CompileError::TooManyRanges;
        Ok(Self {
            v4: Family::compile(&mut allow4, &mut deny4).map_err(too_big)?,
            v6: Family::compile(&mut allow6, &mut deny6).map_err(too_big)?,
        })
    }

    fn place(&self, address: IpAddr) -> Place {
        match address {
            IpAddr::V4(v4) => Place::V4(self.v4.place(v4.to_bits())),
            IpAddr::V6(v6) => Place::V6(self.v6.place(v6.to_bits())),
        }
    }

    fn denying(&self, place: Place, port: u16) -> Option<RuleRef> {
        match place {
            Place::V4(tops) => self.v4.denying(tops, port),
            Place::V6(tops) => self.v6.denying(tops, port),
        }
    }

    fn allowing(&self, place: Place, port: u16, shortest: u8) -> Option<RuleRef> {
        match place {
            Place::V4(tops) => self.v4.allowing(tops, port, shortest),
            Place::V6(tops) => self.v6.allowing(tops, port, shortest),
        }
    }
}

impl EgressRule {
    /// Whether a table takes the rule.
    ///
    /// # Errors
    /// What [`EgressTable::compile`] would say of this one rule.
    pub fn check(&self) -> Result<(), CompileError> {
        check(self)
    }
}

fn check(rule: &EgressRule) -> Result<(), CompileError> {
    let in_order = rule
        .ports
        .iter()
        .zip(rule.ports.iter().skip(1))
        .all(|(a, b)| a.last() < b.first());
    if rule.ports.is_empty() || rule.ports.len() > PORT_RANGES_MAX || !in_order {
        return Err(CompileError::Ports { rule: rule.rule });
    }
    if let Some(write) = translated(&rule.cidr) {
        return Err(CompileError::Translated {
            rule: rule.rule,
            cidr: rule.cidr,
            write,
        });
    }
    let whole = Cidr::host(rule.cidr.address());
    if rule.effect == Effect::Allow && rule.cidr == whole && rule.cidr.address().is_unspecified() {
        let write = Cidr::host(specified(rule.cidr.address()));
        return Err(CompileError::Unspecified {
            rule: rule.rule,
            cidr: rule.cidr,
            write,
        });
    }
    Ok(())
}
