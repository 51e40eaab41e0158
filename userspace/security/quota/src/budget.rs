use core::fmt;

use crate::BLOCK_BYTES;

/// The limits of one area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// Past this many bytes a warning is recorded; a multiple of 4096, at most `hard_bytes`. `None`: no warning.
    pub soft_bytes: Option<u64>,
    /// Past this many bytes nothing grows; a multiple of 4096.
    pub hard_bytes: u64,
    /// Past this many inodes nothing is made.
    pub hard_inodes: u64,
}

impl Budget {
    /// The budget of an area that policy does not speak of: nothing.
    pub const NOTHING: Self = Self {
        soft_bytes: None,
        hard_bytes: 0,
        hard_inodes: 0,
    };

    /// Whether the limits make sense together.
    ///
    /// # Errors
    /// The first limit that does not.
    pub const fn validate(self) -> Result<(), BudgetError> {
        if !self.hard_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(BudgetError::HardNotBlocks(self.hard_bytes));
        }
        if let Some(soft) = self.soft_bytes {
            if !soft.is_multiple_of(BLOCK_BYTES) {
                return Err(BudgetError::SoftNotBlocks(soft));
            }
            if soft > self.hard_bytes {
                return Err(BudgetError::SoftAboveHard {
                    soft,
                    hard: self.hard_bytes,
                });
            }
        }
        Ok(())
    }
}

/// Why a budget makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetError {
    /// The hard limit is no multiple of 4096.
    HardNotBlocks(u64),
    /// The soft limit is no multiple of 4096.
    SoftNotBlocks(u64),
    /// The soft limit is above the hard one.
    SoftAboveHard {
        /// Bytes.
        soft: u64,
        /// Bytes.
        hard: u64,
    },
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HardNotBlocks(bytes) => write!(f, "the hard limit `{bytes}` is no multiple of {BLOCK_BYTES} bytes"),
            Self::SoftNotBlocks(bytes) => write!(f, "the soft limit `{bytes}` is no multiple of {BLOCK_BYTES} bytes"),
            Self::SoftAboveHard { soft, hard } => write!(f, "the soft limit `{soft}` is above the hard limit `{hard}`"),
        }
    }
}

impl core::error::Error for BudgetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(soft: Option<u64>, hard: u64) -> Result<(), BudgetError> {
        Budget {
            soft_bytes: soft,
            hard_bytes: hard,
            hard_inodes: 1,
        }
        .validate()
    }

    #[test]
    fn soft_may_equal_hard_and_may_not_pass_it() {
        assert_eq!(budget(Some(8192), 8192), Ok(()));
        assert_eq!(
            budget(Some(12288), 8192),
            Err(BudgetError::SoftAboveHard {
                soft: 12288,
                hard: 8192
            })
        );
    }

    #[test]
    fn limits_are_whole_blocks() {
        assert_eq!(budget(None, 4096), Ok(()));
        assert_eq!(budget(None, 4097), Err(BudgetError::HardNotBlocks(4097)));
        assert_eq!(budget(Some(1), 4096), Err(BudgetError::SoftNotBlocks(1)));
    }
}
