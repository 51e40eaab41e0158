//! The table against a naive judge: random rules and questions near every edge, and every small table there is.

use crate::naive::oracle;
use nexus_abi::{Effect, Protocol, RuleRef};
use nexus_net_egress::{Cidr, CidrError, EgressRule, EgressTable, HostAddresses, PortRange, SPECIAL_BLOCKS};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn network(address: IpAddr, prefix: u8) -> Cidr {
    let prefix = if address.is_ipv4() { prefix.min(32) } else { prefix };
    match Cidr::new(address, prefix) {
        Ok(cidr) | Err(CidrError::HostBits { network: cidr }) => cidr,
        Err(error) => panic!("{error}"),
    }
}

/// Addresses where something happens: special blocks, the forms that hold IPv4, and a few crowded networks.
pub(crate) fn any_address() -> impl Strategy<Value = IpAddr> {
    let crowded4 = (0_u32..64).prop_map(|low| Ipv4Addr::from_bits(0xcb00_7100 | low).into());
    let crowded6 = (0_u128..64).prop_map(|low| Ipv6Addr::from_bits((0x2001_0db8 << 96) | low).into());
    let special = (0..SPECIAL_BLOCKS.len(), any::<u8>()).prop_map(|(index, low)| {
        let block = SPECIAL_BLOCKS[index];
        match (block.address, network(block.address, block.prefix).last_address()) {
            (first, _) if low < 64 => first,
            (_, last) if low < 128 => last,
            (IpAddr::V4(v4), _) => Ipv4Addr::from_bits(v4.to_bits() | u32::from(low & 3)).into(),
            (IpAddr::V6(v6), _) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(low & 3)).into(),
        }
    });
    let plain = prop_oneof![4 => crowded4, 3 => crowded6, 4 => special, 1 => any::<IpAddr>()];
    (plain, 0_u8..8).prop_map(|(address, form)| match (address, form) {
        (IpAddr::V4(v4), 0) => IpAddr::V6(v4.to_ipv6_mapped()),
        (IpAddr::V4(v4), 1) => IpAddr::V6(Ipv6Addr::from_bits((0x64_ff9b << 96) | u128::from(v4.to_bits()))),
        (address, _) => address,
    })
}

pub(crate) fn neighbours(address: IpAddr) -> [IpAddr; 3] {
    match address {
        IpAddr::V4(v4) => {
            let bits = v4.to_bits();
            [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(|bits| Ipv4Addr::from_bits(bits).into())
        }
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].map(|bits| Ipv6Addr::from_bits(bits).into())
        }
    }
}

pub(crate) fn any_rule() -> impl Strategy<Value = EgressRule> {
    let prefix = prop_oneof![3 => 24_u8..=32, 2 => 120_u8..=128, 2 => 0_u8..=128];
    (
        any_address(),
        prefix,
        1_u16..12,
        0_u16..4,
        any::<bool>(),
        any::<bool>(),
        0_u32..20,
    )
        .prop_map(|(address, prefix, first, more, allows, tcp, number)| {
            let mut ports = vec![PortRange::new(first, first + more).unwrap()];
            if number % 3 == 0 {
                ports.push(PortRange::new(first + more + 2, first + more + 2).unwrap());
            }
            EgressRule {
                effect: if allows { Effect::Allow } else { Effect::Deny },
                protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                cidr: network(address, prefix),
                ports,
                rule: RuleRef(number),
            }
        })
}

fn agrees(rules: &[EgressRule], table: &EgressTable, address: IpAddr, port: u16, host: &[IpAddr]) {
    let own = HostAddresses::new(host.iter().copied()).unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let route = table.judge(protocol, address, port, &own);
        let expected = oracle(rules, protocol, address, port, host);
        assert_eq!(
            (route.verdict, route.reach),
            expected,
            "{protocol} {address} port {port}: {rules:#?} {host:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_agrees_with_the_naive_judge(
        rules in prop::collection::vec(any_rule(), 0..24),
        asked in prop::collection::vec((any_address(), 0_u16..20), 16),
        host in prop::collection::vec(any_address(), 0..3),
    ) {
        let rules: Vec<EgressRule> = rules.into_iter().filter(|rule| EgressTable::compile(std::slice::from_ref(rule)).is_ok()).collect();
        let table = EgressTable::compile(&rules).unwrap();
        // The host's own addresses as the kernel lists them: plain, never unspecified.
        let host: Vec<IpAddr> = host.into_iter().map(nexus_net_egress::judged_as).collect();
        for (address, port) in asked {
            agrees(&rules, &table, address, port, &host);
        }
        for rule in &rules {
            for edge in [rule.cidr.address(), rule.cidr.last_address()] {
                for address in neighbours(edge) {
                    for range in &rule.ports {
                        for port in [range.first() - 1, range.first(), range.last(), range.last() + 1] {
                            agrees(&rules, &table, address, port, &host);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_table_of_up_to_three_rules_over_four_addresses_agrees_with_the_naive_judge() {
    let base = 0xcb00_7100_u32;
    let mut all = Vec::new();
    for (prefix, starts) in [(30, vec![0]), (31, vec![0, 2]), (32, vec![0, 1, 2, 3])] {
        for start in starts {
            for (first, last) in [(1, 1), (2, 2), (1, 2)] {
                for effect in [Effect::Allow, Effect::Deny] {
                    all.push(EgressRule {
                        effect,
                        protocol: Protocol::Tcp,
                        cidr: Cidr::new(Ipv4Addr::from_bits(base + start).into(), prefix).unwrap(),
                        ports: vec![PortRange::new(first, last).unwrap()],
                        rule: RuleRef(0),
                    });
                }
            }
        }
    }
    let host = HostAddresses::none();
    let mut rules: Vec<EgressRule> = Vec::new();
    let mut tables = 0_u32;
    for a in 0..all.len() {
        for b in a..=all.len() {
            for c in b..=all.len() {
                rules.clear();
                for (number, index) in (0_u32..).zip([a, b, c]) {
                    if let Some(rule) = all.get(index) {
                        rules.push(EgressRule {
                            rule: RuleRef(number),
                            ..rule.clone()
                        });
                    }
                }
                let table = EgressTable::compile(&rules).unwrap();
                tables += 1;
                for address in base - 1..=base + 4 {
                    for port in 0..=3 {
                        let address = Ipv4Addr::from_bits(address).into();
                        let route = table.judge(Protocol::Tcp, address, port, &host);
                        let expected = oracle(&rules, Protocol::Tcp, address, port, &[]);
                        assert_eq!(
                            (route.verdict, route.reach),
                            expected,
                            "{address} port {port}: {rules:#?}"
                        );
                    }
                }
            }
        }
    }
    assert!(tables > 13_000, "{tables}");
}

#[test]
fn special_blocks_stand_longest_first_so_that_the_innermost_decides() {
    for (index, inner) in SPECIAL_BLOCKS.iter().enumerate() {
        let inner = Cidr::new(inner.address, inner.prefix).unwrap();
        for outer in &SPECIAL_BLOCKS[..index] {
            let outer = Cidr::new(outer.address, outer.prefix).unwrap();
            assert!(!outer.covers(&inner), "{outer} hides {inner}");
        }
    }
}
