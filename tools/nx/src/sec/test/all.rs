//! `nx sec test all`: the proof that a policy asks for by what it says.

use super::args::Part;
use super::claim::{Claim, Finding, Seen, Wants};

use super::context::Context;
use super::deny::{self, Attempt};
use super::egress::{self, Target};
use super::kernel::Kernel;
use super::live::RECORDED_MAX;
use super::tamper::Tamper;
use super::{Found, binds, fences, ipc, limits, names, quota, sockets, view};
use crate::run::Failure;
use nexus_abi::{Area, Protocol, Verdict, syscall};
use nexus_net_egress::{EgressSet, PortRange, Reachable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most claims about syscalls of one subject: every call of the table and a few hundred edges of arguments. What is
/// more is left out, and said so.
const SYSCALLS_MAX: usize = 4 * RECORDED_MAX;

/// The most claims about destinations of one subject: some sixty rules' edges. What is more is left out, and said so.
const DESTINATIONS_MAX: usize = RECORDED_MAX;

/// The most ports that are listened on at once: descriptors, of which a process may have 1024.
pub(super) const PORTS_MAX: usize = 256;

/// The host's own addresses that are tried: machines with containers have thousands, all judged alike.
const OWN_MAX: usize = 8;

/// Allowed calls that are not attempted, because the probe would end, wait, or do more than it should.
const NOT_ATTEMPTED: [&str; 7] = [
    "exit",
    "exit_group",
    "pause",
    "rt_sigreturn",
    "sync",
    "uprobe",
    "uretprobe",
];

/// Allowed calls that a judge of their own decides later.
const JUDGED_ELSEWHERE: [&str; 5] = ["listen", "memfd_create", "msgget", "semget", "shmget"];

/// Calls whose allowed arguments can be tried because the arguments that no rule speaks of make them fail.
const ALLOWED_EDGES: [&str; 22] = [
    "chmod",
    "clone",
    "creat",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fcntl",
    "getsockopt",
    "ioctl",
    "mknod",
    "mknodat",
    "mmap",
    "mprotect",
    "open",
    "openat",
    "personality",
    "pkey_mprotect",
    "prctl",
    "seccomp",
    "setsockopt",
    "socketpair",
    "unshare",
];

/// The parts by their names.
const PARTS: [(Part, &str); 7] = [
    (Part::Syscall, "syscall"),
    (Part::Egress, "egress"),
    (Part::Quota, "quota"),
    (Part::View, "view"),
    (Part::Ipc, "ipc"),
    (Part::Limits, "limits"),
    (Part::Fences, "fences"),
];

/// Everything that can be seen of one subject's policy.
pub(super) fn prove(context: &Context, parts: &[Part], tamper: &dyn Tamper) -> Result<Found, Failure> {
    let mut found = Found::none(context);
    let wants = |part: Part| parts.is_empty() || parts.contains(&part);
    if let Some(mute) = deny::mute(context) {
        found.add(super::unheard(context, &mute, tamper)?);
        let why = deny::unheard(&mute).message;
        for (part, name) in PARTS.into_iter().filter(|(part, _)| wants(*part)) {
            let other = if part == Part::Syscall {
                "every other call"
            } else {
                "all of it"
            };
            found
                .findings
                .push(Finding::skipped(name, other.to_owned(), why.clone()));
        }
        return Ok(found);
    }
    if wants(Part::Syscall) {
        syscalls(context, &mut found, tamper)?;
    }
    if wants(Part::Egress) {
        destinations(context, &mut found, tamper)?;
    }
    if wants(Part::Quota) {
        quotas(context, &mut found, tamper)?;
    }
    if wants(Part::View) || wants(Part::Ipc) {
        surroundings(context, (wants(Part::View), wants(Part::Ipc)), &mut found, tamper)?;
    }
    if wants(Part::Limits) || wants(Part::Fences) {
        held(context, (wants(Part::Limits), wants(Part::Fences)), &mut found, tamper)?;
    }
    Ok(found)
}

fn syscalls(context: &Context, found: &mut Found, tamper: &dyn Tamper) -> Result<(), Failure> {
    let mut claims: Vec<(Claim, Attempt)> = Vec::new();
    let mut not_attempted = Vec::new();
    let mut edges_left = BTreeMap::new();
    let mut led = BTreeSet::new();
    for call in syscall::all() {
        let Some(number) = call.number() else { continue };
        let name = call.name();
        let addressed = deny::is_addressed(number);
        if addressed && !deny::has_socket(context) {
            found
                .left_out
                .push(format!("`{name}`: the probe may make no Unix socket to try it on"));
            continue;
        }
        if let Some(denied) = deny::denied(context, number) {
            claims.push(deny::claim(context, &denied));
        }
        for args in deny::candidates(context, number) {
            match context.judge_call(number, args) {
                Verdict::Deny { .. } => {
                    let denied = deny::denied_with(context, number, args)?;
                    claims.push(deny::claim(context, &denied));
                }
                Verdict::Allow { .. } if NOT_ATTEMPTED.contains(&name) || JUDGED_ELSEWHERE.contains(&name) => {
                    not_attempted.push(name);
                }
                Verdict::Allow { .. } if addressed => {
                    led.insert(name);
                }
                Verdict::Allow { rule } => {
                    let harmless = args == [deny::HARMLESS; 6] || ALLOWED_EDGES.contains(&name);
                    if harmless {
                        claims.push(deny::passage(context, Attempt { number, args }, rule));
                    } else if args != [0; 6] {
                        // Zeros are tried for what they may be denied by, and no rule speaks of them.
                        *edges_left.entry(name).or_insert(0_usize) += 1;
                    }
                }
            }
        }
    }
    let mut names = BTreeSet::new();
    claims.retain(|(claim, _)| names.insert(claim.name.clone()));
    not_attempted.sort_unstable();
    not_attempted.dedup();
    if !not_attempted.is_empty() {
        found
            .left_out
            .push(format!("allowed calls that are not tried: {}", not_attempted.join(" ")));
    }
    if !led.is_empty() {
        let names: Vec<_> = led.into_iter().collect();
        found.left_out.push(format!(
            "allowed calls that are judged by where they lead, which `--part egress,view` tries: {}",
            names.join(" ")
        ));
    }
    if !edges_left.is_empty() {
        let each: Vec<_> = edges_left
            .iter()
            .map(|(name, count)| format!("{name} ({count})"))
            .collect();
        found.left_out.push(format!(
            "allowed arguments that are not tried, because the call would do something with them: {}",
            each.join(" ")
        ));
    }
    cut(&mut claims, SYSCALLS_MAX, "syscalls", found);
    for some in claims.chunks(RECORDED_MAX) {
        let mut live = super::start(context, &[], tamper)?;
        let mut seen = Vec::with_capacity(some.len());
        for (claim, attempt) in some {
            seen.push((claim.clone(), deny::attempt(&mut live, *attempt)));
        }
        found.add(super::finish(context, live, &seen, tamper)?);
    }
    let mut live = super::start(context, &[], tamper)?;
    let mut seen = Vec::new();
    for (claim, outcome) in deny::foreign(&mut live) {
        match outcome {
            Ok(outcome) => seen.push((claim, outcome)),
            Err(why) => found.findings.push(Finding::skipped(claim.part, claim.name, why)),
        }
    }
    found.add(super::finish(context, live, &seen, tamper)?);
    Ok(())
}

fn cut<T>(claims: &mut Vec<T>, most: usize, what: &str, found: &mut Found) {
    if claims.len() > most {
        found
            .left_out
            .push(format!("{} more claims about {what}, past {most}", claims.len() - most));
        claims.truncate(most);
    }
}

fn destinations(context: &Context, found: &mut Found, tamper: &dyn Tamper) -> Result<(), Failure> {
    let too_complex = |_| {
        Failure::rejected(
            "the egress rules are too many to look at their edges".into(),
            "use fewer egress rules",
        )
    };
    let mut reachable: Option<Reachable> = None;
    for layer in context.session.rules.egress.iter() {
        let own = Reachable::of(&layer.rules).map_err(too_complex)?;
        reachable = Some(match &reachable {
            None => own,
            Some(ceiling) => own.under(ceiling).map_err(too_complex)?,
        });
    }
    let mut targets = BTreeSet::new();
    if let Some(reachable) = &reachable {
        edges(&reachable.outside, &mut targets);
        edges(&reachable.host_own, &mut targets);
    }
    special(context, &mut targets);
    let mut claims = Vec::new();
    for target in targets {
        let claim = egress::claim(context, target);
        match egress::unreachable(target) {
            Some(why) if !matches!(claim.wants, Wants::Refusal(_)) => {
                found.left_out.push(format!("{}: {why}", claim.name));
            }
            // Port 0 is refused before anybody judges it where there is nobody to ask.
            _ => claims.push((claim, target)),
        }
    }
    cut(&mut claims, DESTINATIONS_MAX, "destinations", found);
    let mut rest = claims.as_slice();
    while !rest.is_empty() {
        let mut ports: BTreeMap<(Protocol, u16), usize> = BTreeMap::new();
        let mut count = 0;
        for (_, target) in rest {
            let port = (target.protocol, target.address.port());
            if !ports.contains_key(&port) && ports.len() >= PORTS_MAX {
                break;
            }
            if port.1 != 0 {
                ports.insert(port, 0);
            }
            count += 1;
        }
        let (some, later) = rest.split_at(count);
        rest = later;
        let listened: Vec<_> = ports.keys().copied().collect();
        ports.values_mut().zip(0..).for_each(|(index, at)| *index = at);
        let mut live = super::start(context, &listened, tamper)?;
        let mut seen = Vec::with_capacity(some.len());
        for (claim, target) in some {
            let sink = ports.get(&(target.protocol, target.address.port())).copied();
            seen.push((claim.clone(), egress::attempt(context, &mut live, *target, claim, sink)));
        }
        found.add(super::finish(context, live, &seen, tamper)?);
    }
    if let Some(reachable) = &reachable {
        binds::prove(context, reachable, found, tamper)?;
    }
    names::prove(context, found, tamper)
}

/// The first and the last of each stretch of addresses and of ports, and what stands just outside.
fn edges(set: &EgressSet, targets: &mut BTreeSet<Target>) {
    for piece in set.pieces() {
        let protocol = piece.protocol;
        let mut add = |ip: IpAddr, port: u16| {
            targets.insert(Target {
                protocol,
                address: SocketAddr::new(ip, port),
            });
        };
        for range in piece.ports {
            let (first, last) = (range.first().max(1), range.last());
            for ip in [piece.first, piece.last] {
                add(ip, first);
                add(ip, last);
            }
            for ip in [before(piece.first), after(piece.last)].into_iter().flatten() {
                add(ip, first);
            }
            let outside = [first.checked_sub(1).filter(|port| *port > 0), last.checked_add(1)];
            for port in outside.into_iter().flatten() {
                add(piece.first, port);
            }
        }
    }
}

/// What no wide rule opens: the host's own addresses, its loopback, clouds' metadata services; and somewhere else.
fn special(context: &Context, targets: &mut BTreeSet<Target>) {
    let opened = context.session.rules.egress.iter().flat_map(|layer| &layer.rules);
    let port = opened
        .flat_map(|rule| &rule.ports)
        .map(PortRange::first)
        .find(|port| *port > 0);
    let port = port.unwrap_or(443);
    let fixed = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
        // Nobody's: documentation, RFC 5737 and RFC 3849.
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    let own: BTreeSet<IpAddr> = context.own.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    for ip in fixed.into_iter().chain(own.into_iter().take(OWN_MAX)) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            targets.insert(Target {
                protocol,
                address: SocketAddr::new(ip, port),
            });
        }
    }
}

fn before(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn after(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn quotas(context: &Context, found: &mut Found, tamper: &dyn Tamper) -> Result<(), Failure> {
    if let Some(why) = quota::obstacle(context) {
        for area in [Area::Tmp, Area::State] {
            found
                .findings
                .push(Finding::skipped("quota", area.to_string(), why.clone()));
        }
        return Ok(());
    }
    let mut live = super::start(context, &[], tamper)?;
    let mut seen: Vec<(Claim, Seen)> = Vec::new();
    let mut others = Vec::new();
    for area in [Area::Tmp, Area::State] {
        match quota::attempt(context, &mut live, area, &mut found.left_out) {
            Ok(some) => seen.extend(some),
            Err(finding) => others.push(*finding),
        }
    }
    found.add(super::finish(context, live, &seen, tamper)?);
    found.findings.extend(others);
    Ok(())
}

/// What it sees of the host, and how much it may share between its processes.
fn surroundings(
    context: &Context,
    (view, ipc): (bool, bool),
    found: &mut Found,
    tamper: &dyn Tamper,
) -> Result<(), Failure> {
    let mut live = super::start(context, &[], tamper)?;
    let mut seen = Vec::new();
    match view::obstacle(context) {
        Some(finding) if view => found.findings.push(finding),
        None if view => {
            seen.extend(view::attempt(context, &mut live, &mut found.left_out));
            seen.extend(view::devices(context, &mut live));
        }
        _ => {}
    }
    if view {
        seen.extend(sockets::attempt(context, &mut live, &mut found.left_out));
        found.left_out.extend(view::NOT_TRIED.map(str::to_owned));
    }
    if ipc {
        seen.extend(ipc::attempt(context, &mut live, &mut found.left_out));
    }
    found.add(super::finish(context, live, &seen, tamper)?);
    Ok(())
}

/// What holds the probe besides filter and view, looked at from outside and tried.
fn held(
    context: &Context,
    (limits, fences): (bool, bool),
    found: &mut Found,
    tamper: &dyn Tamper,
) -> Result<(), Failure> {
    let mut live = super::start(context, &[], tamper)?;
    let mut seen = Vec::new();
    match Kernel::of(&live) {
        Err(why) => {
            let parts = [(limits, "limits"), (fences, "fences")];
            for (_, part) in parts.into_iter().filter(|(wanted, _)| *wanted) {
                let name = "all of it".to_owned();
                found.findings.push(if Kernel::shows_programs() {
                    Finding::failed(part, name, why.clone())
                } else {
                    Finding::skipped(part, name, why.clone())
                });
            }
        }
        Ok(kernel) => {
            if fences {
                seen.extend(fences::attempt(context, &mut live, &kernel, &mut found.left_out));
            }
            if limits {
                let (claims, skipped) = limits::attempt(context, &mut live, &kernel, &mut found.left_out);
                seen.extend(claims);
                found.findings.extend(skipped);
            }
        }
    }
    found.add(super::finish(context, live, &seen, tamper)?);
    Ok(())
}
