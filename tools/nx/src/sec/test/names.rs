//! Rules by name: the session's resolver answers a name that is allowed, and what it was answered with is open at the rule's
//! ports; the nearest name that is not is refused, and nobody is asked for it.
//!
//! The name servers that the host has are in the proof's own network, where every address is local: the proof answers for
//! them, with addresses that are nobody's.

use super::Found;
use super::all::PORTS_MAX;
use super::claim::{Claim, Finding, Refusal, Seen, Wants};
use super::context::{Context, Rule};
use super::egress::{self, Target};
use super::live::{Live, Lost};
use super::tamper::Tamper;
use crate::run::Failure;
use nexus_abi::{Effect, Operation, Protocol, Reason, Verdict, syscall};
use nexus_policy::{NameGrants, NamePattern};
use nexus_sys::probe::{DATA_ADDRESS, DATA_BYTES, Frame};
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// The most patterns that are tried in one proof; what is more is left out, and said so.
const PATTERNS_MAX: usize = 64;

/// The most ports of one name that are tried: its ranges' edges.
const EDGES_MAX: usize = 32;

/// Where a session's resolver listens. resolver(5)
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// The longest name, RFC 1035 2.3.4, and the longest of its parts.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The life of an answer, in seconds: longer than a proof.
const TTL: u32 = 600;

/// Networks that are nobody's, RFC 5737: what names are answered with.
const NETWORKS: [[u8; 3]; 3] = [[198, 51, 100], [203, 0, 113], [192, 0, 2]];

/// A name to look up, and what policy says of it.
struct Asked {
    name: String,
    says: Result<Granted, Verdict>,
}

/// A name that is answered.
struct Granted {
    grants: NameGrants,
    /// With which address.
    ip: Ipv4Addr,
    targets: Vec<Target>,
}

/// Sees what the rules by name say, if there are any that open something.
pub(super) fn prove(context: &Context, found: &mut Found, tamper: &dyn Tamper) -> Result<(), Failure> {
    if !context.gate.opens_names() {
        return Ok(());
    }
    let servers: Vec<SocketAddr> = netd::name_servers()
        .into_iter()
        .filter(|at| !matches!(at, SocketAddr::V6(v6) if v6.scope_id() != 0))
        .collect();
    if let Some(why) = obstacle(context, &servers) {
        found
            .findings
            .push(Finding::skipped("egress", "rules by name".to_owned(), why));
        return Ok(());
    }
    let asked = questions(context, &mut found.left_out);
    let ports: BTreeSet<(Protocol, u16)> = asked
        .iter()
        .filter_map(|asked| asked.says.as_ref().ok())
        .flat_map(|granted| &granted.targets)
        .map(|target| (target.protocol, target.address.port()))
        .collect();
    let ports: Vec<_> = ports.into_iter().collect();
    let mut live = super::start_with(context, &ports, &servers, tamper)?;
    let answering: Vec<usize> = (ports.len()..live.sinks.len()).collect();
    let mut proof = Proof {
        context,
        ports,
        answering,
        socket: None,
        id: 0,
        claims: Vec::new(),
    };
    for asked in &asked {
        proof.one(&mut live, asked);
    }
    found.add(super::finish(context, live, &proof.claims, tamper)?);
    Ok(())
}

/// Why names cannot be looked at.
fn obstacle(context: &Context, servers: &[SocketAddr]) -> Option<String> {
    if servers.is_empty() {
        return Some("the host's name servers are at link-local addresses, for which no proof can answer".to_owned());
    }
    let resolver = Target {
        protocol: Protocol::Udp,
        address: RESOLVER,
    };
    match egress::claim(context, resolver).wants {
        Wants::Refusal(refusal) => Some(format!("the probe may not ask the resolver: {}", refusal.reason)),
        Wants::Passage(None) => None,
        _ => Some(format!(
            "policy leads udp {RESOLVER} to the host's own, and not to the resolver"
        )),
    }
}

/// Each rule's name and its nearest neighbours.
fn questions(context: &Context, left_out: &mut Vec<String>) -> Vec<Asked> {
    let rules = context
        .session
        .rules
        .egress
        .iter()
        .next_back()
        .map(|layer| &layer.names);
    let patterns: BTreeSet<&NamePattern> = rules.into_iter().flatten().map(|rule| &rule.pattern).collect();
    if patterns.len() > PATTERNS_MAX {
        left_out.push(format!(
            "{} more rules by name, past {PATTERNS_MAX}",
            patterns.len() - PATTERNS_MAX
        ));
    }
    let mut names = BTreeSet::new();
    for pattern in patterns.into_iter().take(PATTERNS_MAX) {
        names.extend(around(pattern));
    }
    let mut addresses = NETWORKS
        .iter()
        .flat_map(|[a, b, c]| (1..255).map(move |last| Ipv4Addr::new(*a, *b, *c, last)));
    let mut ports = BTreeSet::new();
    let mut out = Vec::new();
    for name in names {
        if !netd::listed_addresses(&name).is_empty() {
            left_out.push(format!(
                "the name {name}: the host's own /etc/hosts says where it leads"
            ));
            continue;
        }
        let says = match context.gate.judge_name(&name) {
            Err(verdict) => Err(verdict),
            Ok(grants) => {
                let edges = edges(context, &name);
                // One that the rules by address are silent of, so that what opens it is the name.
                let silent = |ip: &Ipv4Addr| {
                    edges.iter().all(|(protocol, port)| {
                        let route = context.gate.judge(*protocol, (*ip).into(), *port, &context.host);
                        matches!(
                            route.verdict,
                            Verdict::Deny {
                                reason: Reason::EgressNoRule,
                                ..
                            }
                        )
                    })
                };
                let Some(ip) = addresses.find(silent) else {
                    left_out.push(format!(
                        "the name {name}: rules by address speak of every address that a proof could answer with"
                    ));
                    continue;
                };
                let mut targets = Vec::new();
                for (protocol, port) in edges {
                    if !ports.contains(&(protocol, port)) && ports.len() >= PORTS_MAX {
                        left_out.push(format!(
                            "{protocol} port {port} of the name {name}: one too many to listen on"
                        ));
                        continue;
                    }
                    ports.insert((protocol, port));
                    targets.push(Target {
                        protocol,
                        address: SocketAddr::new(ip.into(), port),
                    });
                }
                Ok(Granted { grants, ip, targets })
            }
        };
        out.push(Asked { name, says });
    }
    out
}

/// A name that a pattern covers, and the nearest that it does not: above, below, and with a letter more.
fn around(pattern: &NamePattern) -> impl Iterator<Item = String> {
    let name = pattern.name();
    let above = name.split_once('.').map(|(_, above)| above.to_owned());
    let all = [
        Some(name.to_owned()),
        Some(format!("nx-proof.{name}")),
        Some(format!("x{name}")),
        above.filter(|above| above.contains('.')),
    ];
    let fits = |name: &String| {
        let labels = name.split('.').all(|label| label.len() <= LABEL_BYTES_MAX);
        labels && name.len() <= NAME_BYTES_MAX
    };
    all.into_iter().flatten().filter(fits)
}

/// The edges of the ports that rules of this name speak of, and what stands just outside.
fn edges(context: &Context, name: &str) -> Vec<(Protocol, u16)> {
    let own = context.session.rules.egress.iter().next_back();
    let rules = own.into_iter().flat_map(|layer| &layer.names);
    let mut out = BTreeSet::new();
    for rule in rules.filter(|rule| rule.pattern.covers(name)) {
        for range in &rule.ports {
            let (first, last) = (range.first(), range.last());
            let ports = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            let ports = ports.into_iter().flatten().filter(|port| *port > 0);
            out.extend(ports.map(|port| (rule.protocol, port)));
        }
    }
    out.into_iter().take(EDGES_MAX).collect()
}

struct Proof<'a> {
    context: &'a Context,
    ports: Vec<(Protocol, u16)>,
    /// Which of the session's listeners are asked for names.
    answering: Vec<usize>,
    /// The probe's socket to the resolver.
    socket: Option<u64>,
    id: u16,
    claims: Vec<(Claim, Seen)>,
}

impl Proof<'_> {
    fn one(&mut self, live: &mut Live, asked: &Asked) {
        let Asked { name, says } = asked;
        let granted = match says {
            Err(verdict) => return self.refused(live, name, *verdict),
            Ok(granted) => granted,
        };
        let opened = |target: &&Target| {
            let claim = egress::claim_named(self.context, **target, &[&granted.grants]);
            matches!(claim.wants, Wants::Passage(_))
        };
        if let Some(first) = granted.targets.iter().find(opened).copied() {
            let claim = egress::claim(self.context, first);
            self.connect(live, first, claim, &format!("before {name} was looked up"));
        }
        let asked = RefCell::new(0_u32);
        let value = self.look_up(live, name, granted.ip, &asked);
        let check = match &value {
            Ok((0, ips)) if ips[..] == [granted.ip] && asked.take() > 0 => {
                Ok(format!("answered with {} by the proof's name server", granted.ip))
            }
            Ok((code, ips)) => Err(format!(
                "answered with code {code} and {ips:?}, where {} should be",
                granted.ip
            )),
            Err(_) => Err("nobody answered".to_owned()),
        };
        let claim = Claim {
            part: "egress",
            name: format!("the name {name}"),
            wants: Wants::Passage(None),
            rule: self.opening(name),
        };
        let seen = Seen {
            value: value.map(|_| 0),
            checks: vec![check],
        };
        self.claims.push((claim, seen));
        for target in &granted.targets {
            let claim = egress::claim_named(self.context, *target, &[&granted.grants]);
            self.connect(live, *target, claim, &format!("once {name} was looked up"));
        }
    }

    /// The rule that opens a name.
    fn opening(&self, name: &str) -> Rule {
        let own = self.context.session.rules.egress.iter().next_back();
        let mut rules = own.into_iter().flat_map(|layer| &layer.names);
        let rule = rules.find(|rule| rule.effect == Effect::Allow && rule.pattern.covers(name));
        self.context.rule(rule.map(|rule| rule.rule), None)
    }

    fn refused(&mut self, live: &mut Live, name: &str, verdict: Verdict) {
        let Verdict::Deny { reason, errno, rule } = verdict else {
            return;
        };
        let asked = RefCell::new(0_u32);
        let value = self.look_up(live, name, Ipv4Addr::UNSPECIFIED, &asked);
        let check = match asked.take() {
            0 => Ok("nobody was asked".to_owned()),
            count => Err(format!("the name server was asked {count} times")),
        };
        let refusal = Refusal {
            op: Operation::Resolve,
            object: name.to_owned(),
            reason,
            errno,
        };
        let claim = Claim {
            part: "egress",
            name: format!("the name {name}"),
            wants: Wants::NoName(refusal),
            rule: self.context.rule(rule, Some(reason)),
        };
        let seen = Seen {
            value: value.map(|(code, _)| code),
            checks: vec![check],
        };
        self.claims.push((claim, seen));
    }

    fn connect(&mut self, live: &mut Live, target: Target, mut claim: Claim, when: &str) {
        claim.name = format!("{}, {when}", claim.name);
        let port = (target.protocol, target.address.port());
        let sink = self.ports.iter().position(|known| *known == port);
        let seen = egress::attempt(self.context, live, target, &claim, sink);
        self.claims.push((claim, seen));
    }

    /// Has the probe ask the session's resolver, and answers what the resolver asks: the code of what the probe heard, and
    /// the addresses in it.
    fn look_up(
        &mut self,
        live: &mut Live,
        name: &str,
        ip: Ipv4Addr,
        asked: &RefCell<u32>,
    ) -> Result<(i64, Vec<Ipv4Addr>), Lost> {
        const NOTHING: (i64, Vec<Ipv4Addr>) = (-1, Vec::new());
        let socket = match self.socket {
            Some(socket) => socket,
            None => match reach(live)? {
                Ok(socket) => *self.socket.insert(socket),
                Err(errno) => return Ok((errno, Vec::new())),
            },
        };
        self.id = self.id.wrapping_add(1);
        let Some(query) = query(self.id, name) else {
            return Ok(NOTHING);
        };
        // The calls that the probe makes of its own, which it surely may.
        let number = |name: &str| syscall::number(name).unwrap_or(u32::MAX);
        let sent = egress::call(
            live,
            number("write"),
            [socket, DATA_ADDRESS, query.len() as u64, 0, 0, 0],
            &query,
        )?;
        if sent < 0 {
            return Ok((sent, Vec::new()));
        }
        let frame = Frame {
            number: number("read").into(),
            args: [socket, DATA_ADDRESS, DATA_BYTES as u64, 0, 0, 0],
            ..Frame::default()
        };
        let reply = live.call_beside(&frame, &self.answering, |server| {
            if answer(server, ip).is_some() {
                *asked.borrow_mut() += 1;
            }
        })?;
        let Some(bytes) = usize::try_from(reply.value)
            .ok()
            .and_then(|length| reply.data.get(..length))
        else {
            return Ok((reply.value, Vec::new()));
        };
        Ok(heard(bytes, self.id).unwrap_or(NOTHING))
    }
}

/// A datagram socket of the probe's that is connected to the session's resolver, or the errno.
fn reach(live: &mut Live) -> Result<Result<u64, i64>, Lost> {
    let target = Target {
        protocol: Protocol::Udp,
        address: RESOLVER,
    };
    let number = |name: &str| syscall::number(name).unwrap_or(u32::MAX);
    let socket = match egress::call(live, number("socket"), egress::socket_args(target), &[])? {
        socket if socket >= 0 => socket.cast_unsigned(),
        errno => return Ok(Err(errno)),
    };
    let address = egress::encoded(RESOLVER);
    let args = [socket, DATA_ADDRESS, address.len() as u64, 0, 0, 0];
    let connected = egress::call(live, number("connect"), args, &address)?;
    Ok(if connected == 0 { Ok(socket) } else { Err(connected) })
}

/// A question for the IPv4 addresses of a name.
fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).ok()?;
    let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(Question::new(name, kind, class, false));
    packet.build_bytes_vec().ok()
}

/// What an answer says: its code, and the IPv4 addresses in it.
fn heard(bytes: &[u8], id: u16) -> Option<(i64, Vec<Ipv4Addr>)> {
    let packet = Packet::parse(bytes).ok().filter(|packet| packet.id() == id)?;
    let code = match packet.rcode() {
        RCODE::NoError => 0,
        RCODE::ServerFailure => 2,
        RCODE::NameError => 3,
        _ => -1,
    };
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(A { address }) => Some(Ipv4Addr::from_bits(*address)),
        _ => None,
    });
    Some((code, addresses.collect()))
}

/// Answers one question that came to a name server, with this address.
fn answer(server: &OwnedFd, ip: Ipv4Addr) -> Option<()> {
    let mut bytes = [0_u8; 2048];
    let (_, length, from) = recvfrom(server, &mut bytes[..], RecvFlags::DONTWAIT).ok()?;
    let asked = Packet::parse(bytes.get(..length)?).ok()?;
    let question = asked.questions.first()?;
    let mut reply = Packet::new_reply(asked.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
    reply.questions.push(question.clone());
    if question.qtype == QTYPE::TYPE(TYPE::A) {
        let data = RData::A(A { address: ip.to_bits() });
        let record = ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
        reply.answers.push(record);
    }
    let bytes = reply.build_bytes_vec().ok()?;
    // Who does not hear it asks again.
    let _ = sendto(server, &bytes, SendFlags::DONTWAIT, &from?);
    Some(())
}
