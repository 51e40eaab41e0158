//! What the table allows and, beside it, the nearest thing that it denies.

use crate::naive::{allow, deny, rule};
use nexus_abi::{Effect, Errno, Protocol, Reason, RuleRef, Verdict};
use nexus_net_egress::{CompileError, EgressRule, EgressTable, HostAddresses, Reach, acted_on, judged_as};
use std::net::IpAddr;

fn table(rules: &[EgressRule]) -> EgressTable {
    EgressTable::compile(rules).unwrap_or_else(|error| panic!("{error}"))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// `allow N`, `own`, or the reason and the rule of a denial.
fn judge(rules: &[EgressRule], host: &[&str], to: &str, port: u16) -> String {
    let host = HostAddresses::new(host.iter().map(|text| address(text))).unwrap();
    let route = table(rules).judge(Protocol::Tcp, address(to), port, &host);
    match (route.verdict, route.reach) {
        (
            Verdict::Allow {
                rule: Some(RuleRef(rule)),
            },
            Some(Reach::Outside),
        ) => format!("allow {rule}"),
        (Verdict::Allow { rule: None }, Some(Reach::OwnLoopback)) => "own".to_owned(),
        (
            Verdict::Deny {
                reason,
                errno: Errno::EPERM,
                rule,
            },
            None,
        ) => match rule {
            Some(RuleRef(rule)) => format!("{reason} {rule}"),
            None => reason.to_string(),
        },
        other => panic!("{other:?}"),
    }
}

fn check(rules: &[EgressRule], host: &[&str], cases: &[(&str, u16, &str)]) {
    for (to, port, expected) in cases {
        assert_eq!(judge(rules, host, to, *port), *expected, "{to} port {port}");
    }
}

#[test]
fn without_a_rule_only_the_own_loopback_is_reached() {
    check(
        &[],
        &[],
        &[
            ("127.0.0.1", 80, "own"),
            ("127.255.255.255", 80, "own"),
            ("126.255.255.255", 80, "egress.no_rule"),
            ("128.0.0.0", 80, "egress.no_rule"),
            ("::1", 80, "own"),
            ("::2", 80, "egress.special_address"),
            ("::ffff:127.0.0.1", 80, "own"),
            ("203.0.113.7", 443, "egress.no_rule"),
            ("2001:db8::1", 443, "egress.no_rule"),
        ],
    );
}

#[test]
fn edges_of_a_rule_are_allowed_and_their_neighbours_are_denied() {
    let rules = [
        allow("203.0.113.64/26", "8000-8100", 1),
        allow("[2001:db8::]/32", "443", 2),
    ];
    check(
        &rules,
        &[],
        &[
            ("203.0.113.64", 8000, "allow 1"),
            ("203.0.113.127", 8100, "allow 1"),
            ("203.0.113.63", 8000, "egress.no_rule"),
            ("203.0.113.128", 8000, "egress.no_rule"),
            ("203.0.113.64", 7999, "egress.no_rule"),
            ("203.0.113.64", 8101, "egress.no_rule"),
            ("2001:db8::", 443, "allow 2"),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 443, "allow 2"),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", 443, "egress.no_rule"),
            ("2001:db9::", 443, "egress.no_rule"),
        ],
    );
}

#[test]
fn a_rule_for_tcp_does_not_open_udp() {
    let table = table(&[allow("203.0.113.0/24", "443", 1)]);
    let host = HostAddresses::none();
    assert!(
        table
            .judge(Protocol::Tcp, address("203.0.113.7"), 443, &host)
            .verdict
            .is_allow()
    );
    assert!(
        !table
            .judge(Protocol::Udp, address("203.0.113.7"), 443, &host)
            .verdict
            .is_allow()
    );
    assert!(table.opens(Protocol::Tcp) && !table.opens(Protocol::Udp));
}

#[test]
fn a_deny_rule_of_any_width_beats_an_allow_rule_of_any_width() {
    let rules = [
        allow("203.0.113.7", "443", 1),
        deny("203.0.0.0/16", "1-65535", 2),
        allow("198.51.100.0/24", "443", 3),
    ];
    check(
        &rules,
        &[],
        &[
            ("203.0.113.7", 443, "egress.deny_rule 2"),
            ("203.0.0.0", 1, "egress.deny_rule 2"),
            ("203.1.0.0", 1, "egress.no_rule"),
            ("198.51.100.1", 443, "allow 3"),
        ],
    );
}

#[test]
fn the_longest_prefix_that_has_the_port_is_named() {
    let rules = [
        allow("0.0.0.0/0", "1-65535", 1),
        allow("203.0.113.0/24", "443", 2),
        allow("203.0.113.7", "22", 3),
        allow("203.0.113.7", "20-25", 4),
        deny("198.51.0.0/16", "25", 5),
        deny("198.51.100.0/24", "25", 6),
    ];
    check(
        &rules,
        &[],
        &[
            ("203.0.113.7", 22, "allow 3"),
            ("203.0.113.7", 23, "allow 4"),
            ("203.0.113.7", 443, "allow 2"),
            ("203.0.113.7", 80, "allow 1"),
            ("198.51.100.1", 25, "egress.deny_rule 6"),
            ("198.51.101.1", 25, "egress.deny_rule 5"),
            ("198.51.101.1", 26, "allow 1"),
        ],
    );
}

#[test]
fn a_mapped_or_nat64_address_is_judged_as_the_ipv4_inside() {
    let rules = [
        allow("203.0.113.0/24", "443", 1),
        deny("203.0.113.9", "443", 2),
        allow("::/0", "443", 3),
    ];
    check(
        &rules,
        &[],
        &[
            ("::ffff:203.0.113.7", 443, "allow 1"),
            ("64:ff9b::203.0.113.7", 443, "allow 1"),
            ("::ffff:203.0.113.9", 443, "egress.deny_rule 2"),
            ("64:ff9b::203.0.113.9", 443, "egress.deny_rule 2"),
            ("::ffff:203.0.114.7", 443, "egress.no_rule"),
            ("64:ff9b::203.0.114.7", 443, "egress.no_rule"),
            ("64:ff9b::1:203.0.113.7", 443, "allow 3"),
            ("64:ff9b:1::203.0.113.7", 443, "egress.special_address"),
            ("::203.0.113.7", 443, "egress.special_address"),
            ("2002:cb00:7107::", 443, "egress.special_address"),
        ],
    );
}

#[test]
fn a_special_address_is_not_reached_through_a_wide_rule() {
    let rules = [allow("0.0.0.0/0", "1-65535", 1), allow("::/0", "1-65535", 2)];
    let host = ["203.0.113.20", "203.0.113.255", "2001:db8::20"];
    check(
        &rules,
        &host,
        &[
            ("203.0.113.21", 80, "allow 1"),
            ("203.0.113.20", 80, "egress.special_address"),
            ("::ffff:203.0.113.20", 80, "egress.special_address"),
            ("64:ff9b::203.0.113.20", 80, "egress.special_address"),
            ("203.0.113.255", 80, "egress.special_address"),
            ("2001:db8::20", 80, "egress.special_address"),
            ("2001:db8::21", 80, "allow 2"),
            ("127.0.0.1", 80, "own"),
            ("::1", 80, "own"),
            ("0.0.0.0", 80, "own"),
            ("::", 80, "own"),
            ("::ffff:0.0.0.0", 80, "own"),
            ("64:ff9b::127.0.0.1", 80, "egress.special_address"),
            ("64:ff9b::", 80, "egress.special_address"),
            ("0.0.0.1", 80, "egress.special_address"),
            ("1.0.0.0", 80, "allow 1"),
            ("169.253.255.255", 80, "allow 1"),
            ("169.254.169.254", 80, "egress.special_address"),
            ("::ffff:169.254.169.254", 80, "egress.special_address"),
            ("64:ff9b::169.254.169.254", 80, "egress.special_address"),
            ("169.255.0.0", 80, "allow 1"),
            ("168.63.129.16", 80, "egress.special_address"),
            ("168.63.129.17", 80, "allow 1"),
            ("fd00:ec2::254", 80, "egress.special_address"),
            ("fd00:ec3::", 80, "allow 2"),
            ("fe7f:ffff::", 80, "allow 2"),
            ("fe80::1", 80, "egress.special_address"),
            ("febf:ffff::", 80, "egress.special_address"),
            ("fec0::", 80, "allow 2"),
            ("223.255.255.255", 80, "allow 1"),
            ("224.0.0.1", 80, "egress.special_address"),
            ("240.0.0.1", 80, "egress.special_address"),
            ("255.255.255.255", 80, "egress.special_address"),
            ("feff::", 80, "allow 2"),
            ("ff02::1", 80, "egress.special_address"),
        ],
    );
}

#[test]
fn a_special_address_is_reached_through_a_rule_inside_its_block() {
    let rules = [
        allow("127.0.0.0/8", "80", 1),
        allow("::1", "80", 2),
        allow("169.254.169.254", "80", 3),
        allow("168.0.0.0/7", "81", 4),
        allow("203.0.113.20", "80", 5),
        allow("203.0.113.21/32", "80", 6),
        allow("203.0.113.0/24", "81", 7),
        allow("224.0.0.0/4", "80", 8),
        allow("240.0.0.0/4", "80", 9),
        allow("0.0.0.0/8", "80", 10),
        allow("[fe80::]/10", "80", 11),
        allow("[fc00::]/6", "80", 12),
    ];
    check(
        &rules,
        &["203.0.113.20", "127.0.0.1"],
        &[
            ("127.0.0.1", 80, "allow 1"),
            ("127.0.0.1", 81, "own"),
            ("0.0.0.0", 80, "allow 1"),
            ("0.0.0.0", 81, "own"),
            ("::ffff:0.0.0.0", 80, "allow 1"),
            ("::1", 80, "allow 2"),
            ("::", 80, "allow 2"),
            ("::", 81, "own"),
            ("64:ff9b::127.0.0.1", 80, "egress.special_address"),
            ("169.254.169.254", 80, "allow 3"),
            ("169.254.169.254", 81, "egress.special_address"),
            ("169.254.169.253", 80, "egress.special_address"),
            ("168.1.0.0", 81, "allow 4"),
            ("203.0.113.20", 80, "allow 5"),
            ("203.0.113.20", 81, "egress.special_address"),
            ("203.0.113.21", 80, "allow 6"),
            ("203.0.113.21", 81, "allow 7"),
            ("224.0.0.1", 80, "allow 8"),
            ("240.0.0.1", 80, "allow 9"),
            ("255.255.255.255", 80, "egress.special_address"),
            ("0.0.0.1", 80, "allow 10"),
            ("fe80::1", 80, "allow 11"),
            ("fc00::1", 80, "allow 12"),
            ("ff02::1", 80, "egress.special_address"),
        ],
    );
}

#[test]
fn a_deny_rule_of_any_width_closes_special_addresses_and_the_own_loopback() {
    let rules = [
        deny("0.0.0.0/0", "25", 1),
        deny("::/0", "25", 2),
        allow("127.0.0.1", "25,80", 3),
    ];
    check(
        &rules,
        &[],
        &[
            ("127.0.0.1", 25, "egress.deny_rule 1"),
            ("127.0.0.1", 80, "allow 3"),
            ("127.0.0.2", 26, "own"),
            ("0.0.0.0", 25, "egress.deny_rule 1"),
            ("::", 25, "egress.deny_rule 2"),
            ("169.254.169.254", 25, "egress.deny_rule 1"),
            ("169.254.169.254", 26, "egress.special_address"),
        ],
    );
    check(
        &[deny("0.0.0.0/32", "80", 1), deny("127.0.0.1", "81", 2)],
        &[],
        &[
            ("0.0.0.0", 80, "egress.deny_rule 1"),
            ("127.0.0.1", 80, "own"),
            ("0.0.0.0", 81, "egress.deny_rule 2"),
        ],
    );
}

#[test]
fn port_zero_is_denied_everywhere() {
    let rules = [allow("0.0.0.0/0", "1-65535", 1), deny("203.0.113.0/24", "1-65535", 2)];
    check(
        &rules,
        &[],
        &[
            ("198.51.100.1", 0, "egress.no_rule"),
            ("198.51.100.1", 1, "allow 1"),
            ("198.51.100.1", 65535, "allow 1"),
            ("203.0.113.1", 0, "egress.no_rule"),
            ("127.0.0.1", 0, "egress.no_rule"),
        ],
    );
}

#[test]
fn what_is_acted_on_is_what_was_judged() {
    for (asked, act) in [
        ("203.0.113.7", "203.0.113.7"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("::ffff:0.0.0.0", "::ffff:127.0.0.1"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ("64:ff9b::203.0.113.7", "64:ff9b::203.0.113.7"),
        ("64:ff9b::", "64:ff9b::"),
    ] {
        assert_eq!(acted_on(address(asked)), address(act));
        assert_eq!(judged_as(address(asked)), judged_as(address(act)), "{asked}");
    }
}

#[test]
fn rules_that_would_match_nothing_are_refused_with_what_to_write() {
    let refused = |rules: &[EgressRule]| EgressTable::compile(rules).expect_err("accepted").to_string();
    assert_eq!(
        refused(&[allow("[::ffff:203.0.113.0]/120", "443", 7)]),
        "`[::ffff:203.0.113.0]/120` of egress rule 7 is judged as IPv4 and would match nothing"
    );
    let Err(CompileError::Translated { write, .. }) =
        EgressTable::compile(&[deny("[64:ff9b::203.0.113.0]/120", "443", 7)])
    else {
        panic!("accepted");
    };
    assert_eq!(write.to_string(), "203.0.113.0/24");
    assert!(EgressTable::compile(&[deny("[64:ff9b::]/95", "443", 7)]).is_ok());
    let Err(CompileError::Unspecified { write, .. }) = EgressTable::compile(&[allow("0.0.0.0", "80", 1)]) else {
        panic!("accepted");
    };
    assert_eq!(write.to_string(), "127.0.0.1/32");
    let mut wrong = allow("203.0.113.0/24", "443", 3);
    wrong.ports.clear();
    assert_eq!(
        EgressTable::compile(&[wrong]).unwrap_err(),
        CompileError::Ports { rule: RuleRef(3) }
    );
    let mut wrong = allow("203.0.113.0/24", "22,443", 3);
    wrong.ports.reverse();
    assert_eq!(
        EgressTable::compile(&[wrong]).unwrap_err(),
        CompileError::Ports { rule: RuleRef(3) }
    );
}

#[test]
fn as_many_rules_as_the_limit_are_taken_and_one_more_is_not() {
    let one = allow("203.0.113.0/24", "443", 1);
    let mut rules = vec![one.clone(); nexus_net_egress::EGRESS_RULES_MAX];
    assert!(EgressTable::compile(&rules).is_ok());
    rules.push(one);
    let count = rules.len();
    assert_eq!(
        EgressTable::compile(&rules).unwrap_err(),
        CompileError::TooManyRules { count }
    );
    let many = allow("203.0.113.0/24", "1,3,5,7", 1);
    let most = nexus_net_egress::EGRESS_RANGES_MAX / 4;
    assert!(EgressTable::compile(&vec![many.clone(); most]).is_ok());
    assert_eq!(
        EgressTable::compile(&vec![many; most + 1]).unwrap_err(),
        CompileError::TooManyRanges
    );
}

#[test]
fn the_order_of_the_rules_changes_no_verdict_and_no_named_rule() {
    let mut rules = vec![
        allow("203.0.113.0/24", "443", 2),
        allow("203.0.113.0/24", "400-500", 1),
        rule(Effect::Allow, Protocol::Udp, "203.0.113.0/24", "443", 0),
        deny("203.0.113.9", "443", 4),
        deny("203.0.113.9", "443", 3),
    ];
    for _ in 0..rules.len() {
        rules.rotate_left(1);
        check(
            &rules,
            &[],
            &[
                ("203.0.113.1", 443, "allow 1"),
                ("203.0.113.9", 443, "egress.deny_rule 3"),
            ],
        );
    }
}

#[test]
fn a_reason_of_the_table_is_one_that_counts_as_egress() {
    for reason in [
        Reason::EgressNoRule,
        Reason::EgressDenyRule,
        Reason::EgressSpecialAddress,
    ] {
        assert!(reason.as_str().starts_with("egress."));
    }
}
