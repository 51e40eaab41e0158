//! How long one decision takes at 100,000 rules: `cargo bench -p nexus-net-egress`. The goal is at most 100 ns.
//!
//! Twice: for the 256 destinations of a busy program, whose part of the table is in the processor's cache, and for
//! 65,536, each of which is met once and waits for memory (a port scan).
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a benchmark makes numbers and stops where they are wrong; nothing of it ships"
)]

use nexus_abi::{Effect, Protocol, RuleRef};
use nexus_net_egress::{Cidr, EgressRule, EgressTable, HostAddresses, PortRange};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

const RULES: u32 = 100_000;
const WARM: usize = 1 << 8;
const COLD: usize = 1 << 16;
/// The best of as many rounds counts: what else the machine does makes a round slower, never faster.
const ROUNDS: u32 = 60;

/// xorshift64*: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn address(numbers: &mut Numbers, six: bool) -> IpAddr {
    if six {
        let low = u128::from(numbers.next());
        let high = u128::from(numbers.next() & 0x000f_ffff_ffff_ffff);
        Ipv6Addr::from_bits((0x2 << 124) | (high << 68) | low).into()
    } else {
        Ipv4Addr::from_bits((numbers.next() >> 32) as u32).into()
    }
}

fn measure(name: &str, six: bool, nested: bool, deny_every: u32) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut rules = Vec::new();
    for number in 0..RULES {
        let base = if nested {
            let low = u128::from(number >> 5);
            if six {
                Ipv6Addr::from_bits((0x2001_0db8 << 96) | (low << 64) | 1).into()
            } else {
                Ipv4Addr::from_bits(0x2000_0000 | (number >> 3 << 8) | 1).into()
            }
        } else {
            address(&mut numbers, six)
        };
        let prefix = match (six, nested) {
            (false, false) => 16 + (numbers.next() % 17) as u8,
            (true, false) => 32 + (numbers.next() % 97) as u8,
            (false, true) => 25 + (number % 8) as u8,
            (true, true) => 96 + (number % 32) as u8,
        };
        let cidr = match Cidr::new(base, prefix) {
            Ok(cidr) | Err(nexus_net_egress::CidrError::HostBits { network: cidr }) => cidr,
            Err(error) => panic!("{error}"),
        };
        let effect = if number % deny_every == 0 {
            Effect::Deny
        } else {
            Effect::Allow
        };
        let Ok(range) = PortRange::new(443, 443) else { continue };
        rules.push(EgressRule {
            effect,
            protocol: Protocol::Tcp,
            cidr,
            ports: vec![range],
            rule: RuleRef(number),
        });
    }
    let started = Instant::now();
    let table = match EgressTable::compile(&rules) {
        Ok(table) => table,
        Err(error) => panic!("{error}"),
    };
    let compiled = started.elapsed();
    let Ok(host) = HostAddresses::new((0..16).map(|_| address(&mut numbers, six))) else {
        return;
    };
    let questions: Vec<(IpAddr, u16)> = (0..COLD)
        .map(|index| {
            let port = if index % 4 == 0 { 80 } else { 443 };
            if index % 2 == 0 {
                (address(&mut numbers, six), port)
            } else {
                let index = (numbers.next() as usize) % rules.len();
                (rules[index].cidr.last_address(), port)
            }
        })
        .collect();
    let warm = decide(&table, &host, &questions[..WARM], COLD / WARM);
    let cold = decide(&table, &host, &questions, 1);
    println!("{name:<24} {warm:6.1} ns a decision among {WARM}, {cold:6.1} ns among {COLD}, compiled in {compiled:?}");
}

/// Nanoseconds of one decision, in the best round.
fn decide(table: &EgressTable, host: &HostAddresses, questions: &[(IpAddr, u16)], times: usize) -> f64 {
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..times {
            for (address, port) in questions {
                let _ = black_box(table.judge(Protocol::Tcp, black_box(*address), black_box(*port), host));
            }
        }
        best = best.min(started.elapsed().as_nanos());
    }
    best as f64 / (questions.len() * times) as f64
}

fn main() {
    measure("IPv4, scattered", false, false, 2);
    measure("IPv4, nested eight deep", false, true, 2);
    measure("IPv6, scattered", true, false, 2);
    measure("IPv6, nested 32 deep", true, true, 2);
    measure("IPv4, few denies", false, false, 1000);
}
