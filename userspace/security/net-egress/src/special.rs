use crate::Cidr;
use crate::cidr::{IPV4_BITS, IPV6_BITS, mask4, mask6};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// The most addresses of a host: machines with a thousand containers have some thousands.
pub const HOST_ADDRESSES_MAX: usize = 16_384;

/// Why an address is opened only by a rule that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SpecialKind {
    /// `127.0.0.0/8` and `::1`; `0.0.0.0` and `::` are judged as it, because Linux takes them there.
    Loopback,
    /// `0.0.0.0/8`, "this network" (RFC 791), but for `0.0.0.0`.
    ThisNetwork,
    /// `169.254.0.0/16` (RFC 3927) and `fe80::/10` (RFC 4291): most clouds' metadata service among it.
    LinkLocal,
    /// Metadata services of clouds that are not link-local.
    CloudMetadata,
    /// `224.0.0.0/4` (RFC 5771) and `ff00::/8` (RFC 4291).
    Multicast,
    /// `255.255.255.255`. A directed broadcast address is one of the [`HostAddresses`].
    Broadcast,
    /// `240.0.0.0/4`, class E (RFC 1112).
    Reserved,
    /// IPv6 forms that may reach an IPv4 address which cannot be told from them: local NAT64 (RFC 8215), stateless
    /// translation (RFC 2765), IPv4-compatible addresses and 6to4.
    Translation,
    /// An address of the host itself.
    Host,
}

/// A block of special addresses: only a rule whose prefix lies inside it opens anything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialBlock {
    /// The first address.
    pub address: IpAddr,
    /// The prefix; also the shortest prefix of a rule that names addresses in here.
    pub prefix: u8,
    /// Why it is special.
    pub kind: SpecialKind,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, kind: SpecialKind) -> SpecialBlock {
    SpecialBlock {
        address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        prefix,
        kind,
    }
}

const fn v6(bits: u128, prefix: u8, kind: SpecialKind) -> SpecialBlock {
    SpecialBlock {
        address: IpAddr::V6(Ipv6Addr::from_bits(bits)),
        prefix,
        kind,
    }
}

/// Every special block. Where two hold an address, the longer prefix, which comes first, decides.
pub const SPECIAL_BLOCKS: &[SpecialBlock] = &[
    v4(255, 255, 255, 255, 32, SpecialKind::Broadcast),
    // Azure's WireServer, Alibaba's and Oracle's (classic) metadata service: not link-local, and as dangerous.
    v4(168, 63, 129, 16, 32, SpecialKind::CloudMetadata),
    v4(100, 100, 100, 200, 32, SpecialKind::CloudMetadata),
    v4(192, 0, 0, 192, 32, SpecialKind::CloudMetadata),
    v4(169, 254, 0, 0, 16, SpecialKind::LinkLocal),
    v4(127, 0, 0, 0, 8, SpecialKind::Loopback),
    v4(0, 0, 0, 0, 8, SpecialKind::ThisNetwork),
    v4(240, 0, 0, 0, 4, SpecialKind::Reserved),
    v4(224, 0, 0, 0, 4, SpecialKind::Multicast),
    v6(1, 128, SpecialKind::Loopback),
    // Google's metadata service over IPv6.
    v6(
        0xfd20_00ce_0000_0000_0000_0000_0000_0254,
        128,
        SpecialKind::CloudMetadata,
    ),
    // ::/96, IPv4-compatible (RFC 4291, deprecated): a sit interface tunnels them to the IPv4 address inside.
    v6(0, 96, SpecialKind::Translation),
    // ::ffff:0:0:0/96, stateless translation (RFC 2765).
    v6(0xffff_0000_0000_0000, 96, SpecialKind::Translation),
    // 64:ff9b:1::/48, local NAT64 (RFC 8215): where the IPv4 address is inside is the operator's choice, so it
    // cannot be judged as IPv4.
    v6(0x0064_ff9b_0001 << 80, 48, SpecialKind::Translation),
    // Amazon's services for instances over IPv6, fd00:ec2::254 among them.
    v6(0xfd00_0ec2 << 96, 32, SpecialKind::CloudMetadata),
    // 2002::/16, 6to4 (RFC 3056): a sit interface tunnels them to the IPv4 address inside.
    v6(0x2002 << 112, 16, SpecialKind::Translation),
    v6(0xfe80 << 112, 10, SpecialKind::LinkLocal),
    v6(0xff00 << 112, 8, SpecialKind::Multicast),
];

/// The prefix of both blocks that hold an IPv4 address in their last 32 bits.
const EMBEDDED: u8 = 96;
/// `::ffff:0:0/96` (RFC 4291): an IPv4 address as an IPv6 socket sees it.
const MAPPED: u128 = 0xffff_0000_0000;
/// `64:ff9b::/96` (RFC 6052): an IPv4 address that a NAT64 gateway reaches.
const NAT64: u128 = 0x0064_ff9b << 96;

/// How an address was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// As IPv4-mapped IPv6.
    Mapped,
    /// As a NAT64 address.
    Nat64,
}

/// The address without the form it was written in: IPv4-mapped and NAT64 addresses are the IPv4 address inside.
pub(crate) const fn strip(address: IpAddr) -> (IpAddr, Form) {
    let IpAddr::V6(v6) = address else {
        return (address, Form::Plain);
    };
    let [.., a, b, c, d] = v6.octets();
    let inside = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    match v6.to_bits() & mask6(EMBEDDED) {
        MAPPED => (inside, Form::Mapped),
        NAT64 => (inside, Form::Nat64),
        _ => (address, Form::Plain),
    }
}

/// Loopback for `0.0.0.0` and `::`, where Linux takes them (ip(7), `ip_route_output_key_hash_rcu`, `tcp_v6_connect`);
/// any other address as it is.
pub(crate) const fn specified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    }
}

/// The address that is judged for this one: IPv4-mapped and NAT64 addresses are judged as the IPv4 address inside,
/// `0.0.0.0` and `::` as `127.0.0.1` and `::1`.
#[must_use]
pub const fn judged_as(address: IpAddr) -> IpAddr {
    specified(strip(address).0)
}

/// The address to act on for the one that was asked for: the same, but `0.0.0.0` and `::` as the loopback address that
/// was judged. A socket that is bound to an address would take `0.0.0.0` to its own address instead, past the judgement.
#[must_use]
pub const fn acted_on(address: IpAddr) -> IpAddr {
    match (address, strip(address)) {
        (IpAddr::V6(_), (IpAddr::V4(v4), Form::Mapped)) if v4.is_unspecified() => {
            IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped())
        }
        _ => specified(address),
    }
}

/// The IPv4 prefix that a prefix inside the mapped or the NAT64 block is judged as; a rule for it would match nothing.
pub(crate) fn translated(cidr: &Cidr) -> Option<Cidr> {
    let prefix = cidr.prefix().checked_sub(EMBEDDED)?;
    match strip(cidr.address()) {
        (_, Form::Plain) => None,
        (inside, _) => Cidr::new(inside, prefix).ok(),
    }
}

/// The special block that holds the address, as [`judged_as`] gave it.
#[must_use]
pub fn special_block(address: IpAddr) -> Option<&'static SpecialBlock> {
    SPECIAL_BLOCKS.iter().find(|block| match (block.address, address) {
        (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()) & mask4(block.prefix) == 0,
        (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()) & mask6(block.prefix) == 0,
        _ => false,
    })
}

/// The shortest prefix of an allow rule that opens this address, and why it is special; `None` where any rule does.
pub(crate) fn naming_prefix(address: IpAddr, host: &HostAddresses) -> Option<(u8, SpecialKind)> {
    let block = special_block(address);
    if let Some(block) = block
        && block.kind == SpecialKind::Loopback
    {
        return Some((block.prefix, block.kind));
    }
    if host.contains(address) {
        let whole = match address {
            IpAddr::V4(_) => IPV4_BITS,
            IpAddr::V6(_) => IPV6_BITS,
        };
        return Some((whole, SpecialKind::Host));
    }
    block.map(|block| (block.prefix, block.kind))
}

/// The host's own addresses, and the directed broadcast addresses of its networks: each is opened only by a rule for
/// exactly it (`/32`, `/128`). Loopback addresses may be among them and stay loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    v4: Vec<u32>,
    v6: Vec<u128>,
}

/// A host has more addresses than [`HOST_ADDRESSES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the host has more than {HOST_ADDRESSES_MAX} addresses")]
pub struct TooManyHostAddresses;

impl HostAddresses {
    /// No address at all: what a test or an offline explanation knows of a host.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }

    /// The addresses, in any order and form, duplicates allowed.
    ///
    /// # Errors
    /// [`TooManyHostAddresses`].
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, TooManyHostAddresses> {
        let mut host = Self::none();
        for (count, address) in addresses.into_iter().enumerate() {
            if count >= HOST_ADDRESSES_MAX {
                return Err(TooManyHostAddresses);
            }
            match judged_as(address) {
                IpAddr::V4(v4) => host.v4.push(v4.to_bits()),
                IpAddr::V6(v6) => host.v6.push(v6.to_bits()),
            }
        }
        host.v4.sort_unstable();
        host.v4.dedup();
        host.v6.sort_unstable();
        host.v6.dedup();
        Ok(host)
    }

    /// Whether the address, as [`judged_as`] gave it, is one of the host's.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.binary_search(&v4.to_bits()).is_ok(),
            IpAddr::V6(v6) => self.v6.binary_search(&v6.to_bits()).is_ok(),
        }
    }
}
