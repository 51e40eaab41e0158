//! What rules let a subject reach, as sets: the table's judgement for every destination at once.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use nexus_abi::{Effect, Protocol};

use crate::layer::Bits;
use crate::set::{EgressSet, Families, Space, TooComplex};
use crate::special::{SPECIAL_BLOCKS, SpecialKind};
use crate::{EgressRule, PortRange};

/// Everything that rules let a subject reach, for whatever addresses the host has.
///
/// Addresses are as they are judged: IPv4-mapped and NAT64 addresses are not in the sets, because what is judged for them
/// follows from the IPv4 address inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// On the host's network, as long as it is no address of the host itself.
    pub outside: EgressSet,
    /// On the subject's own loopback.
    pub own_loopback: EgressSet,
    /// On the host's network where it is an address of the host itself.
    pub host_own: EgressSet,
}

/// `::ffff:0:0/96` and `64:ff9b::/96`: judged as the IPv4 address inside.
const JUDGED_AS_V4: [u128; 2] = [0xffff_0000_0000, 0x0064_ff9b << 96];
const EMBEDDED: u8 = 96;

/// A family's part of the table of special blocks.
trait Family: Bits {
    const BITS: u8;
    const UNSPECIFIED: Self;
    const LOCALHOST: Self;
    fn of(address: IpAddr) -> Option<Self>;
    /// Stretches that no verdict is kept for.
    fn judged_as_another() -> Vec<(Self, u8)>;
}

impl Family for u32 {
    const BITS: u8 = 32;
    const UNSPECIFIED: Self = 0;
    const LOCALHOST: Self = 0x7f00_0001;
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(v4.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
    fn judged_as_another() -> Vec<(Self, u8)> {
        Vec::new()
    }
}

impl Family for u128 {
    const BITS: u8 = 128;
    const UNSPECIFIED: Self = 0;
    const LOCALHOST: Self = 1;
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6.to_bits()),
        }
    }
    fn judged_as_another() -> Vec<(Self, u8)> {
        JUDGED_AS_V4.iter().map(|block| (*block, EMBEDDED)).collect()
    }
}

/// A rule in its family's numbers.
type Entry<'r, A> = (A, u8, &'r [PortRange]);

fn block<A: Family>(address: A, prefix: u8) -> Space<A> {
    Space::of(address, address.last(prefix), vec![PortRange::ALL])
}

/// The three sets of one family and protocol.
struct Sets<A> {
    outside: Space<A>,
    own: Space<A>,
    host: Space<A>,
}

fn sets<A: Family>(rules: &[&EgressRule]) -> Result<Sets<A>, TooComplex> {
    let entries = |effect: Effect| -> Vec<Entry<'_, A>> {
        let of = |rule: &&'_ EgressRule| rule.effect == effect;
        rules
            .iter()
            .copied()
            .filter(of)
            .filter_map(|rule| Some((A::of(rule.cidr.address())?, rule.cidr.prefix(), rule.ports.as_slice())))
            .collect()
    };
    let (allows, denies) = (entries(Effect::Allow), entries(Effect::Deny));
    let denied = Space::of_prefixes(denies)?;
    let blocks: Vec<(A, u8, SpecialKind)> = SPECIAL_BLOCKS
        .iter()
        .filter_map(|block| Some((A::of(block.address)?, block.prefix, block.kind)))
        .collect();
    let mut loopback = Space::EMPTY;
    for (address, prefix, _) in blocks.iter().filter(|(_, _, kind)| *kind == SpecialKind::Loopback) {
        loopback = loopback.union(&block(*address, *prefix))?;
    }
    let mut outside = Space::EMPTY;
    if !allows.is_empty() {
        outside = Space::of_prefixes(allows.clone())?;
        // The widest block first: where two hold an address, the narrower one decides, and it comes last here.
        for (address, prefix, _) in blocks.iter().rev() {
            let whole = block(*address, *prefix);
            let naming = |entry: &Entry<'_, A>| {
                entry.1 >= *prefix && entry.0.last(entry.1) <= address.last(*prefix) && entry.0 >= *address
            };
            let named = Space::of_prefixes(allows.iter().copied().filter(naming).collect())?;
            outside = outside.difference(&whole)?.union(&named)?;
        }
        for (address, prefix) in A::judged_as_another() {
            outside = outside.difference(&block(address, prefix))?;
        }
        outside = outside.difference(&denied)?;
    }
    let exact: Vec<Entry<'_, A>> = allows.iter().copied().filter(|entry| entry.1 == A::BITS).collect();
    let host = Space::of_prefixes(exact)?.difference(&loopback)?.difference(&denied)?;
    let own = loopback.difference(&outside)?.difference(&denied)?;
    // `0.0.0.0` and `::` are judged as loopback, and what denies them speaks of them too.
    let point = |space: &Space<A>| -> Result<Space<A>, TooComplex> {
        let unspecified = block(A::UNSPECIFIED, A::BITS);
        let as_loopback = Space::of(A::UNSPECIFIED, A::UNSPECIFIED, space.ports(A::LOCALHOST).to_vec());
        space.difference(&unspecified)?.union(&as_loopback.difference(&denied)?)
    };
    Ok(Sets {
        outside: point(&outside)?,
        own: point(&own)?,
        host: host.difference(&block(A::UNSPECIFIED, A::BITS))?,
    })
}

impl Reachable {
    /// What these rules let a subject reach.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn of(rules: &[EgressRule]) -> Result<Self, TooComplex> {
        let of_protocol = |protocol: Protocol| {
            let rules: Vec<&EgressRule> = rules.iter().filter(|rule| rule.protocol == protocol).collect();
            let (v4, v6) = (sets::<u32>(&rules)?, sets::<u128>(&rules)?);
            Ok((
                Families {
                    v4: v4.outside,
                    v6: v6.outside,
                },
                Families { v4: v4.own, v6: v6.own },
                Families {
                    v4: v4.host,
                    v6: v6.host,
                },
            ))
        };
        let (tcp, udp) = (of_protocol(Protocol::Tcp)?, of_protocol(Protocol::Udp)?);
        Ok(Self {
            outside: EgressSet { tcp: tcp.0, udp: udp.0 },
            own_loopback: EgressSet { tcp: tcp.1, udp: udp.1 },
            host_own: EgressSet { tcp: tcp.2, udp: udp.2 },
        })
    }

    /// What both let a subject reach: a policy under its ceiling. What one means as the host's loopback and the other as the
    /// subject's own is the subject's own.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn under(&self, ceiling: &Self) -> Result<Self, TooComplex> {
        let outside = self.outside.intersection(&ceiling.outside)?;
        let any = |one: &Self| one.outside.union(&one.own_loopback);
        let own_loopback = any(self)?.intersection(&any(ceiling)?)?.difference(&outside)?;
        Ok(Self {
            outside,
            own_loopback,
            host_own: self.host_own.intersection(&ceiling.host_own)?,
        })
    }
}
