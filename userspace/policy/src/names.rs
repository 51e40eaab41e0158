//! Destinations by DNS name.

use std::fmt;

use nexus_abi::{Effect, Protocol, RuleRef};
use nexus_net_egress::PortRange;

use crate::limits::DNS_NAME_BYTES_MAX;

/// A DNS name, or every name below one.
///
/// Lower case, without the dot at the end, letters, digits, hyphens and underscores only; international names in their
/// ASCII form (`xn--…`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    name: String,
    below: bool,
}

impl NamePattern {
    /// Reads `git.example.org` or `*.example.net`. The error says what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if name.is_empty() || name.len() > DNS_NAME_BYTES_MAX {
            return Err("a DNS name has 1 to 253 bytes");
        }
        if name.contains('*') {
            return Err("`*` stands only at the beginning, as in \"*.example.net\"");
        }
        if !name.is_ascii() {
            return Err("write international names in their ASCII form, which begins with `xn--`");
        }
        if name.ends_with('.') {
            return Err("leave out the dot at the end: every name is taken from the root");
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err("each part between dots has 1 to 63 bytes");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err("a part of a name does not begin or end with `-`");
            }
            if !label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            {
                return Err("a name has letters, digits, `-` and `_` between its dots");
            }
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a name does not end in a number; an IPv4 address has four parts, each 0 to 255");
        }
        if name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost") {
            return Err("`localhost` is no DNS name; for the host's loopback write \"127.0.0.1\" and \"[::1]\"");
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            below,
        })
    }

    /// A pattern of a snapshot; `None` for one that no text gives.
    pub(crate) fn of_parts(name: &str, below: bool) -> Option<Self> {
        let pattern = Self::parse(name)
            .ok()
            .filter(|pattern| !pattern.below && pattern.name == name)?;
        Some(Self { below, ..pattern })
    }

    /// The name, without `*.`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether names below it are meant, at any depth, and not itself.
    #[must_use]
    pub fn is_below(&self) -> bool {
        self.below
    }

    /// Whether a name, in any case and with or without a dot at the end, is covered.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        if !self.below {
            return name.eq_ignore_ascii_case(&self.name);
        }
        let Some(at) = name.len().checked_sub(self.name.len()) else {
            return false;
        };
        match name.split_at_checked(at) {
            Some((before, own)) => own.eq_ignore_ascii_case(&self.name) && before.len() > 1 && before.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

/// One rule for a destination by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Whether the rule opens or closes.
    pub effect: Effect,
    /// Over which protocol.
    pub protocol: Protocol,
    /// Which names.
    pub pattern: NamePattern,
    /// To which ports; sorted, not overlapping, not adjacent, not empty.
    pub ports: Vec<PortRange>,
    /// The rule's place in the policy's table.
    pub rule: RuleRef,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_covers_names_below_at_any_depth_and_not_itself() {
        let star = NamePattern::parse("*.Example.net").unwrap();
        assert!(star.covers("a.example.net"));
        assert!(star.covers("A.b.EXAMPLE.net."));
        assert!(!star.covers("example.net"));
        assert!(!star.covers(".example.net"));
        assert!(!star.covers("badexample.net"));
        let one = NamePattern::parse("git.example.org").unwrap();
        assert!(one.covers("GIT.example.org."));
        assert!(!one.covers("a.git.example.org"));
        assert!(!one.covers("git.example.or"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "*.",
            "a..b",
            "-a.b",
            "a-.b",
            "a.*.b",
            "*",
            "a b",
            "ü.org",
            "a.org.",
            "1.2.3.4",
            "300.1.1.1",
            "localhost",
        ] {
            assert!(NamePattern::parse(text).is_err(), "{text}");
        }
        assert!(NamePattern::parse(&"a".repeat(63)).is_ok());
        assert!(NamePattern::parse(&"a".repeat(64)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_shown_reads_back(text in "(\\*\\.)?[a-z0-9.-]{0,12}|.*", other in ".*") {
            if let Ok(pattern) = NamePattern::parse(&text) {
                prop_assert_eq!(NamePattern::parse(&pattern.to_string()), Ok(pattern.clone()));
                let _ = pattern.covers(&other);
            }
        }
    }
}
