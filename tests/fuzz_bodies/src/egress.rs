//! Addresses and ports, as text and as bytes.

use std::net::IpAddr;

use nexus_abi::Errno;
use nexus_net_egress::sockaddr::{self, SockAddr, UnixAddr};
use nexus_net_egress::{parse_cidr, parse_ports, parse_target};

/// A `struct sockaddr`: the same address as a plain reader of the kernel's structures finds.
pub fn sockaddr(data: &[u8]) -> bool {
    let parsed = sockaddr::parse(data);
    let family = data.first_chunk::<2>().map(|family| u16::from_ne_bytes(*family));
    match (family, &parsed) {
        (None, answer) => assert_eq!(*answer, Err(Errno::EINVAL)),
        (Some(2), Ok(SockAddr::Inet { addr, port })) => {
            assert!(data.len() >= 16);
            assert_eq!(addr.octets(), data[4..8]);
            assert_eq!(port.to_be_bytes(), data[2..4]);
        }
        (Some(10), Ok(SockAddr::Inet6 { addr, port, .. })) => {
            assert!(data.len() >= 24);
            assert_eq!(addr.octets(), data[8..24]);
            assert_eq!(port.to_be_bytes(), data[2..4]);
        }
        (Some(1), Ok(SockAddr::Unix(name))) => match name {
            UnixAddr::Unnamed => assert_eq!(data.len(), 2),
            UnixAddr::Path(path) => assert!(!path.is_empty() && path.len() <= 108 && !path.contains(&0)),
            UnixAddr::Abstract(name) => assert_eq!(*name, data[3..]),
        },
        (Some(0), Ok(SockAddr::Unspec { inet })) => assert_eq!(inet.is_some(), data.len() >= 16),
        (Some(family), Ok(SockAddr::Other(other))) => assert_eq!(family, *other),
        (Some(family), Ok(wrong)) => panic!("family {family} became {wrong:?}"),
        (Some(_), Err(errno)) => assert_eq!(*errno, Errno::EINVAL),
    }
    parsed.is_ok()
}

/// Rules as text: what is accepted is written back and read to the same, and an error points into the text.
pub fn address_text(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let points_inside = |offset: usize, length: usize| {
        assert!(
            text.get(offset..offset + length).is_some(),
            "{text:?} {offset} {length}"
        );
    };
    let (cidr, ports, target) = (parse_cidr(text), parse_ports(text), parse_target(text));
    let accepted = cidr.is_ok() || ports.is_ok() || target.is_ok();
    match cidr {
        Ok(cidr) => {
            assert_eq!(parse_cidr(&cidr.to_string()).as_ref(), Ok(&cidr));
            assert!(cidr.contains(cidr.address()) && cidr.contains(cidr.last_address()));
            if let Some(next) = successor(cidr.last_address()) {
                assert!(!cidr.contains(next));
            }
        }
        Err(error) => points_inside(error.offset, error.length),
    }
    match ports {
        Ok(ports) => {
            let written = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(parse_ports(&written), Ok(ports.clone()));
            assert!(
                ports
                    .iter()
                    .all(|range| range.first() > 0 && range.first() <= range.last())
            );
            assert!(
                ports
                    .windows(2)
                    .all(|pair| u32::from(pair[0].last()) + 1 < u32::from(pair[1].first()))
            );
        }
        Err(error) => points_inside(error.offset, error.length),
    }
    if let Err(error) = target {
        points_inside(error.offset, error.length);
    }
    accepted
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
