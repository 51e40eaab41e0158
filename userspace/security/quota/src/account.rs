use core::fmt;

use nexus_abi::{Errno, Reason, Verdict};

use crate::{Amount, Budget};

/// The judgement of one request, and the warning that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it was charged: whole or not at all.
    pub verdict: Verdict,
    /// `quota.soft_bytes` if this request crossed the soft limit; once per crossing.
    pub warning: Option<Reason>,
}

/// More was released than was ever charged; the account went to zero instead of below.
///
/// It means that somebody else changed the files: the account is no longer exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underflow;

impl fmt::Display for Underflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more was released than was charged")
    }
}

impl core::error::Error for Underflow {}

/// The budget of one area and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    budget: Budget,
    used: Amount,
    /// Whether the last thing known is that use is past soft; a crossing is told when this turns true.
    past_soft: bool,
}

impl Account {
    /// An account over `budget` of which `used` is used already, which may be more than the budget.
    ///
    /// A use that is past soft from the start is no crossing.
    #[must_use]
    pub const fn new(budget: Budget, used: Amount) -> Self {
        let mut account = Self {
            budget,
            used,
            past_soft: false,
        };
        account.past_soft = account.is_past_soft();
        account
    }

    /// The budget.
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// What is used.
    #[must_use]
    pub const fn used(&self) -> Amount {
        self.used
    }

    /// What can still be charged: nothing where use is at or past the limit.
    #[must_use]
    pub const fn free(&self) -> Amount {
        self.limit().saturating_sub(self.used)
    }

    /// Whether a charge of `amount` would be granted. Charges nothing.
    ///
    /// A part of `amount` that is zero always fits, also where use is past a limit that was lowered.
    #[must_use]
    pub fn would_fit(&self, amount: Amount) -> Verdict {
        match self.judge(amount) {
            Ok(_) => Verdict::Allow { rule: None },
            Err(reason) => Verdict::Deny {
                reason,
                errno: Errno::EDQUOT,
                rule: None,
            },
        }
    }

    /// Charges `amount` whole, or denies it and charges nothing.
    pub fn charge(&mut self, amount: Amount) -> Decision {
        match self.judge(amount) {
            Ok(used) => {
                self.used = used;
                Decision {
                    verdict: Verdict::Allow { rule: None },
                    warning: self.crossing(),
                }
            }
            Err(reason) => Decision {
                verdict: Verdict::Deny {
                    reason,
                    errno: Errno::EDQUOT,
                    rule: None,
                },
                warning: None,
            },
        }
    }

    /// Gives `amount` back.
    ///
    /// # Errors
    /// [`Underflow`] if it is more than is used; use is then zero where it would be less.
    pub fn release(&mut self, amount: Amount) -> Result<(), Underflow> {
        let exact = self.used.covers(amount);
        self.used = self.used.saturating_sub(amount);
        self.past_soft = self.is_past_soft();
        if exact { Ok(()) } else { Err(Underflow) }
    }

    /// Puts another budget in force. Use stays; where it is past the new limits, it can only shrink.
    ///
    /// Gives the warning if use is past the new soft limit and was not past the old one.
    pub fn set_budget(&mut self, budget: Budget) -> Option<Reason> {
        self.budget = budget;
        self.crossing()
    }

    fn judge(&self, amount: Amount) -> Result<Amount, Reason> {
        let limit = self.limit();
        let fits = |used: u64, asked: u64, limit: u64| match used.checked_add(asked) {
            _ if asked == 0 => Some(used),
            Some(sum) if sum <= limit => Some(sum),
            _ => None,
        };
        // Inodes first: a new file that fits neither is told that there are too many files, whatever its size.
        Ok(Amount {
            inodes: fits(self.used.inodes, amount.inodes, limit.inodes).ok_or(Reason::QuotaHardInodes)?,
            links: fits(self.used.links, amount.links, limit.links).ok_or(Reason::QuotaHardInodes)?,
            bytes: fits(self.used.bytes, amount.bytes, limit.bytes).ok_or(Reason::QuotaHardBytes)?,
        })
    }

    const fn limit(&self) -> Amount {
        Amount {
            bytes: self.budget.hard_bytes,
            inodes: self.budget.hard_inodes,
            links: self.budget.hard_inodes,
        }
    }

    const fn is_past_soft(&self) -> bool {
        match self.budget.soft_bytes {
            Some(soft) => self.used.bytes > soft,
            None => false,
        }
    }

    fn crossing(&mut self) -> Option<Reason> {
        let was = self.past_soft;
        self.past_soft = self.is_past_soft();
        if self.past_soft && !was {
            Some(Reason::QuotaSoftBytes)
        } else {
            None
        }
    }
}
