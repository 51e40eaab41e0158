//! The session's resolver: it answers the names that policy allows and opens what it answered.
//!
//! It listens on the program's own loopback and asks the host's servers for the program. An address is open only because it
//! was answered here, for the ports of the name's rules, as long as the answer holds.

mod conf;
mod message;
mod upstream;

pub use message::read_any_message;

use crate::host::Host;
use crate::pins::Pins;
use crate::worker::LateDenial;
use crate::{Denial, Stop};
use message::{Answer, Data, Kind, Query, Record, Reply, read_query, write_reply};
use nexus_abi::{Errno, Operation, Reason, Verdict};
use nexus_net_egress::{judged_as, special_block};
use nexus_policy::{EgressGate, NameGrants};
use nexus_sys::socket as sys;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many lookups are under way at once; each has a thread. More are dropped, as a busy server does: programs ask again.
const LOOKUPS_MAX: usize = 64;

/// How many connections there are at once, and how long one may be silent.
const CONNECTIONS_MAX: usize = 16;
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The longest life of an answer, whatever its server says: an address that changed owners is not open for ever.
const TTL_MAX: u32 = 3600;

/// How long an address stays open after its answer ended, and how long at least: a program connects after it looked up.
const GRACE: Duration = Duration::from_secs(30);
const OPEN_MIN: Duration = Duration::from_secs(60);

/// The life of what the host's own file says.
const HOSTS_TTL: u32 = 60;

/// How many aliases lead to a name, and how many addresses of one are opened.
const ALIASES_MAX: usize = 16;
const ADDRESSES_MAX: usize = 64;

const STACK_BYTES: usize = 256 * 1024;

/// Where it listens inside.
pub(crate) const AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// The servers that names are asked of here, in order: the host's own, `resolv.conf`(5).
#[must_use]
pub fn name_servers() -> Vec<SocketAddr> {
    conf::servers(&conf::read("/etc/resolv.conf"))
}

/// What the host's own file says of a name in lower case, hosts(5): where it says anything, no server is asked.
#[must_use]
pub fn listed_addresses(name: &str) -> Vec<IpAddr> {
    conf::hosts(&conf::read("/etc/hosts"), name)
}

struct Resolver {
    gate: EgressGate,
    pins: Pins,
    host: Mutex<Option<Host>>,
    denied: LateDenial,
    lookups: AtomicUsize,
    connections: AtomicUsize,
}

/// One more of something that is counted, until it is dropped.
struct Counted(Arc<Resolver>, fn(&Resolver) -> &AtomicUsize);

impl Counted {
    fn of(resolver: &Arc<Resolver>, counter: fn(&Resolver) -> &AtomicUsize, max: usize) -> Option<Self> {
        let counted = Self(Arc::clone(resolver), counter);
        (counter(resolver).fetch_add(1, Ordering::AcqRel) < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::AcqRel);
    }
}

/// Starts answering on these sockets of the program's network namespace, a datagram and a stream one.
pub(crate) fn start(
    gate: EgressGate,
    pins: Pins,
    denied: LateDenial,
    datagrams: OwnedFd,
    streams: OwnedFd,
) -> std::io::Result<()> {
    let at = crate::local::encode(AT);
    sys::bind(&datagrams, &at)?;
    sys::bind(&streams, &at)?;
    sys::listen(&streams, 16)?;
    let resolver = Arc::new(Resolver::new(gate, pins, denied));
    let (socket, listener) = (UdpSocket::from(datagrams), TcpListener::from(streams));
    let other = Arc::clone(&resolver);
    let thread = |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    thread("names").spawn(move || datagrams_of(&resolver, &Arc::new(socket)))?;
    thread("names-tcp").spawn(move || streams_of(&other, &listener))?;
    Ok(())
}

fn datagrams_of(resolver: &Arc<Resolver>, socket: &Arc<UdpSocket>) {
    let mut bytes = [0; 4096];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut bytes) else {
            // An error of an earlier answer: its receiver is gone.
            continue;
        };
        look_up(resolver, socket, bytes.get(..count).unwrap_or_default(), from);
    }
}

/// Begins to answer one question, if there are not too many already; says whether it did.
fn look_up(resolver: &Arc<Resolver>, socket: &Arc<UdpSocket>, query: &[u8], from: SocketAddr) -> bool {
    let Some(counted) = Counted::of(resolver, |resolver| &resolver.lookups, LOOKUPS_MAX) else {
        return false;
    };
    let (query, socket) = (query.to_vec(), Arc::clone(socket));
    let work = move || {
        if let Some(reply) = counted.0.answer(&query, true) {
            let _ = socket.send_to(&reply, from);
        }
    };
    // Without a thread it is dropped.
    let thread = thread::Builder::new().name("name".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(work).is_ok()
}

fn streams_of(resolver: &Arc<Resolver>, listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: not again at once.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let Some(counted) = Counted::of(resolver, |resolver| &resolver.connections, CONNECTIONS_MAX) else {
            continue;
        };
        let work = move || serve(&counted.0, stream);
        let _ = thread::Builder::new()
            .name("name-tcp".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work);
    }
}

/// One question after the other, each with its length before it. RFC 7766.
fn serve(resolver: &Arc<Resolver>, mut stream: TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
    stream.set_write_timeout(Some(SILENCE_MAX)).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let reply = {
            let _counted = Counted::of(resolver, |resolver| &resolver.lookups, LOOKUPS_MAX)?;
            resolver.answer(&query, false)?
        };
        let length = u16::try_from(reply.len()).ok()?;
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).ok()?;
    }
}

impl Resolver {
    fn new(gate: EgressGate, pins: Pins, denied: LateDenial) -> Self {
        Self {
            gate,
            pins,
            host: Mutex::new(None),
            denied,
            lookups: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    fn answer(&self, bytes: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        match read_query(bytes) {
            Err(said) => said,
            Ok(query) => write_reply(&query, &self.resolve(&query), over_udp),
        }
    }

    fn resolve(&self, query: &Query) -> Reply {
        let name = query.name.as_str();
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761: never asked.
            return Reply::Records(self.own(query));
        }
        let grants = match self.gate.judge_name(name) {
            Ok(grants) => grants,
            Err(verdict) => {
                self.refuse(name.to_owned(), verdict);
                return Reply::NoName;
            }
        };
        if query.kind == Kind::Other {
            return Reply::Records(Vec::new());
        }
        let listed = listed_addresses(name);
        if !listed.is_empty() {
            let records = listed.into_iter().filter(|ip| fits(*ip, query.kind)).map(|ip| Record {
                name: name.to_owned(),
                ttl: HOSTS_TTL,
                data: Data::Address(ip),
            });
            return self.open(query, grants, records.collect());
        }
        match upstream::ask(name, query.kind) {
            Answer::Records(records) => self.open(query, grants, records),
            Answer::NoName => Reply::NoName,
            Answer::Truncated | Answer::Failed => Reply::Failed,
        }
    }

    fn own(&self, query: &Query) -> Vec<Record> {
        let ip: IpAddr = match query.kind {
            Kind::A => Ipv4Addr::LOCALHOST.into(),
            Kind::Aaaa => Ipv6Addr::LOCALHOST.into(),
            Kind::Other => return Vec::new(),
        };
        vec![Record {
            name: query.name.clone(),
            ttl: HOSTS_TTL,
            data: Data::Address(ip),
        }]
    }

    /// Follows the aliases of an answer to its addresses, opens these, and says what the program is told. What the answer
    /// holds besides means nothing.
    fn open(&self, query: &Query, mut grants: NameGrants, records: Vec<Record>) -> Reply {
        let mut told = Vec::new();
        let mut at = query.name.clone();
        let mut ttl = TTL_MAX;
        for _ in 0..ALIASES_MAX {
            let alias = records.iter().find_map(|record| match &record.data {
                Data::Alias(target) if record.name == at => Some((record.ttl, target.clone())),
                _ => None,
            });
            let Some((alias_ttl, target)) = alias else { break };
            ttl = ttl.min(alias_ttl);
            grants.close(&self.gate.alias(&target));
            told.push(Record {
                name: at,
                ttl,
                data: Data::Alias(target.clone()),
            });
            at = target;
        }
        if let Some(rule) = grants.closed_by() {
            let verdict = Verdict::Deny {
                reason: Reason::EgressDenyRule,
                errno: Errno::EPERM,
                rule: Some(rule),
            };
            self.refuse(format!("{} alias {at}", query.name), verdict);
            return Reply::NoName;
        }
        let addresses: Vec<(u32, IpAddr)> = records
            .iter()
            .filter_map(|record| match record.data {
                Data::Address(ip) if record.name == at && fits(ip, query.kind) => Some((ttl.min(record.ttl), ip)),
                _ => None,
            })
            .take(ADDRESSES_MAX)
            .collect();
        let (name, grants): (Arc<str>, _) = (query.name.as_str().into(), Arc::new(grants));
        for (ttl, ip) in addresses {
            if self.is_special(ip) {
                let verdict = Verdict::Deny {
                    reason: Reason::EgressSpecialAddress,
                    errno: Errno::EPERM,
                    rule: None,
                };
                self.refuse(format!("{name} {ip}"), verdict);
                continue;
            }
            let now = Instant::now();
            let held = OPEN_MIN.max(Duration::from_secs(u64::from(ttl)).saturating_add(GRACE));
            if let Some(until) = now.checked_add(held) {
                self.pins.open(ip, &name, &grants, now, until);
            }
            told.push(Record {
                name: at.clone(),
                ttl,
                data: Data::Address(ip),
            });
        }
        Reply::Records(told)
    }

    /// What only a rule by address opens is nothing that a name leads to: whoever answers for the name would choose it.
    fn is_special(&self, ip: IpAddr) -> bool {
        let judged = judged_as(ip);
        if special_block(judged).is_some() {
            return true;
        }
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if host.is_none() {
            *host = Host::watch().ok();
        }
        // Who does not know the host's addresses takes all for one.
        host.as_mut()
            .and_then(|host| host.now().ok())
            .is_none_or(|addresses| addresses.contains(judged))
    }

    fn refuse(&self, object: String, verdict: Verdict) {
        if let Verdict::Deny { reason, errno, rule } = verdict {
            (self.denied)(Denial {
                operation: Operation::Resolve,
                object,
                reason,
                errno,
                rule,
            });
        }
    }
}

fn fits(ip: IpAddr, kind: Kind) -> bool {
    match kind {
        Kind::A => ip.is_ipv4(),
        Kind::Aaaa => ip.is_ipv6(),
        Kind::Other => false,
    }
}

impl From<Stop> for std::io::Error {
    fn from(stop: Stop) -> Self {
        let errno = match stop {
            Stop::Errno(errno) => errno,
            Stop::Denied(denial) => denial.errno,
        };
        Self::from_raw_os_error(i32::from(errno.raw()))
    }
}

#[cfg(test)]
mod tests;
