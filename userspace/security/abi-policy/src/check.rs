//! The bounds that a profile must keep before anyone judges or compiles it.

use core::fmt;

use nexus_abi::RuleRef;
use nexus_abi::syscall::{Width, by_number};

use crate::limits::{ARGUMENTS, CONDITIONS_MAX, PROBED_MAX, RULES_MAX, SET_MAX};
use crate::profile::{ArgTest, Condition, Profile};

/// Why a profile can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProfileError {
    /// More than [`RULES_MAX`] rules.
    TooManyRules {
        /// How many.
        rules: usize,
    },
    /// More than [`PROBED_MAX`] probed calls.
    TooManyProbed {
        /// How many.
        probed: usize,
    },
    /// The probed numbers are not sorted, or one is there twice.
    ProbedUnsorted,
    /// More than [`CONDITIONS_MAX`] conditions.
    TooManyConditions {
        /// Whose.
        rule: RuleRef,
        /// How many.
        conditions: usize,
    },
    /// A number that is in no table: nothing is known of its arguments.
    UnknownNumber {
        /// Whose.
        rule: RuleRef,
        /// The number.
        number: u32,
    },
    /// An argument past the sixth.
    NoSuchArgument {
        /// Whose.
        rule: RuleRef,
        /// Which.
        index: u8,
    },
    /// More than [`SET_MAX`] values in a set.
    SetTooLarge {
        /// Whose.
        rule: RuleRef,
        /// How many.
        values: usize,
    },
    /// A set that is empty, unsorted, or holds a value twice.
    SetUnsorted {
        /// Whose.
        rule: RuleRef,
    },
    /// A range whose first value is above its last.
    RangeInverted {
        /// Whose.
        rule: RuleRef,
    },
    /// A value or mask with bits that the width cuts off: the test could never hold, or never fail, as it is written.
    ValueTooWide {
        /// Whose.
        rule: RuleRef,
        /// The value.
        value: u64,
        /// How much of the argument counts.
        width: Width,
    },
    /// A masked value with bits outside its mask, or no bits looked at: the test could never hold.
    NeverHolds {
        /// Whose.
        rule: RuleRef,
    },
}

impl ProfileError {
    /// The rule that is wrong, where one is.
    #[must_use]
    pub const fn rule(&self) -> Option<RuleRef> {
        match *self {
            Self::TooManyRules { .. } | Self::TooManyProbed { .. } | Self::ProbedUnsorted => None,
            Self::TooManyConditions { rule, .. }
            | Self::UnknownNumber { rule, .. }
            | Self::NoSuchArgument { rule, .. }
            | Self::SetTooLarge { rule, .. }
            | Self::SetUnsorted { rule }
            | Self::RangeInverted { rule }
            | Self::ValueTooWide { rule, .. }
            | Self::NeverHolds { rule } => Some(rule),
        }
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRules { rules } => write!(f, "`{rules}` syscall rules, at most {RULES_MAX} fit a profile"),
            Self::TooManyProbed { probed } => write!(f, "`{probed}` probed calls, at most {PROBED_MAX} fit a profile"),
            Self::ProbedUnsorted => f.write_str("the probed calls are not sorted, or one is there twice"),
            Self::TooManyConditions { conditions, .. } => {
                write!(f, "`{conditions}` conditions, at most {CONDITIONS_MAX} fit a rule")
            }
            Self::UnknownNumber { number, .. } => write!(f, "no syscall has the number `{number}`"),
            Self::NoSuchArgument { index, .. } => write!(f, "no syscall has an argument `{index}`; the last is 5"),
            Self::SetTooLarge { values, .. } => write!(f, "a set of `{values}` values, at most {SET_MAX} fit"),
            Self::SetUnsorted { .. } => f.write_str("a set of values is empty, unsorted, or holds one twice"),
            Self::RangeInverted { .. } => f.write_str("a range's first value is above its last"),
            Self::ValueTooWide { value, width, .. } => {
                write!(
                    f,
                    "`{value:#x}` has bits outside the {} that the call reads",
                    width.bits()
                )
            }
            Self::NeverHolds { .. } => f.write_str("a test looks at no bits, or wants bits outside its mask"),
        }
    }
}

impl core::error::Error for ProfileError {}

impl Profile {
    /// Whether the profile keeps every bound of this crate.
    ///
    /// # Errors
    /// The first thing that is wrong, in policy order.
    pub fn check(&self) -> Result<(), ProfileError> {
        if self.rules.len() > RULES_MAX {
            return Err(ProfileError::TooManyRules {
                rules: self.rules.len(),
            });
        }
        if self.probed.len() > PROBED_MAX {
            return Err(ProfileError::TooManyProbed {
                probed: self.probed.len(),
            });
        }
        if !self.probed.is_sorted_by(|a, b| a < b) {
            return Err(ProfileError::ProbedUnsorted);
        }
        for rule in &self.rules {
            if by_number(rule.number).is_none() {
                return Err(ProfileError::UnknownNumber {
                    rule: rule.rule,
                    number: rule.number,
                });
            }
            check_conditions(&rule.conditions, rule.rule)?;
        }
        Ok(())
    }
}

/// Whether conditions keep the bounds; `rule` is only for the error.
pub(crate) fn check_conditions(conditions: &[Condition], rule: RuleRef) -> Result<(), ProfileError> {
    if conditions.len() > CONDITIONS_MAX {
        return Err(ProfileError::TooManyConditions {
            rule,
            conditions: conditions.len(),
        });
    }
    for condition in conditions {
        let Condition::Arg { index, width, test } = condition else {
            continue;
        };
        if usize::from(*index) >= ARGUMENTS {
            return Err(ProfileError::NoSuchArgument { rule, index: *index });
        }
        check_test(test, *width, rule)?;
    }
    Ok(())
}

fn check_test(test: &ArgTest, width: Width, rule: RuleRef) -> Result<(), ProfileError> {
    let fits = |value: u64| {
        if value & !width.mask() == 0 {
            Ok(())
        } else {
            Err(ProfileError::ValueTooWide { rule, value, width })
        }
    };
    match test {
        ArgTest::Equal(value) => fits(*value),
        ArgTest::AnyBit(mask) => {
            fits(*mask)?;
            if *mask == 0 {
                Err(ProfileError::NeverHolds { rule })
            } else {
                Ok(())
            }
        }
        ArgTest::Masked { mask, value } => {
            fits(*mask)?;
            if value & !mask == 0 {
                Ok(())
            } else {
                Err(ProfileError::NeverHolds { rule })
            }
        }
        ArgTest::Range { first, last } => {
            fits(*first)?;
            fits(*last)?;
            if first <= last {
                Ok(())
            } else {
                Err(ProfileError::RangeInverted { rule })
            }
        }
        ArgTest::OneOf(values) => {
            if values.len() > SET_MAX {
                return Err(ProfileError::SetTooLarge {
                    rule,
                    values: values.len(),
                });
            }
            if values.is_empty() || !values.is_sorted_by(|a, b| a < b) {
                return Err(ProfileError::SetUnsorted { rule });
            }
            values.iter().try_for_each(|value| fits(*value))
        }
    }
}
