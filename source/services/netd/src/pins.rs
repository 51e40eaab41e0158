//! What names were resolved to: addresses that are open because their name is.

use nexus_abi::Protocol;
use nexus_net_egress::{HostAddresses, Route, judged_as};
use nexus_policy::{EgressGate, NameGrants};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How many addresses are open by name at once: a program that talks to more hosts within an hour looks them up again.
const ADDRESSES_MAX: usize = 4096;

/// How many names one address has: content networks serve thousands from one address, one program rarely ten.
const NAMES_MAX: usize = 32;

#[derive(Debug)]
struct Pin {
    name: Arc<str>,
    grants: Arc<NameGrants>,
    until: Instant,
}

/// Addresses and the names that they were given for. Shared by who resolves and who judges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    open: Arc<Mutex<BTreeMap<IpAddr, Vec<Pin>>>>,
}

impl Pins {
    /// Opens an address for what the name's rules say, until then.
    pub(crate) fn open(
        &self,
        address: IpAddr,
        name: &Arc<str>,
        grants: &Arc<NameGrants>,
        now: Instant,
        until: Instant,
    ) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let address = judged_as(address);
        if !open.contains_key(&address) && open.len() >= ADDRESSES_MAX {
            open.retain(|_, pins| {
                pins.retain(|pin| pin.until > now);
                !pins.is_empty()
            });
            if open.len() >= ADDRESSES_MAX {
                let first = open
                    .iter()
                    .min_by_key(|(_, pins)| pins.iter().map(|pin| pin.until).max())
                    .map(|(address, _)| *address);
                first.and_then(|first| open.remove(&first));
            }
        }
        let pins = open.entry(address).or_default();
        let until = pins
            .iter()
            .find(|pin| pin.name == *name)
            .map_or(until, |pin| pin.until.max(until));
        pins.retain(|pin| pin.until > now && pin.name != *name);
        if pins.len() >= NAMES_MAX {
            pins.remove(0);
        }
        pins.push(Pin {
            name: Arc::clone(name),
            grants: Arc::clone(grants),
            until,
        });
    }

    /// Judges a destination by addresses, and by the names that are open now.
    pub(crate) fn judge(&self, gate: &EgressGate, protocol: Protocol, to: SocketAddr, host: &HostAddresses) -> Route {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let pins = open.get(&judged_as(to.ip())).map(Vec::as_slice).unwrap_or_default();
        if pins.is_empty() {
            return gate.judge(protocol, to.ip(), to.port(), host);
        }
        let now = Instant::now();
        let names: Vec<&NameGrants> = pins
            .iter()
            .filter(|pin| pin.until > now)
            .map(|pin| &*pin.grants)
            .collect();
        gate.judge_named(protocol, to.ip(), to.port(), host, &names)
    }
}

/// The names that are open now, for whoever wants to show them.
#[derive(Clone, Debug, Default)]
pub struct OpenNames {
    pins: Pins,
}

/// An address that is open because a name was resolved to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenName {
    /// The name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// For how many more seconds, rounded up.
    pub left_s: u64,
}

impl OpenNames {
    pub(crate) const fn of(pins: Pins) -> Self {
        Self { pins }
    }

    /// Those that have not ended, by name and address; at most `ADDRESSES_MAX` times `NAMES_MAX`.
    #[must_use]
    pub fn list(&self, now: Instant) -> Vec<OpenName> {
        let open = self.pins.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out: Vec<OpenName> = open
            .iter()
            .flat_map(|(address, pins)| pins.iter().map(move |pin| (address, pin)))
            .filter(|(_, pin)| pin.until > now)
            .map(|(address, pin)| OpenName {
                name: pin.name.to_string(),
                address: *address,
                left_s: pin
                    .until
                    .saturating_duration_since(now)
                    .as_millis()
                    .div_ceil(1000)
                    .try_into()
                    .unwrap_or(u64::MAX),
            })
            .collect();
        out.sort();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_policy::{MemoryTree, Policy};
    use std::time::Duration;

    fn gate() -> EgressGate {
        let tree = MemoryTree::new(
            [
                (
                    "nexus.policy.toml",
                    &b"version = 1\ninclude = [\"egress.toml\"]\n[subject.s]\n"[..],
                ),
                ("egress.toml", &b"[subject.s]\nallow = [\"*.example.net:80\"]\n"[..]),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_vec())),
        );
        let policy = Policy::load(&tree).unwrap();
        policy.subject("s").unwrap().egress_gate().unwrap()
    }

    #[test]
    fn an_address_is_open_until_its_answer_ends_and_by_any_of_its_names() {
        let (gate, pins, host) = (gate(), Pins::default(), HostAddresses::none());
        let grants = Arc::new(gate.judge_name("a.example.net").unwrap());
        let to: SocketAddr = "203.0.113.7:80".parse().unwrap();
        let open = || pins.judge(&gate, Protocol::Tcp, to, &host).verdict.is_allow();
        let now = Instant::now();
        assert!(!open());
        pins.open(to.ip(), &"a".into(), &grants, now, now);
        assert!(!open(), "it ended");
        pins.open(to.ip(), &"b".into(), &grants, now, now + Duration::from_secs(60));
        assert!(open());
        // In the other form of the same address, and in none of another's.
        for (form, expected) in [("[::ffff:203.0.113.7]:80", true), ("[::ffff:203.0.113.8]:80", false)] {
            let verdict = pins.judge(&gate, Protocol::Tcp, form.parse().unwrap(), &host).verdict;
            assert_eq!(verdict.is_allow(), expected, "{form}");
        }
        // A shorter answer does not shorten an earlier one.
        pins.open(to.ip(), &"b".into(), &grants, now, now);
        assert!(open());
        let names = OpenNames::of(pins.clone());
        let shown: Vec<(String, u64)> = names.list(now).into_iter().map(|one| (one.name, one.left_s)).collect();
        assert_eq!(shown, [("b".to_owned(), 60)], "one that ended is not shown");
        assert_eq!(names.list(now + Duration::from_secs(60)), []);
    }

    #[test]
    fn more_addresses_and_names_than_fit_push_out_the_first_to_end() {
        let (gate, pins) = (gate(), Pins::default());
        let grants = Arc::new(gate.judge_name("a.example.net").unwrap());
        let now = Instant::now();
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() + 1 {
            let until = now + Duration::from_secs(60 + u64::from(number));
            pins.open(
                std::net::Ipv4Addr::from_bits(number).into(),
                &"a".into(),
                &grants,
                now,
                until,
            );
        }
        for name in 0..NAMES_MAX + 9 {
            let until = now + Duration::from_secs(60);
            pins.open([203, 0, 113, 7].into(), &name.to_string().into(), &grants, now, until);
        }
        let open = pins.open.lock().unwrap();
        assert_eq!(open.len(), ADDRESSES_MAX);
        assert!(!open.contains_key(&IpAddr::from([0, 0, 0, 1])));
        assert_eq!(open[&IpAddr::from([203, 0, 113, 7])].len(), NAMES_MAX);
    }
}
