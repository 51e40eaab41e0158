//! Exact sets of destinations: protocol × address range × port range.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use nexus_abi::Protocol;
use thiserror::Error;

use crate::layer::Bits;
use crate::{Cidr, PortRange};

/// The most port ranges of one set, counted in every piece of addresses that has them: 64 for each rule of the largest
/// subject. Rules in which a thousand ranges lie under a hundred thousand prefixes would need more memory than a machine has.
pub const SET_RANGES_MAX: usize = 1 << 23;

/// A set would need more than [`SET_RANGES_MAX`] ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the destinations fall into more than {SET_RANGES_MAX} pieces")]
pub struct TooComplex;

/// Ports, each once: sorted, not overlapping, not adjacent.
pub(crate) type Ports = Vec<PortRange>;

/// Addresses with the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch<A> {
    pub(crate) first: A,
    pub(crate) last: A,
    pub(crate) ports: Ports,
}

/// A set of one protocol and family. There is one form of each set: stretches are sorted and do not overlap, none is without
/// ports, and neighbours have different ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space<A> {
    stretches: Vec<Stretch<A>>,
}

fn range(first: u32, last: u32) -> Option<PortRange> {
    PortRange::new(u16::try_from(first).ok()?, u16::try_from(last).ok()?).ok()
}

/// Both operands' ports, decided for each port by `keep`.
fn combine_ports(one: &[PortRange], other: &[PortRange], keep: impl Fn(bool, bool) -> bool) -> Ports {
    let mut out: Ports = Vec::new();
    let (mut a, mut b) = (one.iter().peekable(), other.iter().peekable());
    // One past the highest port does not fit 16 bits.
    let mut at = 1_u32;
    while at <= u32::from(u16::MAX) {
        let edge = |next: Option<&&PortRange>| match next {
            Some(range) if u32::from(range.first()) <= at => (true, u32::from(range.last())),
            Some(range) => (false, u32::from(range.first()).saturating_sub(1)),
            None => (false, u32::from(u16::MAX)),
        };
        let ((in_a, end_a), (in_b, end_b)) = (edge(a.peek()), edge(b.peek()));
        let end = end_a.min(end_b);
        if keep(in_a, in_b)
            && let Some(piece) = range(at, end)
        {
            match out.last_mut() {
                Some(last) if u32::from(last.last()).saturating_add(1) == at => {
                    *last = range(u32::from(last.first()), end).unwrap_or(*last);
                }
                _ => out.push(piece),
            }
        }
        if in_a && end == end_a {
            a.next();
        }
        if in_b && end == end_b {
            b.next();
        }
        at = end.saturating_add(1);
    }
    out
}

pub(crate) fn union(one: &[PortRange], other: &[PortRange]) -> Ports {
    combine_ports(one, other, |a, b| a || b)
}

impl<A: Bits> Space<A> {
    pub(crate) const EMPTY: Self = Self { stretches: Vec::new() };

    /// One stretch.
    pub(crate) fn of(first: A, last: A, ports: Ports) -> Self {
        let mut out = Self::EMPTY;
        if !ports.is_empty() && first <= last {
            out.stretches.push(Stretch { first, last, ports });
        }
        out
    }

    /// The union of prefixes with their ports, in any order.
    pub(crate) fn of_prefixes(mut entries: Vec<(A, u8, &[PortRange])>) -> Result<Self, TooComplex> {
        // Nesting order: a covering prefix stands before what it covers.
        entries.sort_by_key(|(address, prefix, _)| (*address, *prefix));
        let mut out = Builder::default();
        // What covers the place we are at, the longest last: its last address, and its ports with those around it.
        let mut open: Vec<(A, Ports)> = Vec::new();
        let mut at: Option<A> = None;
        for (address, prefix, ports) in entries {
            while let Some((last, _)) = open.last()
                && *last < address
            {
                close(&mut open, &mut at, &mut out)?;
            }
            if let (Some((_, around)), Some(from)) = (open.last(), at)
                && from < address
                && let Some(before) = address.previous()
            {
                out.push(from, before, around)?;
            }
            let ports = match open.last() {
                Some((_, around)) => union(around, ports),
                None => union(&[], ports),
            };
            at = Some(address);
            open.push((address.last(prefix), ports));
        }
        while !open.is_empty() {
            close(&mut open, &mut at, &mut out)?;
        }
        Ok(Self {
            stretches: out.stretches,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    pub(crate) fn stretches(&self) -> &[Stretch<A>] {
        &self.stretches
    }

    /// The ports of one address.
    pub(crate) fn ports(&self, address: A) -> &[PortRange] {
        let at = self.stretches.partition_point(|stretch| stretch.last < address);
        match self.stretches.get(at) {
            Some(stretch) if stretch.first <= address => &stretch.ports,
            _ => &[],
        }
    }

    fn combine(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Result<Self, TooComplex> {
        let mut out = Builder::default();
        let (mut a, mut b) = (self.stretches.iter().peekable(), other.stretches.iter().peekable());
        let mut at: Option<A> = None;
        loop {
            let firsts = a.peek().map(|s| s.first).into_iter().chain(b.peek().map(|s| s.first));
            let Some(first) = firsts.min() else { break };
            let from = at.map_or(first, |at| at.max(first));
            let edge = |next: Option<&&Stretch<A>>| match next {
                Some(stretch) if stretch.first <= from => (true, stretch.last),
                // Above `from`, so there is one before it.
                Some(stretch) => (false, stretch.first.previous().unwrap_or(from)),
                None => (false, A::HIGHEST),
            };
            let ((in_a, end_a), (in_b, end_b)) = (edge(a.peek()), edge(b.peek()));
            let end = end_a.min(end_b);
            let ports_a = a.peek().filter(|_| in_a).map_or(&[][..], |s| s.ports.as_slice());
            let ports_b = b.peek().filter(|_| in_b).map_or(&[][..], |s| s.ports.as_slice());
            out.push(from, end, &combine_ports(ports_a, ports_b, &keep))?;
            if in_a && end == end_a {
                a.next();
            }
            if in_b && end == end_b {
                b.next();
            }
            match end.next() {
                Some(next) => at = Some(next),
                None => break,
            }
        }
        Ok(Self {
            stretches: out.stretches,
        })
    }

    pub(crate) fn union(&self, other: &Self) -> Result<Self, TooComplex> {
        self.combine(other, |a, b| a || b)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Result<Self, TooComplex> {
        self.combine(other, |a, b| a && b)
    }

    pub(crate) fn difference(&self, other: &Self) -> Result<Self, TooComplex> {
        self.combine(other, |a, b| a && !b)
    }
}

/// Takes stretches in their order and joins what belongs together.
struct Builder<A> {
    stretches: Vec<Stretch<A>>,
    ranges: usize,
}

impl<A> Default for Builder<A> {
    fn default() -> Self {
        Self {
            stretches: Vec::new(),
            ranges: 0,
        }
    }
}

impl<A: Bits> Builder<A> {
    fn push(&mut self, first: A, last: A, ports: &[PortRange]) -> Result<(), TooComplex> {
        if ports.is_empty() {
            return Ok(());
        }
        if let Some(before) = self.stretches.last_mut()
            && before.last.next() == Some(first)
            && before.ports == ports
        {
            before.last = last;
            return Ok(());
        }
        self.ranges = self.ranges.saturating_add(ports.len());
        if self.ranges > SET_RANGES_MAX {
            return Err(TooComplex);
        }
        self.stretches.push(Stretch {
            first,
            last,
            ports: ports.to_vec(),
        });
        Ok(())
    }
}

/// Ends the longest open prefix: what is left of it gets its ports.
fn close<A: Bits>(open: &mut Vec<(A, Ports)>, at: &mut Option<A>, out: &mut Builder<A>) -> Result<(), TooComplex> {
    let Some((last, ports)) = open.pop() else { return Ok(()) };
    if let Some(from) = *at
        && from <= last
    {
        out.push(from, last, &ports)?;
        // After the last address there is nothing to go on with.
        *at = last.next();
    }
    Ok(())
}

/// The sets of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: Space<u32>,
    pub(crate) v6: Space<u128>,
}

impl Families {
    const EMPTY: Self = Self {
        v4: Space::EMPTY,
        v6: Space::EMPTY,
    };
}

/// A set of destinations. Two are equal exactly if they hold the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSet {
    pub(crate) tcp: Families,
    pub(crate) udp: Families,
}

/// Addresses of a set that have the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPiece<'s> {
    /// Over which protocol.
    pub protocol: Protocol,
    /// The first address.
    pub first: IpAddr,
    /// The last, of the same family.
    pub last: IpAddr,
    /// Sorted, not overlapping, not adjacent, not empty.
    pub ports: &'s [PortRange],
}

impl EgressSet {
    /// Nothing.
    pub const EMPTY: Self = Self {
        tcp: Families::EMPTY,
        udp: Families::EMPTY,
    };

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.tcp, &self.udp]
            .iter()
            .all(|families| families.v4.is_empty() && families.v6.is_empty())
    }

    /// Whether it holds this destination.
    #[must_use]
    pub fn contains(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let families = match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        };
        let ports = match address {
            IpAddr::V4(v4) => families.v4.ports(v4.to_bits()),
            IpAddr::V6(v6) => families.v6.ports(v6.to_bits()),
        };
        ports.iter().any(|range| range.contains(port))
    }

    fn combine(&self, other: &Self, op: Operation) -> Result<Self, TooComplex> {
        fn space<A: Bits>(one: &Space<A>, other: &Space<A>, op: Operation) -> Result<Space<A>, TooComplex> {
            match op {
                Operation::Union => one.union(other),
                Operation::Intersection => one.intersection(other),
                Operation::Difference => one.difference(other),
            }
        }
        let families = |one: &Families, other: &Families| {
            Ok(Families {
                v4: space(&one.v4, &other.v4, op)?,
                v6: space(&one.v6, &other.v6, op)?,
            })
        };
        Ok(Self {
            tcp: families(&self.tcp, &other.tcp)?,
            udp: families(&self.udp, &other.udp)?,
        })
    }

    /// What is in either.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn union(&self, other: &Self) -> Result<Self, TooComplex> {
        self.combine(other, Operation::Union)
    }

    /// What is in both.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn intersection(&self, other: &Self) -> Result<Self, TooComplex> {
        self.combine(other, Operation::Intersection)
    }

    /// What is in this one and not in the other.
    ///
    /// # Errors
    /// [`TooComplex`].
    pub fn difference(&self, other: &Self) -> Result<Self, TooComplex> {
        self.combine(other, Operation::Difference)
    }

    /// The pieces, by protocol, family and address: there is one way to cut a set into these.
    pub fn pieces(&self) -> impl Iterator<Item = EgressPiece<'_>> {
        let all = [(Protocol::Tcp, &self.tcp), (Protocol::Udp, &self.udp)];
        all.into_iter().flat_map(|(protocol, families)| {
            let v4 = families.v4.stretches().iter().map(move |stretch| EgressPiece {
                protocol,
                first: Ipv4Addr::from_bits(stretch.first).into(),
                last: Ipv4Addr::from_bits(stretch.last).into(),
                ports: &stretch.ports,
            });
            let v6 = families.v6.stretches().iter().map(move |stretch| EgressPiece {
                protocol,
                first: Ipv6Addr::from_bits(stretch.first).into(),
                last: Ipv6Addr::from_bits(stretch.last).into(),
                ports: &stretch.ports,
            });
            v4.chain(v6)
        })
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// The fewest prefixes that are together exactly the addresses from `first` to `last`, in their order: at most 62 for IPv4 and
/// 254 for IPv6. None where the two are of different families or in the wrong order.
#[must_use]
pub fn prefixes(first: IpAddr, last: IpAddr) -> Vec<Cidr> {
    fn cut<A: Bits>(first: A, last: A, bits: u8, make: impl Fn(A, u8) -> Option<Cidr>) -> Vec<Cidr> {
        let mut out = Vec::new();
        let mut at = Some(first);
        while let Some(from) = at.filter(|from| *from <= last) {
            // The shortest prefix that begins here and does not reach past the end; a whole address always fits.
            let fits = (0..=bits).find(|prefix| from.last(*prefix) <= last && make(from, *prefix).is_some());
            let prefix = fits.unwrap_or(bits);
            out.extend(make(from, prefix));
            at = from.last(prefix).next();
        }
        out
    }
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => cut(first.to_bits(), last.to_bits(), 32, |at, prefix| {
            Cidr::new(Ipv4Addr::from_bits(at).into(), prefix).ok()
        }),
        (IpAddr::V6(first), IpAddr::V6(last)) => cut(first.to_bits(), last.to_bits(), 128, |at, prefix| {
            Cidr::new(Ipv6Addr::from_bits(at).into(), prefix).ok()
        }),
        _ => Vec::new(),
    }
}
