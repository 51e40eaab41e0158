use nexus_abi::{Area, Reason, Verdict};

use crate::{Account, Amount, Budget, Decision, Underflow};

/// The accounts of a subject, one per area. An area without a budget has one of nothing: default deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    accounts: [Account; Area::ALL.len()],
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            accounts: [Account::new(Budget::NOTHING, Amount::ZERO); Area::ALL.len()],
        }
    }
}

impl Ledger {
    /// Opens the account of `area` over `budget`, with what is used already.
    #[must_use]
    pub fn with(mut self, area: Area, budget: Budget, used: Amount) -> Self {
        if let Some(account) = self.account_mut(area) {
            *account = Account::new(budget, used);
        }
        self
    }

    /// The account of `area`.
    #[must_use]
    pub fn account(&self, area: Area) -> Account {
        let nothing = Account::new(Budget::NOTHING, Amount::ZERO);
        index(area)
            .and_then(|index| self.accounts.get(index))
            .copied()
            .unwrap_or(nothing)
    }

    /// [`Account::would_fit`] of `area`.
    #[must_use]
    pub fn would_fit(&self, area: Area, amount: Amount) -> Verdict {
        self.account(area).would_fit(amount)
    }

    /// [`Account::charge`] of `area`.
    pub fn charge(&mut self, area: Area, amount: Amount) -> Decision {
        match self.account_mut(area) {
            Some(account) => account.charge(amount),
            None => Account::new(Budget::NOTHING, Amount::ZERO).charge(amount),
        }
    }

    /// [`Account::release`] of `area`.
    ///
    /// # Errors
    /// [`Underflow`] if it is more than is used.
    pub fn release(&mut self, area: Area, amount: Amount) -> Result<(), Underflow> {
        self.account_mut(area)
            .map_or(Err(Underflow), |account| account.release(amount))
    }

    /// [`Account::set_budget`] of `area`.
    pub fn set_budget(&mut self, area: Area, budget: Budget) -> Option<Reason> {
        self.account_mut(area).and_then(|account| account.set_budget(budget))
    }

    fn account_mut(&mut self, area: Area) -> Option<&mut Account> {
        index(area).and_then(|index| self.accounts.get_mut(index))
    }
}

fn index(area: Area) -> Option<usize> {
    Area::ALL.iter().position(|known| *known == area)
}
