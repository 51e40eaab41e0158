//! The ledger against a naive oracle that keeps a list of everything ever charged, in 128-bit numbers.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows panics, as it should"
)]
use nexus_abi::{Area, Errno, Reason, Verdict};
use nexus_quota::{Amount, Budget, Decision, Ledger, charged_bytes};
use proptest::prelude::*;

/// What the oracle remembers: every live charge, one entry each.
#[derive(Default)]
struct Oracle {
    budgets: Vec<(Area, Budget)>,
    live: Vec<(Area, Amount)>,
    past_soft: Vec<Area>,
}

impl Oracle {
    fn budget(&self, area: Area) -> Budget {
        self.budgets
            .iter()
            .rev()
            .find(|(of, _)| *of == area)
            .map_or(Budget::NOTHING, |(_, budget)| *budget)
    }

    fn sum(&self, area: Area, part: impl Fn(&Amount) -> u64) -> u128 {
        self.live
            .iter()
            .filter(|(of, _)| *of == area)
            .map(|(_, amount)| u128::from(part(amount)))
            .sum()
    }

    fn warn(&mut self, area: Area) -> Option<Reason> {
        let soft = self.budget(area).soft_bytes;
        let past = soft.is_some_and(|soft| self.sum(area, |amount| amount.bytes) > u128::from(soft));
        let was = self.past_soft.contains(&area);
        self.past_soft.retain(|of| *of != area);
        if past {
            self.past_soft.push(area);
        }
        (past && !was).then_some(Reason::QuotaSoftBytes)
    }

    fn charge(&mut self, area: Area, amount: Amount) -> Decision {
        let budget = self.budget(area);
        let deny = |reason| Decision {
            verdict: Verdict::Deny {
                reason,
                errno: Errno::EDQUOT,
                rule: None,
            },
            warning: None,
        };
        let over = |used: u128, asked: u64, limit: u64| asked > 0 && used + u128::from(asked) > u128::from(limit);
        if over(self.sum(area, |a| a.inodes), amount.inodes, budget.hard_inodes)
            || over(self.sum(area, |a| a.links), amount.links, budget.hard_inodes)
        {
            return deny(Reason::QuotaHardInodes);
        }
        if over(self.sum(area, |a| a.bytes), amount.bytes, budget.hard_bytes) {
            return deny(Reason::QuotaHardBytes);
        }
        self.live.push((area, amount));
        Decision {
            verdict: Verdict::Allow { rule: None },
            warning: self.warn(area),
        }
    }

    fn release(&mut self, index: usize) -> Option<(Area, Amount)> {
        if self.live.is_empty() {
            return None;
        }
        let taken = self.live.remove(index % self.live.len());
        self.warn(taken.0);
        Some(taken)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Charge(Area, Amount),
    Release(usize),
    Budget(Area, Budget),
}

fn area() -> impl Strategy<Value = Area> {
    prop_oneof![Just(Area::Tmp), Just(Area::State), Just(Area::Work)]
}

/// Small numbers, where limits are met often, and numbers at the edges of 64 bits.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0u64..12,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(1u64 << 63),
        1 => any::<u64>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let amount = (number(), number(), number()).prop_map(|(bytes, inodes, links)| Amount { bytes, inodes, links });
    let budget =
        (proptest::option::of(number()), number(), number()).prop_map(|(soft_bytes, hard_bytes, hard_inodes)| Budget {
            soft_bytes,
            hard_bytes,
            hard_inodes,
        });
    prop_oneof![
        5 => (area(), amount).prop_map(|(area, amount)| Step::Charge(area, amount)),
        3 => any::<usize>().prop_map(Step::Release),
        2 => (area(), budget).prop_map(|(area, budget)| Step::Budget(area, budget)),
    ]
}

fn agree(steps: &[Step]) {
    let (mut ledger, mut oracle) = (Ledger::default(), Oracle::default());
    for step in steps {
        match step {
            Step::Charge(area, amount) => {
                let fits = ledger.would_fit(*area, *amount);
                let decision = ledger.charge(*area, *amount);
                assert_eq!(decision, oracle.charge(*area, *amount), "{step:?}");
                assert_eq!(fits, decision.verdict, "would_fit says what charge does: {step:?}");
            }
            Step::Release(index) => {
                if let Some((area, amount)) = oracle.release(*index) {
                    assert_eq!(ledger.release(area, amount), Ok(()));
                }
            }
            Step::Budget(area, budget) => {
                let warning = ledger.set_budget(*area, *budget);
                oracle.budgets.push((*area, *budget));
                assert_eq!(warning, oracle.warn(*area), "{step:?}");
            }
        }
        for area in Area::ALL {
            let used = ledger.account(area).used();
            assert_eq!(u128::from(used.bytes), oracle.sum(area, |a| a.bytes));
            assert_eq!(u128::from(used.inodes), oracle.sum(area, |a| a.inodes));
            assert_eq!(u128::from(used.links), oracle.sum(area, |a| a.links));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_of_charges_releases_and_budgets_agrees_with_the_oracle(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        agree(&steps);
    }

    #[test]
    fn a_charged_length_covers_the_length_by_less_than_a_block(len in 0u64..=i64::MAX as u64) {
        let bytes = charged_bytes(len).unwrap();
        prop_assert!(bytes >= len && bytes - len < 4096 && bytes.is_multiple_of(4096));
    }
}

/// Every sequence of up to five steps over a small world: 2 bytes and 1 inode of budget, soft at 1.
#[test]
fn small_scope_every_short_sequence_agrees_with_the_oracle() {
    let small = Budget {
        soft_bytes: Some(1),
        hard_bytes: 2,
        hard_inodes: 1,
    };
    let alphabet = [
        Step::Charge(Area::Tmp, Amount::of_bytes(1)),
        Step::Charge(
            Area::Tmp,
            Amount {
                bytes: 2,
                inodes: 1,
                links: 0,
            },
        ),
        Step::Charge(Area::Tmp, Amount::LINK),
        Step::Charge(Area::Tmp, Amount::ZERO),
        Step::Charge(Area::State, Amount::INODE),
        Step::Release(0),
        Step::Release(1),
        Step::Budget(
            Area::Tmp,
            Budget {
                soft_bytes: None,
                hard_bytes: 1,
                hard_inodes: 0,
            },
        ),
        Step::Budget(Area::Tmp, small),
    ];
    let mut tried = 0u32;
    for length in 0..=5u32 {
        for number in 0..alphabet.len().pow(length) {
            let mut rest = number;
            let mut steps = vec![Step::Budget(Area::Tmp, small), Step::Budget(Area::State, small)];
            for _ in 0..length {
                steps.push(alphabet[rest % alphabet.len()].clone());
                rest /= alphabet.len();
            }
            agree(&steps);
            tried += 1;
        }
    }
    assert_eq!(tried, 1 + 9 + 81 + 729 + 6561 + 59049);
}

#[test]
fn the_last_byte_that_fits_is_charged_and_the_next_is_denied_whole() {
    let budget = Budget {
        soft_bytes: None,
        hard_bytes: 8192,
        hard_inodes: 4,
    };
    let mut ledger = Ledger::default().with(Area::Tmp, budget, Amount::ZERO);
    assert!(ledger.charge(Area::Tmp, Amount::of_bytes(8192)).verdict.is_allow());
    let denied = ledger.charge(Area::Tmp, Amount::of_bytes(4096));
    assert_eq!(
        denied.verdict,
        Verdict::Deny {
            reason: Reason::QuotaHardBytes,
            errno: Errno::EDQUOT,
            rule: None
        }
    );
    assert_eq!(ledger.account(Area::Tmp).used(), Amount::of_bytes(8192));
}

#[test]
fn crossing_soft_is_told_once_and_again_after_going_back_below() {
    let budget = Budget {
        soft_bytes: Some(4096),
        hard_bytes: 16384,
        hard_inodes: 4,
    };
    let mut ledger = Ledger::default().with(Area::State, budget, Amount::ZERO);
    let block = Amount::of_bytes(4096);
    assert_eq!(
        ledger.charge(Area::State, block).warning,
        None,
        "at soft is not past it"
    );
    assert_eq!(ledger.charge(Area::State, block).warning, Some(Reason::QuotaSoftBytes));
    assert_eq!(ledger.charge(Area::State, block).warning, None);
    ledger.release(Area::State, Amount::of_bytes(8192)).unwrap();
    assert_eq!(ledger.charge(Area::State, block).warning, Some(Reason::QuotaSoftBytes));
}

#[test]
fn a_budget_below_use_lets_nothing_grow_and_everything_shrink() {
    let budget = Budget {
        soft_bytes: None,
        hard_bytes: 16384,
        hard_inodes: 4,
    };
    let used = Amount {
        bytes: 12288,
        inodes: 3,
        links: 1,
    };
    let mut ledger = Ledger::default().with(Area::State, budget, used);
    ledger.set_budget(
        Area::State,
        Budget {
            soft_bytes: None,
            hard_bytes: 4096,
            hard_inodes: 1,
        },
    );
    assert!(!ledger.charge(Area::State, Amount::of_bytes(1)).verdict.is_allow());
    assert!(!ledger.charge(Area::State, Amount::INODE).verdict.is_allow());
    assert!(ledger.charge(Area::State, Amount::ZERO).verdict.is_allow());
    assert_eq!(ledger.release(Area::State, used), Ok(()));
    assert!(
        ledger
            .charge(
                Area::State,
                Amount {
                    bytes: 4096,
                    inodes: 1,
                    links: 0
                }
            )
            .verdict
            .is_allow()
    );
}

#[test]
fn releasing_more_than_was_charged_is_told_and_stops_at_zero() {
    let budget = Budget {
        soft_bytes: None,
        hard_bytes: 4096,
        hard_inodes: 1,
    };
    let mut ledger = Ledger::default().with(Area::Tmp, budget, Amount::of_bytes(4096));
    assert!(
        ledger
            .release(
                Area::Tmp,
                Amount {
                    bytes: 4097,
                    inodes: 0,
                    links: 0
                }
            )
            .is_err()
    );
    assert_eq!(ledger.account(Area::Tmp).used(), Amount::ZERO);
}

#[test]
fn an_area_without_a_budget_denies_all_growth() {
    let mut ledger = Ledger::default();
    assert!(!ledger.charge(Area::Work, Amount::INODE).verdict.is_allow());
    assert!(ledger.charge(Area::Work, Amount::ZERO).verdict.is_allow());
}
