use core::fmt;
use thiserror::Error;

/// An inclusive range of ports, 1 to 65535. Port 0 is no destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why two ports make no [`PortRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortRangeError {
    /// Port 0 cannot be reached.
    #[error("port `0` cannot be a destination")]
    Zero,
    /// The range ends before it starts.
    #[error("port range `{first}-{last}` ends before it starts")]
    Inverted {
        /// As given.
        first: u16,
        /// As given.
        last: u16,
    },
}

impl PortRangeError {
    /// What to write instead.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Zero => "write ports from 1 to 65535; every port is `1-65535`",
            Self::Inverted { .. } => "write the lower port first",
        }
    }
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// The ports from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`PortRangeError::Zero`] where the range holds port 0, [`PortRangeError::Inverted`] where it holds nothing.
    pub const fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first > last {
            return Err(PortRangeError::Inverted { first, last });
        }
        if first == 0 {
            return Err(PortRangeError::Zero);
        }
        Ok(Self { first, last })
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// Whether the port lies in this range.
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_inverted_ranges_are_refused() {
        assert!(PortRange::new(1, 1).is_ok());
        assert_eq!(PortRange::new(0, 0), Err(PortRangeError::Zero));
        assert_eq!(PortRange::new(0, 9), Err(PortRangeError::Zero));
        assert!(PortRange::new(9, 10).is_ok());
        assert_eq!(
            PortRange::new(10, 9),
            Err(PortRangeError::Inverted { first: 10, last: 9 })
        );
    }

    #[test]
    fn first_and_last_port_are_inside_and_their_neighbours_outside() {
        let range = PortRange::new(8000, 8100).unwrap();
        for (port, inside) in [(7999, false), (8000, true), (8100, true), (8101, false), (0, false)] {
            assert_eq!(range.contains(port), inside, "{port}");
        }
    }
}
