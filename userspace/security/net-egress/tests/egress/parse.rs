//! What the parsers take, what they refuse, and the place they name.
use nexus_net_egress::{Cidr, ParseErrorKind, PortRange, parse_cidr, parse_ports, parse_target};
use proptest::prelude::*;
use std::net::IpAddr;

#[test]
fn every_form_of_an_address_is_read_and_shown_in_one_form() {
    for (text, shown) in [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.7", "203.0.113.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("[2001:db8::]/32", "[2001:db8::]/32"),
        ("2001:db8::/32", "[2001:db8::]/32"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]/128"),
        ("::1", "[::1]/128"),
        ("::/0", "[::]/0"),
        ("[::ffff:203.0.113.7]", "[::ffff:203.0.113.7]/128"),
    ] {
        let cidr = parse_cidr(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(cidr.to_string(), shown);
        assert_eq!(parse_cidr(shown), Ok(cidr), "what is shown is read as the same");
    }
}

#[test]
fn a_wrong_address_is_refused_at_its_place() {
    for (text, offset, length) in [
        ("", 0, 0),
        ("203.0.113", 0, 9),
        ("203.0.113.256/24", 0, 13),
        ("203.0.113.07", 0, 12),
        ("0x7f.0.0.1", 0, 10),
        ("203.0.113.1/24", 0, 14),
        ("203.0.113.0/", 12, 0),
        ("203.0.113.0/33", 12, 2),
        ("203.0.113.0/024", 12, 3),
        ("203.0.113.0/+24", 12, 3),
        ("203.0.113.0/24/24", 12, 5),
        ("203.0.113.0/99999", 12, 5),
        ("[2001:db8::", 0, 11),
        ("[2001:db8::]x", 12, 1),
        ("[2001:db8::]/129", 13, 3),
        ("[203.0.113.0]/24", 1, 11),
        ("fe80::1%eth0", 0, 12),
        ("[fe80::1%eth0]", 1, 12),
        (" 203.0.113.0", 0, 12),
        ("203.0.113.0\0", 0, 12),
        ("git.example.org", 0, 15),
    ] {
        let error = parse_cidr(text).expect_err(text);
        assert_eq!((error.offset, error.length), (offset, length), "{text}: {error}");
        assert!(!error.help().is_empty());
    }
}

#[test]
fn host_bits_are_answered_with_the_right_network() {
    let error = parse_cidr("203.0.113.77/26").unwrap_err();
    assert_eq!(error.to_string(), "host bits are set: the network is `203.0.113.64/26`");
}

#[test]
fn ports_are_sorted_and_joined() {
    let range = |first, last| PortRange::new(first, last).unwrap();
    for (text, expected) in [
        ("443", vec![range(443, 443)]),
        ("8000-8100", vec![range(8000, 8100)]),
        ("443,22", vec![range(22, 22), range(443, 443)]),
        ("22, 443", vec![range(22, 22), range(443, 443)]),
        ("80,81,82-90", vec![range(80, 90)]),
        ("1-65535", vec![PortRange::ALL]),
        ("65535,1-65534", vec![PortRange::ALL]),
    ] {
        assert_eq!(parse_ports(text), Ok(expected), "{text}");
    }
}

#[test]
fn wrong_ports_are_refused_at_their_place() {
    for (text, offset, length) in [
        ("", 0, 0),
        ("0", 0, 1),
        ("65536", 0, 5),
        ("99999999999999999999", 0, 20),
        ("-1", 0, 0),
        ("1-", 2, 0),
        ("22,", 3, 0),
        ("22,,23", 3, 0),
        ("22, x", 4, 1),
        ("9-8", 0, 3),
        ("0-8", 0, 3),
        ("1-2-3", 2, 3),
        ("22,443,400-500", 7, 7),
        ("443,443", 4, 3),
        ("080", 0, 3),
        ("+80", 0, 3),
        ("٤٤٣", 0, 6),
        ("https", 0, 5),
    ] {
        let error = parse_ports(text).expect_err(text);
        assert_eq!((error.offset, error.length), (offset, length), "{text}: {error}");
    }
}

#[test]
fn sixty_four_ranges_are_taken_and_one_more_is_not() {
    let list = |count: u32| {
        (0..count)
            .map(|n| (n * 2 + 1).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(parse_ports(&list(64)).unwrap().len(), 64);
    assert_eq!(parse_ports(&list(65)).unwrap_err().kind, ParseErrorKind::TooManyRanges);
    assert_eq!(
        parse_ports(&"1,".repeat(4096)).unwrap_err().kind,
        ParseErrorKind::TextTooLong
    );
}

#[test]
fn a_destination_is_an_address_and_its_ports() {
    for (text, cidr, ports) in [
        ("203.0.113.0/24:443", "203.0.113.0/24", 1),
        ("203.0.113.7:22,443", "203.0.113.7", 2),
        ("[2001:db8::]/32:8000-8100", "[2001:db8::]/32", 1),
        ("[2001:db8::1]:443", "2001:db8::1", 1),
    ] {
        let target = parse_target(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((target.0, target.1.len()), (parse_cidr(cidr).unwrap(), ports));
    }
    for (text, offset) in [
        ("203.0.113.0/24", 14),
        ("203.0.113.0/24:", 15),
        ("203.0.113.1/24:443", 0),
        ("203.0.113.0/24:443,x", 19),
        ("2001:db8::1:443", 0),
        ("[2001:db8::]/32", 15),
        ("[2001:db8::/32:443", 0),
        ("[2001:db8::]/32:0", 16),
        (":443", 0),
        ("", 0),
    ] {
        let error = parse_target(text).expect_err(text);
        assert_eq!(error.offset, offset, "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_names_a_place_inside_it(text in ".{0,80}") {
        for error in [parse_cidr(&text).err(), parse_ports(&text).err(), parse_target(&text).err()].into_iter().flatten() {
            prop_assert!(error.offset + error.length <= text.len(), "{error:?} in {text:?}");
            prop_assert!(text.is_char_boundary(error.offset));
        }
    }

    #[test]
    fn text_of_the_right_letters_never_panics(text in "[0-9a-f.:/,\\[\\] -]{0,40}") {
        for error in [parse_cidr(&text).err(), parse_ports(&text).err(), parse_target(&text).err()].into_iter().flatten() {
            prop_assert!(error.offset + error.length <= text.len(), "{error:?} in {text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back(address: IpAddr, prefix in 0_u8..=128) {
        let cidr = match Cidr::new(address, prefix) {
            Ok(cidr) => cidr,
            Err(nexus_net_egress::CidrError::HostBits { network }) => network,
            Err(_) => return Ok(()),
        };
        prop_assert_eq!(parse_cidr(&cidr.to_string()), Ok(cidr));
    }

    #[test]
    fn parsed_ports_hold_exactly_the_ports_of_the_text(pairs in prop::collection::vec((1_u16.., 0_u16..50), 1..8)) {
        let ranges: Vec<(u16, u16)> = pairs.iter().map(|(first, more)| (*first, first.saturating_add(*more))).collect();
        let text = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",");
        let Ok(parsed) = parse_ports(&text) else { return Ok(()) };
        for port in 0..=u16::MAX {
            let named = ranges.iter().any(|(first, last)| (*first..=*last).contains(&port));
            prop_assert_eq!(parsed.iter().any(|range| range.contains(port)), named);
        }
        for pair in parsed.windows(2) {
            prop_assert!(u32::from(pair[0].last()) + 1 < u32::from(pair[1].first()));
        }
    }
}
