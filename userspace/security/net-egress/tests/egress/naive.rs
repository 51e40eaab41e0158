//! A second, naive judge: reads every rule for every question. Shares no code with the table.

use nexus_abi::{Effect, Errno, Protocol, Reason, RuleRef, Verdict};
use nexus_net_egress::{Cidr, EgressRule, Reach, parse_cidr, parse_ports};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) fn rule(effect: Effect, protocol: Protocol, cidr: &str, ports: &str, number: u32) -> EgressRule {
    EgressRule {
        effect,
        protocol,
        cidr: parse_cidr(cidr).unwrap_or_else(|error| panic!("{cidr}: {error}")),
        ports: parse_ports(ports).unwrap_or_else(|error| panic!("{ports}: {error}")),
        rule: RuleRef(number),
    }
}

pub(crate) fn allow(cidr: &str, ports: &str, number: u32) -> EgressRule {
    rule(Effect::Allow, Protocol::Tcp, cidr, ports, number)
}

pub(crate) fn deny(cidr: &str, ports: &str, number: u32) -> EgressRule {
    rule(Effect::Deny, Protocol::Tcp, cidr, ports, number)
}

fn in_range(address: IpAddr, first: &str, last: &str) -> bool {
    match (address, first.parse().unwrap(), last.parse().unwrap()) {
        (IpAddr::V4(address), IpAddr::V4(first), IpAddr::V4(last)) => first <= address && address <= last,
        (IpAddr::V6(address), IpAddr::V6(first), IpAddr::V6(last)) => first <= address && address <= last,
        _ => false,
    }
}

/// The first and last address of each special block, written out a second time.
const BLOCKS: &[(&str, &str)] = &[
    ("127.0.0.0", "127.255.255.255"),
    ("::1", "::1"),
    ("255.255.255.255", "255.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
    ("100.100.100.200", "100.100.100.200"),
    ("192.0.0.192", "192.0.0.192"),
    ("169.254.0.0", "169.254.255.255"),
    ("0.0.0.0", "0.255.255.255"),
    ("240.0.0.0", "255.255.255.254"),
    ("224.0.0.0", "239.255.255.255"),
    ("fd20:ce::254", "fd20:ce::254"),
    ("::", "::ffff:ffff"),
    ("::ffff:0:0:0", "::ffff:0:ffff:ffff"),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
    ("fd00:ec2::", "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

fn range_of(cidr: &Cidr) -> (IpAddr, IpAddr) {
    (cidr.address(), cidr.last_address())
}

fn covers(first: IpAddr, last: IpAddr, address: IpAddr) -> bool {
    first.is_ipv4() == address.is_ipv4() && first <= address && address <= last
}

/// The address that is judged, whether it is the translated one, and the one before loopback took the place of nothing.
fn read(address: IpAddr) -> (IpAddr, IpAddr, bool) {
    let mut nat64 = false;
    let mut read = address;
    if let IpAddr::V6(v6) = address {
        let segments = v6.segments();
        let last: [u8; 4] = v6.octets()[12..].try_into().unwrap();
        if segments[..6] == [0, 0, 0, 0, 0, 0xffff] {
            read = Ipv4Addr::from(last).into();
        } else if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
            read = Ipv4Addr::from(last).into();
            nat64 = true;
        }
    }
    let specified = match read {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    (specified, read, nat64)
}

/// What the table must say.
pub(crate) fn oracle(
    rules: &[EgressRule],
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    host: &[IpAddr],
) -> (Verdict, Option<Reach>) {
    let deny = |reason, rule| {
        (
            Verdict::Deny {
                reason,
                errno: Errno::EPERM,
                rule,
            },
            None,
        )
    };
    let (judged, unspecified, nat64) = read(address);
    if port == 0 {
        return deny(Reason::EgressNoRule, None);
    }
    let best = |effect, address: IpAddr, inside: Option<(IpAddr, IpAddr)>| {
        let mut best: Option<&EgressRule> = None;
        for rule in rules {
            let (first, last) = range_of(&rule.cidr);
            let matches = rule.effect == effect
                && rule.protocol == protocol
                && covers(first, last, address)
                && rule.ports.iter().any(|range| range.contains(port))
                && inside.is_none_or(|(from, to)| from <= first && last <= to);
            let wins = |old: &EgressRule| {
                (rule.cidr.prefix(), std::cmp::Reverse(rule.rule)) > (old.cidr.prefix(), std::cmp::Reverse(old.rule))
            };
            if matches && best.is_none_or(wins) {
                best = Some(rule);
            }
        }
        best.map(|rule| rule.rule)
    };
    if let Some(rule) = best(Effect::Deny, judged, None).or_else(|| best(Effect::Deny, unspecified, None)) {
        return deny(Reason::EgressDenyRule, Some(rule));
    }
    let loopback = in_range(judged, "127.0.0.0", "127.255.255.255") || in_range(judged, "::1", "::1");
    let block = if !loopback && host.contains(&judged) {
        Some((judged, judged))
    } else {
        let block = BLOCKS.iter().find(|(first, last)| in_range(judged, first, last));
        block.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap()))
    };
    if block.is_some() && nat64 {
        return deny(Reason::EgressSpecialAddress, None);
    }
    // Class E's written-out range ends before broadcast; a rule for all of class E still names the rest of it.
    let block = block.map(|(first, last): (IpAddr, IpAddr)| {
        let whole_class = last == "255.255.255.254".parse::<IpAddr>().unwrap();
        (
            first,
            if whole_class {
                "255.255.255.255".parse().unwrap()
            } else {
                last
            },
        )
    });
    match (best(Effect::Allow, judged, block), block) {
        (Some(rule), _) => (Verdict::Allow { rule: Some(rule) }, Some(Reach::Outside)),
        (None, None) => deny(Reason::EgressNoRule, None),
        (None, Some(_)) if loopback => (Verdict::Allow { rule: None }, Some(Reach::OwnLoopback)),
        (None, Some(_)) => deny(Reason::EgressSpecialAddress, None),
    }
}
