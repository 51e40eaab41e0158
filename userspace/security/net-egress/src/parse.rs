use crate::{Cidr, CidrError, PortRange, PortRangeError};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// The longest text a parser here looks at, in bytes: the longest list of [`PORT_RANGES_MAX`] ranges with blanks.
pub const TEXT_BYTES_MAX: usize = 4096;

/// The most port ranges of one rule. A rule that needs more is clearer as several.
pub const PORT_RANGES_MAX: usize = 64;

/// What is wrong with a text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct ParseError {
    /// The byte of the text at which the wrong part starts; at most the text's length.
    pub offset: usize,
    /// How many bytes the wrong part has; 0 where something is missing.
    pub length: usize,
    /// What is wrong.
    pub kind: ParseErrorKind,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseErrorKind {
    /// There is nothing.
    #[error("nothing is given where {expected} is needed")]
    Empty {
        /// What should be there.
        expected: &'static str,
    },
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("the text is longer than {TEXT_BYTES_MAX} bytes")]
    TextTooLong,
    /// No IPv4 or IPv6 address.
    #[error("not an IPv4 or IPv6 address")]
    Address,
    /// A bracket is opened and not closed.
    #[error("`[` is not closed")]
    Bracket,
    /// Text after the bracket that is neither a prefix nor a port.
    #[error("unexpected text after the address")]
    Trailing,
    /// Not a prefix length in plain decimal.
    #[error("not a prefix length")]
    Prefix,
    /// The address and the prefix do not fit.
    #[error(transparent)]
    Cidr(CidrError),
    /// Not a port in plain decimal.
    #[error("not a port")]
    Port,
    /// The range is not one.
    #[error(transparent)]
    Ports(PortRangeError),
    /// A port is named twice.
    #[error("port range `{0}` overlaps one that is named before it")]
    Overlap(PortRange),
    /// More than [`PORT_RANGES_MAX`] ranges.
    #[error("more than {PORT_RANGES_MAX} port ranges")]
    TooManyRanges,
    /// An address without `:ports` where ports are needed.
    #[error("no ports are given")]
    NoPorts,
    /// An IPv6 address without brackets where a port may follow.
    #[error("an IPv6 address with ports is written in brackets")]
    Unbracketed,
}

impl ParseError {
    /// What to write instead.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match &self.kind {
            ParseErrorKind::Cidr(error) => error.help(),
            ParseErrorKind::Ports(error) => error.help(),
            ParseErrorKind::Port | ParseErrorKind::Empty { .. } => {
                "ports are written `443`, `8000-8100`, or as a list `22,443`"
            }
            ParseErrorKind::Prefix => "a prefix is a plain number, as in `203.0.113.0/24`",
            ParseErrorKind::Overlap(_) => "name each port once",
            ParseErrorKind::TooManyRanges => "split the rule, or join its ranges",
            ParseErrorKind::NoPorts => "add the ports, as in `203.0.113.0/24:443`; every port is `:1-65535`",
            ParseErrorKind::TextTooLong => "split the rule",
            _ => "an address is written `203.0.113.7`, `203.0.113.0/24`, `[2001:db8::1]` or `[2001:db8::]/32`",
        }
    }

    const fn at(offset: usize, length: usize, kind: ParseErrorKind) -> Self {
        Self { offset, length, kind }
    }

    /// The same error in a text of which this one is a part.
    const fn shifted(mut self, by: usize) -> Self {
        self.offset = self.offset.saturating_add(by);
        self
    }
}

/// The address with its prefix, if it has one: `203.0.113.0/24`, `203.0.113.7`, `[2001:db8::]/32`, `2001:db8::1`.
///
/// # Errors
/// Anything else, and host bits, with the place in `text`.
pub fn parse_cidr(text: &str) -> Result<Cidr, ParseError> {
    bounded(text)?;
    if text.is_empty() {
        return Err(ParseError::at(0, 0, ParseErrorKind::Empty { expected: "an address" }));
    }
    let (address, prefix) = if let Some(inner) = text.strip_prefix('[') {
        let (inner, after) = inner
            .split_once(']')
            .ok_or(ParseError::at(0, text.len(), ParseErrorKind::Bracket))?;
        let after_offset = inner.len().saturating_add(2);
        let prefix = match after.strip_prefix('/') {
            Some(prefix) => Some((prefix, after_offset.saturating_add(1))),
            None if after.is_empty() => None,
            None => return Err(ParseError::at(after_offset, after.len(), ParseErrorKind::Trailing)),
        };
        (parse_v6(inner).map_err(|error| error.shifted(1))?, prefix)
    } else {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some((prefix, address.len().saturating_add(1)))),
            None => (text, None),
        };
        let parsed = if address.contains(':') {
            parse_v6(address)?
        } else {
            parse_v4(address)?
        };
        (parsed, prefix)
    };
    let Some((prefix, prefix_offset)) = prefix else {
        return Ok(Cidr::host(address));
    };
    let bits = decimal(prefix)
        .and_then(|bits| u8::try_from(bits).ok())
        .ok_or(ParseError::at(prefix_offset, prefix.len(), ParseErrorKind::Prefix))?;
    Cidr::new(address, bits).map_err(|error| match error {
        CidrError::PrefixTooLong { .. } => ParseError::at(prefix_offset, prefix.len(), ParseErrorKind::Cidr(error)),
        CidrError::HostBits { .. } => ParseError::at(0, text.len(), ParseErrorKind::Cidr(error)),
    })
}

/// Ports, ranges of them, or a list of both: `443`, `8000-8100`, `22,443`. Blanks around a list's parts are allowed.
///
/// The result is sorted, without overlaps, and adjacent ranges are joined: the form that [`crate::EgressRule`] holds.
///
/// # Errors
/// Anything else, port 0, inverted ranges, a port that is named twice, and more than [`PORT_RANGES_MAX`] ranges.
pub fn parse_ports(text: &str) -> Result<Vec<PortRange>, ParseError> {
    bounded(text)?;
    let mut ranges: Vec<PortRange> = Vec::new();
    let mut offset = 0_usize;
    for part in text.split(',') {
        let blanks = part.len().saturating_sub(part.trim_start_matches(' ').len());
        let start = offset.saturating_add(blanks);
        let part_trimmed = part.trim_matches(' ');
        let range = parse_port_range(part_trimmed).map_err(|error| error.shifted(start))?;
        if ranges.len() >= PORT_RANGES_MAX {
            return Err(ParseError::at(start, part_trimmed.len(), ParseErrorKind::TooManyRanges));
        }
        if ranges
            .iter()
            .any(|other| other.first() <= range.last() && range.first() <= other.last())
        {
            return Err(ParseError::at(
                start,
                part_trimmed.len(),
                ParseErrorKind::Overlap(range),
            ));
        }
        ranges.push(range);
        offset = offset.saturating_add(part.len()).saturating_add(1);
    }
    ranges.sort_unstable();
    Ok(joined(&ranges))
}

/// A rule's destination: a [`parse_cidr`] and its [`parse_ports`], as in `203.0.113.0/24:443` and
/// `[2001:db8::]/32:8000-8100`. An IPv6 address stands in brackets here.
///
/// # Errors
/// As the two; and where there are no ports.
pub fn parse_target(text: &str) -> Result<(Cidr, Vec<PortRange>), ParseError> {
    bounded(text)?;
    let address_end = match (text.starts_with('['), text.find(']')) {
        (true, Some(bracket)) => bracket,
        (true, None) => return Err(ParseError::at(0, text.len(), ParseErrorKind::Bracket)),
        (false, _) => 0,
    };
    let (head, tail) = text.split_at_checked(address_end).unwrap_or((text, ""));
    let Some((rest, ports)) = tail.split_once(':') else {
        // The address first: it may be the wrong part.
        parse_cidr(text)?;
        return Err(ParseError::at(text.len(), 0, ParseErrorKind::NoPorts));
    };
    if head.is_empty() && ports.contains(':') {
        return Err(ParseError::at(0, text.len(), ParseErrorKind::Unbracketed));
    }
    let address_length = head.len().saturating_add(rest.len());
    let cidr = parse_cidr(text.get(..address_length).unwrap_or(text))?;
    let ports = parse_ports(ports).map_err(|error| error.shifted(address_length.saturating_add(1)))?;
    Ok((cidr, ports))
}

/// Sorted ranges without overlaps, with those joined that touch.
fn joined(sorted: &[PortRange]) -> Vec<PortRange> {
    let mut out: Vec<PortRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match out.last_mut() {
            Some(last) if last.last().checked_add(1) == Some(range.first()) => {
                // Cannot fail: both are ranges and the second starts after the first.
                *last = PortRange::new(last.first(), range.last()).unwrap_or(*range);
            }
            _ => out.push(*range),
        }
    }
    out
}

fn parse_port_range(text: &str) -> Result<PortRange, ParseError> {
    if text.is_empty() {
        return Err(ParseError::at(0, 0, ParseErrorKind::Empty { expected: "a port" }));
    }
    let (first_text, last_text, last_offset) = match text.split_once('-') {
        Some((first, last)) => (first, last, first.len().saturating_add(1)),
        None => (text, text, 0),
    };
    let first = port(first_text).ok_or(ParseError::at(0, first_text.len(), ParseErrorKind::Port))?;
    let last = port(last_text).ok_or(ParseError::at(last_offset, last_text.len(), ParseErrorKind::Port))?;
    PortRange::new(first, last).map_err(|error| ParseError::at(0, text.len(), ParseErrorKind::Ports(error)))
}

fn port(text: &str) -> Option<u16> {
    decimal(text).and_then(|port| u16::try_from(port).ok())
}

/// Plain decimal without sign, blanks or leading zeros, at most five digits (the longest port).
fn decimal(text: &str) -> Option<u32> {
    let plain = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && !leading_zero {
        text.parse().ok()
    } else {
        None
    }
}

fn parse_v4(text: &str) -> Result<IpAddr, ParseError> {
    text.parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .map_err(|_| ParseError::at(0, text.len(), ParseErrorKind::Address))
}

fn parse_v6(text: &str) -> Result<IpAddr, ParseError> {
    text.parse::<Ipv6Addr>()
        .map(IpAddr::V6)
        .map_err(|_| ParseError::at(0, text.len(), ParseErrorKind::Address))
}

fn bounded(text: &str) -> Result<(), ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ParseError::at(0, text.len(), ParseErrorKind::TextTooLong));
    }
    Ok(())
}
