//! Addresses that a socket cannot use, whatever rules say: Linux's own errors for them. No rule could open these, so there is
//! nothing to judge and no deny to record.

use crate::connect::is;
use nexus_abi::{Errno, Protocol};
use rustix::net::AddressFamily;

/// `sizeof(struct sockaddr_in)` (linux/in.h).
const INET_BYTES: usize = 16;
/// `SIN6_LEN_RFC2133` (linux/ipv6.h): a `sockaddr_in6` without its scope.
const INET6_BYTES_MIN: usize = 24;

fn family(bytes: &[u8]) -> Result<i32, Errno> {
    let (family, _) = bytes.split_first_chunk::<2>().ok_or(Errno::EINVAL)?;
    Ok(u16::from_ne_bytes(*family).into())
}

/// Of the bytes of an address and their family: long enough, then the right one.
fn needs(bytes: &[u8], least: usize, fits: bool) -> Result<(), Errno> {
    match (bytes.len() < least, fits) {
        (true, _) => Err(Errno::EINVAL),
        (false, false) => Err(Errno::EAFNOSUPPORT),
        (false, true) => Ok(()),
    }
}

/// connect(2): `tcp_v4_connect`, `tcp_v6_connect`, `__ip4_datagram_connect`, `__ip6_datagram_connect`. `AF_UNSPEC` is each one's.
pub(crate) fn in_connect(domain: i32, protocol: Protocol, bytes: &[u8]) -> Result<(), Errno> {
    let family = family(bytes)?;
    let of = |known| is(family, known);
    if of(AddressFamily::UNSPEC) {
        return Ok(());
    }
    let takes_inet = is(domain, AddressFamily::INET);
    if takes_inet || (protocol == Protocol::Udp && of(AddressFamily::INET)) {
        needs(bytes, INET_BYTES, of(AddressFamily::INET))
    } else {
        needs(bytes, INET6_BYTES_MIN, of(AddressFamily::INET6))
    }
}

/// A datagram's address: `udp_sendmsg`, `udpv6_sendmsg`. To an IPv4 socket `AF_UNSPEC` is its own family.
pub(crate) fn in_datagram(domain: i32, bytes: &[u8]) -> Result<(), Errno> {
    let family = family(bytes)?;
    let of = |known| is(family, known);
    if is(domain, AddressFamily::INET) {
        return needs(bytes, INET_BYTES, of(AddressFamily::INET) || of(AddressFamily::UNSPEC));
    }
    let least = if of(AddressFamily::INET6) {
        INET6_BYTES_MIN
    } else if of(AddressFamily::INET) {
        INET_BYTES
    } else if of(AddressFamily::UNSPEC) {
        0
    } else {
        return Err(Errno::EINVAL);
    };
    needs(bytes, least, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_sys::socket as sys;
    use rustix::net::SocketType;

    /// What the kernel says of these bytes, if it is one of the errors for addresses that do not fit.
    fn said(result: std::io::Result<()>) -> Option<i32> {
        let misfits = [Errno::EINVAL, Errno::EAFNOSUPPORT].map(|errno| i32::from(errno.raw()));
        result
            .err()
            .and_then(|error| error.raw_os_error())
            .filter(|raw| misfits.contains(raw))
    }

    #[test]
    fn the_kernel_says_the_same_of_every_family_and_length() {
        let errno = |result: Result<(), Errno>| result.err().map(|errno| i32::from(errno.raw()));
        for domain in [2, 10] {
            for (kind, protocol) in [(SocketType::STREAM, Protocol::Tcp), (SocketType::DGRAM, Protocol::Udp)] {
                for family in [0_u16, 1, 2, 3, 10, 99] {
                    for length in 0..=40 {
                        // Port 9 of the loopback of either family.
                        let mut bytes = [0; 40];
                        bytes[..2].copy_from_slice(&family.to_ne_bytes());
                        bytes[3] = 9;
                        if family == 10 {
                            bytes[23] = 1;
                        } else {
                            bytes[4..8].copy_from_slice(&[127, 0, 0, 1]);
                        }
                        let bytes = &bytes[..length];
                        let fresh = || sys::socket(domain, kind.as_raw().cast_signed(), 0).unwrap();
                        let context = format!("domain {domain} {protocol} family {family} of {length} bytes");
                        let connected = said(sys::connect(fresh(), bytes));
                        assert_eq!(
                            errno(in_connect(domain, protocol, bytes)),
                            connected,
                            "connect {context}"
                        );
                        if protocol == Protocol::Udp && length > 0 {
                            let sent = nexus_sys::message::send(
                                fresh(),
                                &nexus_sys::message::Message {
                                    address: bytes,
                                    data: b"x",
                                    rights: &[],
                                    control: &[],
                                    flags: 0,
                                },
                            );
                            assert_eq!(
                                errno(in_datagram(domain, bytes)),
                                said(sent.map(drop)),
                                "send {context}"
                            );
                        }
                    }
                }
            }
        }
    }
}
