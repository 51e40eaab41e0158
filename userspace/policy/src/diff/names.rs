//! Destinations by name, as sets: every name that is mentioned, and what lies below each apart from those.

use std::collections::{BTreeMap, BTreeSet};

use nexus_abi::{Effect, Protocol};
use nexus_net_egress::PortRange;

use super::{Change, SubjectDiff};
use crate::effective::EgressLayer;
use crate::layers::Layers;
use crate::names::NameRule;

/// Which ports of a name are open. One bit for each port would be 8 KiB; ranges are few.
type Ports = Vec<PortRange>;

/// A name itself, or all names below it that no other atom holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Atom {
    name: String,
    below: bool,
}

pub(super) fn compare(before: &Layers<EgressLayer>, after: &Layers<EgressLayer>, out: &mut SubjectDiff) {
    let rules = |layers: &Layers<EgressLayer>| layers.iter().any(|layer| !layer.names.is_empty());
    if !rules(before) && !rules(after) {
        return;
    }
    let mentioned: BTreeSet<&str> = before
        .iter()
        .chain(after.iter())
        .flat_map(|layer| &layer.names)
        .map(|rule| rule.pattern.name())
        .collect();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for name in &mentioned {
            for below in [false, true] {
                let atom = Atom {
                    name: (*name).to_owned(),
                    below,
                };
                let (one, other) = (open(before, &atom, protocol), open(after, &atom, protocol));
                for (side, ports) in [
                    (&mut out.wider, minus(&other, &one)),
                    (&mut out.narrower, minus(&one, &other)),
                ] {
                    if ports.is_empty() {
                        continue;
                    }
                    // What lies deeper and was mentioned is an atom of its own.
                    let deeper = mentioned
                        .iter()
                        .filter(|other| below && is_below(other, name))
                        .flat_map(|other| [(*other).to_owned(), format!("*.{other}")]);
                    side.push(Change::Name {
                        protocol,
                        name: if below { format!("*.{name}") } else { (*name).to_owned() },
                        except: deeper.collect(),
                        ports,
                    });
                }
            }
        }
    }
    for side in [&mut out.wider, &mut out.narrower] {
        fold(side);
    }
}

/// Exceptions that stand in the same list with the same ports are none: the wider name alone says it.
fn fold(side: &mut Vec<Change>) {
    let open: BTreeMap<(Protocol, String), Ports> = side
        .iter()
        .filter_map(|change| match change {
            Change::Name {
                protocol, name, ports, ..
            } => Some(((*protocol, name.clone()), ports.clone())),
            _ => None,
        })
        .collect();
    let mut covered: BTreeSet<(Protocol, String)> = BTreeSet::new();
    for change in side.iter_mut() {
        if let Change::Name {
            protocol,
            ports,
            except,
            ..
        } = change
        {
            except.retain(|name| {
                let key = (*protocol, name.clone());
                let same = open.get(&key) == Some(ports);
                if same {
                    covered.insert(key);
                }
                !same
            });
        }
    }
    side.retain(|change| match change {
        Change::Name { protocol, name, .. } => !covered.contains(&(*protocol, name.clone())),
        _ => true,
    });
}

fn is_below(name: &str, above: &str) -> bool {
    name.strip_suffix(above)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// Whether a rule speaks of every name of an atom; of an atom it speaks of all or of none.
fn speaks(rule: &NameRule, atom: &Atom) -> bool {
    let own = rule.pattern.name();
    match (rule.pattern.is_below(), atom.below) {
        (false, false) => own == atom.name,
        (false, true) => false,
        (true, false) => is_below(&atom.name, own),
        (true, true) => own == atom.name || is_below(&atom.name, own),
    }
}

/// The ports that every layer opens and none closes.
fn open(layers: &Layers<EgressLayer>, atom: &Atom, protocol: Protocol) -> Ports {
    let mut out: Option<Ports> = None;
    for layer in layers.iter() {
        let of = |effect: Effect| -> Ports {
            let rules = layer.names.iter();
            let rules = rules.filter(|rule| rule.effect == effect && rule.protocol == protocol && speaks(rule, atom));
            rules.fold(Ports::new(), |all, rule| union(&all, &rule.ports))
        };
        let layer = minus(&of(Effect::Allow), &of(Effect::Deny));
        out = Some(match out {
            Some(outer) => minus(&outer, &minus(&outer, &layer)),
            None => layer,
        });
    }
    out.unwrap_or_default()
}

fn union(one: &[PortRange], other: &[PortRange]) -> Ports {
    let mut all: Vec<PortRange> = one.iter().chain(other).copied().collect();
    all.sort_unstable();
    let mut out: Ports = Vec::new();
    for range in all {
        match out.last_mut() {
            Some(last) if u32::from(range.first()) <= u32::from(last.last()) + 1 => {
                *last = PortRange::new(last.first(), last.last().max(range.last())).unwrap_or(*last);
            }
            _ => out.push(range),
        }
    }
    out
}

fn minus(one: &[PortRange], other: &[PortRange]) -> Ports {
    let mut out = Ports::new();
    for range in one {
        let mut from = u32::from(range.first());
        for cut in other
            .iter()
            .filter(|cut| cut.last() >= range.first() && cut.first() <= range.last())
        {
            out.extend(between(from, u32::from(cut.first()).saturating_sub(1)));
            from = from.max(u32::from(cut.last()) + 1);
        }
        out.extend(between(from, u32::from(range.last())));
    }
    out
}

fn between(first: u32, last: u32) -> Option<PortRange> {
    PortRange::new(u16::try_from(first).ok()?, u16::try_from(last).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ports() -> impl Strategy<Value = Ports> {
        prop::collection::vec((1_u16..40, 0_u16..6), 0..6).prop_map(|ranges| {
            ranges.iter().fold(Ports::new(), |all, (first, more)| {
                union(&all, &[PortRange::new(*first, first + more).unwrap()])
            })
        })
    }

    proptest! {
        #[test]
        fn ports_are_joined_and_taken_away_one_by_one(one in ports(), other in ports()) {
            let has = |ports: &Ports, port: u16| ports.iter().any(|range| range.contains(port));
            let (both, less) = (union(&one, &other), minus(&one, &other));
            for port in 1..60 {
                prop_assert_eq!(has(&both, port), has(&one, port) || has(&other, port));
                prop_assert_eq!(has(&less, port), has(&one, port) && !has(&other, port));
            }
        }
    }
}
