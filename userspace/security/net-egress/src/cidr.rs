use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// The longest prefix of an IPv4 address.
pub(crate) const IPV4_BITS: u8 = 32;
/// The longest prefix of an IPv6 address.
pub(crate) const IPV6_BITS: u8 = 128;

/// An address prefix with no host bits set (RFC 4632).
///
/// Ordered by address family, address, prefix; shown as policy writes it: `203.0.113.0/24`, `[2001:db8::]/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why an address and a prefix make no [`Cidr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CidrError {
    /// The prefix is longer than the address.
    #[error("prefix `/{prefix}` is longer than the address, which has {bits} bits")]
    PrefixTooLong {
        /// What was given.
        prefix: u8,
        /// What the address has: 32 or 128.
        bits: u8,
    },
    /// Bits right of the prefix are set, so it is unclear what was meant.
    #[error("host bits are set: the network is `{network}`")]
    HostBits {
        /// The network of that address with that prefix.
        network: Cidr,
    },
}

impl CidrError {
    /// What to write instead.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::PrefixTooLong { .. } => "write a prefix of 0 to 32 for IPv4, 0 to 128 for IPv6",
            Self::HostBits { .. } => "write the network, or the one address with `/32` (IPv4) or `/128` (IPv6)",
        }
    }
}

/// A mask of the `prefix` leading bits of 32.
pub(crate) const fn mask4(prefix: u8) -> u32 {
    // A shift by all 32 bits is `None`: the prefix of length zero, which covers everything.
    match u32::MAX.checked_shl(IPV4_BITS.saturating_sub(prefix) as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

/// A mask of the `prefix` leading bits of 128.
pub(crate) const fn mask6(prefix: u8) -> u128 {
    match u128::MAX.checked_shl(IPV6_BITS.saturating_sub(prefix) as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl Cidr {
    /// A prefix from its first address and its length in bits.
    ///
    /// # Errors
    /// [`CidrError::PrefixTooLong`] past the address's own bits, [`CidrError::HostBits`] where the address is not the
    /// first of that network; the error then carries the network.
    pub const fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let (bits, first) = match address {
            IpAddr::V4(v4) => (IPV4_BITS, IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask4(prefix)))),
            IpAddr::V6(v6) => (IPV6_BITS, IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask6(prefix)))),
        };
        if prefix > bits {
            return Err(CidrError::PrefixTooLong { prefix, bits });
        }
        let network = Self { address: first, prefix };
        let whole = match (address, first) {
            (IpAddr::V4(given), IpAddr::V4(first)) => given.to_bits() == first.to_bits(),
            (IpAddr::V6(given), IpAddr::V6(first)) => given.to_bits() == first.to_bits(),
            _ => false,
        };
        if whole {
            Ok(network)
        } else {
            Err(CidrError::HostBits { network })
        }
    }

    /// The prefix that covers this one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let prefix = match address {
            IpAddr::V4(_) => IPV4_BITS,
            IpAddr::V6(_) => IPV6_BITS,
        };
        Self { address, prefix }
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix: 0 to 32 bits for IPv4, 0 to 128 for IPv6.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The last address.
    #[must_use]
    pub const fn last_address(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | !mask4(self.prefix))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | !mask6(self.prefix))),
        }
    }

    /// Whether the address lies in this prefix. Families never mix: [`crate::judged_as`] says what is judged as what.
    #[must_use]
    pub const fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()) & mask4(self.prefix) == 0,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()) & mask6(self.prefix) == 0,
            _ => false,
        }
    }

    /// Whether every address of `other` lies in this prefix.
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(v4) => write!(f, "{v4}/{}", self.prefix),
            IpAddr::V6(v6) => write!(f, "[{v6}]/{}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    fn v4(text: &str) -> IpAddr {
        text.parse::<Ipv4Addr>().unwrap().into()
    }

    #[test]
    fn host_bits_are_refused_and_the_network_is_named() {
        assert!(Cidr::new(v4("203.0.113.0"), 24).is_ok());
        let Err(CidrError::HostBits { network }) = Cidr::new(v4("203.0.113.1"), 24) else {
            panic!("accepted")
        };
        assert_eq!(network.to_string(), "203.0.113.0/24");
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        let Err(CidrError::HostBits { network }) = Cidr::new(six, 32) else {
            panic!("accepted")
        };
        assert_eq!(network.to_string(), "[2001:db8::]/32");
    }

    #[test]
    fn longest_prefix_is_accepted_and_one_more_is_not() {
        assert!(Cidr::new(v4("203.0.113.9"), 32).is_ok());
        assert_eq!(
            Cidr::new(v4("0.0.0.0"), 33),
            Err(CidrError::PrefixTooLong { prefix: 33, bits: 32 })
        );
        assert!(Cidr::new("::1".parse().unwrap(), 128).is_ok());
        let too_long = Cidr::new("::".parse().unwrap(), 129);
        assert_eq!(too_long, Err(CidrError::PrefixTooLong { prefix: 129, bits: 128 }));
    }

    #[test]
    fn first_and_last_address_are_inside_and_their_neighbours_outside() {
        let cidr = Cidr::new(v4("203.0.113.64"), 26).unwrap();
        assert!(cidr.contains(v4("203.0.113.64")));
        assert!(!cidr.contains(v4("203.0.113.63")));
        assert_eq!(cidr.last_address(), v4("203.0.113.127"));
        assert!(cidr.contains(v4("203.0.113.127")));
        assert!(!cidr.contains(v4("203.0.113.128")));
    }

    proptest! {
        #[test]
        fn contains_agrees_with_comparing_bit_by_bit_v4(bits: u32, other: u32, prefix in 0_u8..=32, near in 0_u8..=32) {
            // Half of the addresses differ in few low bits only: random pairs would hardly ever match.
            let other = if near % 2 == 0 { other } else { bits ^ (other & !mask4(near)) };
            let first = Ipv4Addr::from_bits(bits & mask4(prefix));
            let cidr = Cidr::new(first.into(), prefix).unwrap();
            let same = (0..u32::from(prefix)).all(|bit| (bits << bit) >> 31 == (other << bit) >> 31);
            prop_assert_eq!(cidr.contains(Ipv4Addr::from_bits(other).into()), same);
        }

        #[test]
        fn contains_agrees_with_comparing_bit_by_bit_v6(bits: u128, other: u128, prefix in 0_u8..=128, near in 0_u8..=128) {
            let other = if near % 2 == 0 { other } else { bits ^ (other & !mask6(near)) };
            let first = Ipv6Addr::from_bits(bits & mask6(prefix));
            let cidr = Cidr::new(first.into(), prefix).unwrap();
            let same = (0..u32::from(prefix)).all(|bit| (bits << bit) >> 127 == (other << bit) >> 127);
            prop_assert_eq!(cidr.contains(Ipv6Addr::from_bits(other).into()), same);
        }
    }
}
