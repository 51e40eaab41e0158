use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use nexus_abi::Errno;

/// The most bytes of an address that the kernel takes: `sizeof(struct sockaddr_storage)` (linux/socket.h).
pub const SOCKADDR_BYTES_MAX: usize = 128;

/// `sizeof(sa_family_t)`.
const FAMILY_BYTES: usize = 2;
/// `sizeof(struct sockaddr_in)` (linux/in.h).
const INET_BYTES: usize = 16;
/// `SIN6_LEN_RFC2133` (linux/ipv6.h): a `sockaddr_in6` without its scope, which the kernel still takes.
const INET6_BYTES_MIN: usize = 24;
/// `sizeof(struct sockaddr_un)` (linux/un.h).
const UNIX_BYTES_MAX: usize = 110;

// Linux's numbers (linux/socket.h), the same on every architecture.
const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A socket address as a program gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SockAddr {
    /// `AF_INET` (ip(7)).
    Inet {
        /// The address.
        addr: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// `AF_INET6` (ipv6(7)).
    Inet6 {
        /// The address.
        addr: Ipv6Addr,
        /// The port.
        port: u16,
        /// Flow label and traffic class, in host order.
        flow: u32,
        /// The interface of a link-local address; 0 where none is given.
        scope: u32,
    },
    /// `AF_UNIX` (unix(7)).
    Unix(UnixAddr),
    /// `AF_UNSPEC`: `connect` dissolves the association. **Not** always without an address: where the bytes reach that
    /// far, UDP over IPv4 sends to `inet` as if the family were `AF_INET` (`udp_sendmsg`), and `bind` takes it for the
    /// wildcard (`__inet_bind`).
    Unspec {
        /// What an IPv4 socket would read; `None` below the size of a `sockaddr_in`.
        inet: Option<(Ipv4Addr, u16)>,
    },
    /// A family that egress rules cannot judge.
    Other(u16),
}

/// The address of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixAddr {
    /// No name: `bind` makes one up; `connect` and `send` refuse it with `EINVAL`.
    Unnamed,
    /// A path in the file system, without its NUL: 1 to 108 bytes, none of them NUL.
    Path(Vec<u8>),
    /// A name outside the file system, without the leading NUL: at most 107 bytes, NULs allowed.
    Abstract(Vec<u8>),
}

impl SockAddr {
    /// The internet destination that egress rules judge, if it is one.
    #[must_use]
    pub const fn destination(&self) -> Option<(IpAddr, u16)> {
        match self {
            Self::Inet { addr, port } => Some((IpAddr::V4(*addr), *port)),
            Self::Inet6 { addr, port, .. } => Some((IpAddr::V6(*addr), *port)),
            _ => None,
        }
    }
}

/// Reads the bytes that a program gave as a `struct sockaddr`, copied once from its memory.
///
/// Bytes past the family's own structure are ignored, as the kernel does. `bytes` holds what the program's length says:
/// `sendmsg` cuts a longer length to [`SOCKADDR_BYTES_MAX`] before it looks (`copy_msghdr_from_user`), the other calls
/// refuse it, and so does this.
///
/// # Errors
/// The errno that Linux gives: `EINVAL` for an address that is too short for its family or too long
/// (`move_addr_to_kernel`, `inet_stream_connect`, `tcp_v6_connect`, `unix_validate_addr`).
pub fn parse(bytes: &[u8]) -> Result<SockAddr, Errno> {
    if bytes.len() > SOCKADDR_BYTES_MAX {
        return Err(Errno::EINVAL);
    }
    let (family, _) = bytes.split_first_chunk::<FAMILY_BYTES>().ok_or(Errno::EINVAL)?;
    match u16::from_ne_bytes(*family) {
        AF_UNSPEC => Ok(SockAddr::Unspec { inet: inet(bytes) }),
        AF_INET => inet(bytes)
            .map(|(addr, port)| SockAddr::Inet { addr, port })
            .ok_or(Errno::EINVAL),
        AF_INET6 => inet6(bytes).ok_or(Errno::EINVAL),
        AF_UNIX => unix(bytes).map(SockAddr::Unix).ok_or(Errno::EINVAL),
        other => Ok(SockAddr::Other(other)),
    }
}

/// Port and address of a `sockaddr_in`, whatever its family says.
fn inet(bytes: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let (whole, _) = bytes.split_first_chunk::<INET_BYTES>()?;
    let [_, _, p0, p1, a, b, c, d, ..] = *whole;
    Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p0, p1])))
}

fn inet6(bytes: &[u8]) -> Option<SockAddr> {
    let (whole, rest) = bytes.split_first_chunk::<INET6_BYTES_MIN>()?;
    let [_, _, p0, p1, f0, f1, f2, f3, addr @ ..] = *whole;
    // Four more bytes make it a whole sockaddr_in6 (28): less than that is no scope (`__ip6_datagram_connect`).
    let scope = rest.first_chunk::<4>().map_or(0, |scope| u32::from_ne_bytes(*scope));
    Some(SockAddr::Inet6 {
        addr: Ipv6Addr::from(addr),
        port: u16::from_be_bytes([p0, p1]),
        flow: u32::from_be_bytes([f0, f1, f2, f3]),
        scope,
    })
}

fn unix(bytes: &[u8]) -> Option<UnixAddr> {
    if bytes.len() > UNIX_BYTES_MAX {
        return None;
    }
    let path = bytes.get(FAMILY_BYTES..)?;
    match path.split_first() {
        None => Some(UnixAddr::Unnamed),
        Some((0, name)) => Some(UnixAddr::Abstract(name.to_vec())),
        Some(_) => Some(UnixAddr::Path(
            path.split(|byte| *byte == 0).next().unwrap_or(path).to_vec(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn with_family(family: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = family.to_ne_bytes().to_vec();
        bytes.extend_from_slice(rest);
        bytes
    }

    fn inet_bytes(family: u16) -> Vec<u8> {
        with_family(family, &[0x01, 0xbb, 203, 0, 113, 7, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn a_whole_sockaddr_in_is_read_and_one_byte_less_is_einval() {
        let bytes = inet_bytes(AF_INET);
        let expected = SockAddr::Inet {
            addr: Ipv4Addr::new(203, 0, 113, 7),
            port: 443,
        };
        assert_eq!(parse(&bytes), Ok(expected.clone()));
        assert_eq!(parse(&bytes[..15]), Err(Errno::EINVAL));
        let mut long = bytes.clone();
        long.resize(SOCKADDR_BYTES_MAX, 0xff);
        assert_eq!(parse(&long), Ok(expected));
        long.push(0);
        assert_eq!(parse(&long), Err(Errno::EINVAL));
    }

    #[test]
    fn a_sockaddr_in6_is_read_with_and_without_scope_and_shorter_is_einval() {
        let mut rest = vec![0x01, 0xbb, 0, 0, 0, 9];
        rest.extend_from_slice(&"fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        rest.extend_from_slice(&7_u32.to_ne_bytes());
        let bytes = with_family(AF_INET6, &rest);
        let read = |scope| SockAddr::Inet6 {
            addr: "fe80::1".parse().unwrap(),
            port: 443,
            flow: 9,
            scope,
        };
        assert_eq!(bytes.len(), 28);
        assert_eq!(parse(&bytes), Ok(read(7)));
        for length in 24..28 {
            assert_eq!(parse(&bytes[..length]), Ok(read(0)), "{length}");
        }
        assert_eq!(parse(&bytes[..23]), Err(Errno::EINVAL));
    }

    #[test]
    fn an_address_that_calls_itself_unspecified_still_tells_where_udp_would_send() {
        let expected = Some((Ipv4Addr::new(203, 0, 113, 7), 443));
        assert_eq!(parse(&inet_bytes(AF_UNSPEC)), Ok(SockAddr::Unspec { inet: expected }));
        assert_eq!(parse(&inet_bytes(AF_UNSPEC)[..15]), Ok(SockAddr::Unspec { inet: None }));
        assert_eq!(parse(&AF_UNSPEC.to_ne_bytes()), Ok(SockAddr::Unspec { inet: None }));
    }

    #[test]
    fn no_address_and_half_a_family_are_einval() {
        assert_eq!(parse(&[]), Err(Errno::EINVAL));
        assert_eq!(parse(&[2]), Err(Errno::EINVAL));
    }

    #[test]
    fn unix_names_are_told_apart() {
        let unix = |rest: &[u8]| parse(&with_family(AF_UNIX, rest));
        assert_eq!(unix(b""), Ok(SockAddr::Unix(UnixAddr::Unnamed)));
        assert_eq!(unix(b"/run/x"), Ok(SockAddr::Unix(UnixAddr::Path(b"/run/x".to_vec()))));
        assert_eq!(
            unix(b"/run/x\0junk"),
            Ok(SockAddr::Unix(UnixAddr::Path(b"/run/x".to_vec())))
        );
        assert_eq!(
            unix(b"\0a\0b"),
            Ok(SockAddr::Unix(UnixAddr::Abstract(b"a\0b".to_vec())))
        );
        assert_eq!(unix(b"\0"), Ok(SockAddr::Unix(UnixAddr::Abstract(vec![]))));
        assert!(unix(&[b'a'; 108]).is_ok());
        assert_eq!(unix(&[b'a'; 109]), Err(Errno::EINVAL));
    }

    #[test]
    fn a_family_without_rules_is_named() {
        assert_eq!(parse(&with_family(40, &[0; 14])), Ok(SockAddr::Other(40)));
        assert_eq!(parse(&with_family(16, &[])), Ok(SockAddr::Other(16)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_give_an_address_or_einval(family in 0_u16..12, rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = with_family(family, &rest);
            match parse(&bytes) {
                Ok(SockAddr::Unix(UnixAddr::Path(path))) => prop_assert!(!path.is_empty() && !path.contains(&0)),
                Ok(SockAddr::Unix(UnixAddr::Abstract(name))) => prop_assert!(name.len() <= 107),
                Ok(SockAddr::Inet { addr, .. }) => prop_assert_eq!(&addr.octets()[..], &bytes[4..8]),
                Ok(SockAddr::Inet6 { addr, .. }) => prop_assert_eq!(&addr.octets()[..], &bytes[8..24]),
                Ok(_) => {}
                Err(errno) => prop_assert_eq!(errno, Errno::EINVAL),
            }
        }

        #[test]
        fn any_bytes_at_all_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
