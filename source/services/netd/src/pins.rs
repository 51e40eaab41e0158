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
