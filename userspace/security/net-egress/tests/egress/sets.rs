//! Sets of destinations against the table, and against asking every point of a small space.

use crate::oracle::{any_address, any_rule, neighbours};
use nexus_abi::{Effect, Protocol, RuleRef};
use nexus_net_egress::{
    Cidr, EgressRule, EgressSet, EgressTable, HostAddresses, PortRange, Reach, Reachable, judged_as, prefixes,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every edge of a set, and the nearest neighbours outside.
fn edges(set: &EgressSet) -> Vec<IpAddr> {
    set.pieces()
        .flat_map(|piece| [piece.first, piece.last])
        .flat_map(neighbours)
        .collect()
}

fn is_judged_as_another(address: IpAddr) -> bool {
    let judged = judged_as(address);
    judged != address && !address.is_unspecified()
}

fn agrees(rules: &[EgressRule], addresses: &[IpAddr]) {
    // What the table refuses would match nothing.
    let Ok(table) = EgressTable::compile(rules) else { return };
    let sets = Reachable::of(rules).unwrap();
    let more = [&sets.outside, &sets.own_loopback, &sets.host_own].map(edges).concat();
    for address in addresses.iter().copied().chain(more) {
        if is_judged_as_another(address) {
            // What is judged for them follows from the IPv4 address inside.
            for set in [&sets.outside, &sets.own_loopback, &sets.host_own] {
                assert!(
                    !set.contains(Protocol::Tcp, address, 443) && !set.contains(Protocol::Udp, address, 443),
                    "{address}"
                );
            }
            continue;
        }
        let own = HostAddresses::new([address]).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in [0, 1, 2, 3, 5, 8, 13, 15, 443, 65535] {
                let elsewhere = table.judge(protocol, address, port, &HostAddresses::none()).reach;
                let here = table.judge(protocol, address, port, &own).reach;
                let has = |set: &EgressSet| set.contains(protocol, address, port);
                assert_eq!(
                    has(&sets.outside),
                    elsewhere == Some(Reach::Outside),
                    "{protocol} {address} {port}"
                );
                assert_eq!(
                    has(&sets.own_loopback),
                    elsewhere == Some(Reach::OwnLoopback),
                    "own {protocol} {address} {port}"
                );
                let is_loopback = judged_as(address).is_loopback();
                assert_eq!(
                    has(&sets.host_own),
                    here == Some(Reach::Outside) && !is_loopback,
                    "host {protocol} {address} {port}"
                );
            }
        }
    }
}

/// A set that holds some of 16 addresses and 8 ports: as rules, and as what holds each point.
fn small() -> impl Strategy<Value = (EgressSet, Vec<bool>)> {
    let rule = (0_u32..16, 28_u8..=32, 1_u16..8, 0_u16..3);
    prop::collection::vec(rule, 0..8).prop_map(|rules| {
        let mut points = vec![false; 16 * 8];
        let mut out = Vec::new();
        for (low, prefix, first, more) in rules {
            let base = 0xcb00_7100 | (low & !((1 << (32 - prefix)) - 1));
            let cidr = Cidr::new(Ipv4Addr::from_bits(base).into(), prefix).unwrap();
            let last = (first + more).min(8);
            for address in 0..16_u32 {
                for port in first..=last {
                    if cidr.contains(Ipv4Addr::from_bits(0xcb00_7100 | address).into()) {
                        points[address as usize * 8 + usize::from(port) - 1] = true;
                    }
                }
            }
            out.push(EgressRule {
                effect: Effect::Allow,
                protocol: Protocol::Tcp,
                cidr,
                ports: vec![PortRange::new(first, last).unwrap()],
                rule: RuleRef(0),
            });
        }
        (Reachable::of(&out).unwrap().outside, points)
    })
}

fn points(set: &EgressSet) -> Vec<bool> {
    (0..16_u32)
        .flat_map(|address| (1..=8).map(move |port| (address, port)))
        .map(|(address, port)| set.contains(Protocol::Tcp, Ipv4Addr::from_bits(0xcb00_7100 | address).into(), port))
        .collect()
}

proptest! {
    #[test]
    fn sets_hold_exactly_what_the_table_allows(
        rules in prop::collection::vec(any_rule(), 0..12),
        addresses in prop::collection::vec(any_address(), 0..8),
    ) {
        agrees(&rules, &addresses);
    }

    #[test]
    fn union_intersection_and_difference_hold_what_they_must((one, in_one) in small(), (other, in_other) in small()) {
        prop_assert_eq!(points(&one), in_one.clone());
        let both = |op: fn(bool, bool) -> bool| in_one.iter().zip(&in_other).map(|(a, b)| op(*a, *b)).collect::<Vec<_>>();
        prop_assert_eq!(points(&one.union(&other).unwrap()), both(|a, b| a || b));
        prop_assert_eq!(points(&one.intersection(&other).unwrap()), both(|a, b| a && b));
        prop_assert_eq!(points(&one.difference(&other).unwrap()), both(|a, b| a && !b));
        // One form for each set.
        prop_assert_eq!(one == other, in_one == in_other);
        let again = one.difference(&other).unwrap().union(&one.intersection(&other).unwrap()).unwrap();
        prop_assert_eq!(again, one);
    }

    #[test]
    fn under_a_ceiling_is_what_both_allow(
        rules in prop::collection::vec(any_rule(), 0..8),
        ceiling in prop::collection::vec(any_rule(), 0..8),
        addresses in prop::collection::vec(any_address(), 1..8),
    ) {
        let (Ok(_), Ok(_)) = (EgressTable::compile(&rules), EgressTable::compile(&ceiling)) else { return Ok(()) };
        let (own, outer) = (Reachable::of(&rules).unwrap(), Reachable::of(&ceiling).unwrap());
        let both = own.under(&outer).unwrap();
        for address in addresses {
            for port in 1..12 {
                let outside = |sets: &Reachable| sets.outside.contains(Protocol::Tcp, address, port);
                let loopback = |sets: &Reachable| sets.own_loopback.contains(Protocol::Tcp, address, port);
                let any = |sets: &Reachable| outside(sets) || loopback(sets);
                let host = |sets: &Reachable| sets.host_own.contains(Protocol::Tcp, address, port);
                prop_assert_eq!(host(&both), host(&own) && host(&outer));
                prop_assert_eq!(outside(&both), outside(&own) && outside(&outer));
                prop_assert_eq!(any(&both), any(&own) && any(&outer));
                prop_assert!(!(outside(&both) && loopback(&both)));
            }
        }
    }

    #[test]
    fn prefixes_are_exactly_the_addresses_and_as_few_as_can_be(first: u32, length in 0_u32..5000, six: bool) {
        let last = first.saturating_add(length);
        let address = |bits: u32| -> IpAddr {
            if six { Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(bits)).into() } else { Ipv4Addr::from_bits(bits).into() }
        };
        let cidrs = prefixes(address(first), address(last));
        prop_assert_eq!(cidrs.first().unwrap().address(), address(first));
        prop_assert_eq!(cidrs.last().unwrap().last_address(), address(last));
        for pair in cidrs.windows(2) {
            prop_assert_eq!(neighbours(pair[0].last_address())[2], pair[1].address());
        }
        prop_assert!(cidrs.len() <= 2 * 13);
    }
}

fn allow(cidr: &str, ports: PortRange) -> EgressRule {
    EgressRule {
        effect: Effect::Allow,
        protocol: Protocol::Tcp,
        cidr: nexus_net_egress::parse_cidr(cidr).unwrap(),
        ports: vec![ports],
        rule: RuleRef(0),
    }
}

#[test]
fn an_address_of_the_host_is_reached_where_policy_and_ceiling_name_it_and_not_where_the_ceiling_does_not() {
    let sets = |rules: &[EgressRule]| Reachable::of(rules).unwrap();
    let own = sets(&[allow("203.0.113.7", PortRange::ALL)]);
    let naming = sets(&[allow("203.0.113.7", PortRange::new(443, 443).unwrap())]);
    let wide = sets(&[allow("203.0.113.0/24", PortRange::ALL)]);
    let has = |sets: Reachable, port: u16| {
        sets.host_own
            .contains(Protocol::Tcp, "203.0.113.7".parse().unwrap(), port)
    };
    assert!(has(own.under(&naming).unwrap(), 443));
    assert!(!has(own.under(&naming).unwrap(), 444));
    assert!(!has(own.under(&wide).unwrap(), 443));
}

#[test]
fn a_rule_for_all_of_ipv6_holds_no_ipv4_address_inside_one() {
    let outside = Reachable::of(&[allow("[::]/0", PortRange::ALL)]).unwrap().outside;
    let has = |address: &str| outside.contains(Protocol::Tcp, address.parse().unwrap(), 443);
    assert!(has("2001:db8::1"));
    for address in ["::ffff:203.0.113.7", "::ffff:0.0.0.0", "64:ff9b::203.0.113.7"] {
        assert!(!has(address), "{address}");
    }
    // The nearest neighbours.
    assert!(has("::1:0:0:0") && has("64:ff9b::1:0:0"));
}

#[test]
fn the_whole_of_each_family_is_one_prefix_and_the_widest_stretch_needs_no_more_than_it_must() {
    let whole = |text: &str, last: &str| prefixes(text.parse().unwrap(), last.parse().unwrap()).len();
    assert_eq!(whole("0.0.0.0", "255.255.255.255"), 1);
    assert_eq!(whole("0.0.0.1", "255.255.255.254"), 62);
    assert_eq!(whole("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 1);
    assert_eq!(whole("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"), 254);
}
