//! The rate limit against a naive one; and that nothing it holds back is forgotten.

use nexus_abi::Reason;
use nexus_audit::{Admission, Counter, Counters, Judgement, RATE_KEYS_MAX, RateLimit, RateLimiter};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const LIMIT: RateLimit = RateLimit {
    burst: 3,
    interval_ns: 10,
};

fn admitted(admission: Admission) -> Option<u64> {
    match admission {
        Admission::Admit { suppressed_before } => Some(suppressed_before),
        Admission::Suppress => None,
    }
}

#[test]
fn the_burst_is_admitted_and_the_next_one_is_not_until_its_time() {
    let mut limiter = RateLimiter::new(LIMIT);
    let demo = Arc::from("demo");
    let mut ask = |now| admitted(limiter.admit(&demo, Reason::AbiNoRule, now));
    assert_eq!([ask(100), ask(100), ask(100)], [Some(0); 3]);
    assert_eq!([ask(100), ask(109)], [None; 2]);
    assert_eq!(ask(110), Some(2));
    assert_eq!(ask(119), None);
    assert_eq!(ask(120), Some(1));
    assert_eq!([ask(1000), ask(1000), ask(1000)], [Some(0); 3]);
    assert_eq!(ask(1000), None);
    assert_eq!(ask(5), None, "a clock that goes back gives nothing");
}

#[test]
fn one_subject_and_one_reason_do_not_use_up_another_s() {
    let mut limiter = RateLimiter::new(LIMIT);
    let (a, b) = (Arc::from("a"), Arc::from("b"));
    for _ in 0..10 {
        limiter.admit(&a, Reason::AbiNoRule, 0);
    }
    assert_eq!(admitted(limiter.admit(&a, Reason::AbiNoRule, 0)), None);
    assert_eq!(admitted(limiter.admit(&a, Reason::EgressNoRule, 0)), Some(0));
    assert_eq!(admitted(limiter.admit(&b, Reason::AbiNoRule, 0)), Some(0));
}

#[test]
fn no_interval_means_no_limit() {
    let mut limiter = RateLimiter::new(RateLimit {
        burst: 1,
        interval_ns: 0,
    });
    let demo = Arc::from("demo");
    for _ in 0..1000 {
        assert_eq!(admitted(limiter.admit(&demo, Reason::AbiNoRule, 7)), Some(0));
    }
}

#[test]
fn a_record_that_could_not_be_written_is_told_of_by_the_next() {
    let mut limiter = RateLimiter::new(LIMIT);
    let demo = Arc::from("demo");
    assert_eq!(admitted(limiter.admit(&demo, Reason::AbiNoRule, 0)), Some(0));
    limiter.not_written(&demo, Reason::AbiNoRule, 4);
    assert_eq!(admitted(limiter.admit(&demo, Reason::AbiNoRule, 0)), Some(5));
}

#[test]
fn a_million_denies_take_bounded_memory_and_are_all_counted() {
    let mut limiter = RateLimiter::new(RateLimit::DEFAULT);
    let mut counters = Counters::new();
    let demo = Arc::from("demo");
    let (mut written, mut told) = (0_u64, 0_u64);
    for n in 0..1_000_000_u64 {
        let reason = if n % 2 == 0 {
            Reason::AbiNoRule
        } else {
            Reason::EgressNoRule
        };
        let counter = Counter::of_record(Judgement::Deny(nexus_abi::Errno::EPERM), reason).unwrap();
        counters.add(&demo, counter, 1).unwrap();
        if let Some(before) = admitted(limiter.admit(&demo, reason, n * 1000)) {
            written += 1;
            told += before;
        }
    }
    let rest: u64 = limiter.flush().iter().map(|left| left.count).sum();
    assert_eq!(written + told + rest, 1_000_000);
    assert!(written < 150, "{written}");
    assert_eq!(counters.get("demo", Counter::AbiDenies), 500_000);
    assert_eq!(counters.get("demo", Counter::EgressDenies), 500_000);
}

#[test]
fn keys_past_the_bound_share_a_bucket_and_lose_nothing() {
    let mut limiter = RateLimiter::new(LIMIT);
    let (mut written, mut told) = (0_u64, 0_u64);
    let asked = RATE_KEYS_MAX as u64 + 1000;
    for n in 0..asked {
        for _ in 0..5 {
            if let Some(before) = admitted(limiter.admit(&Arc::from(format!("s{n}")), Reason::AbiNoRule, 0)) {
                written += 1;
                told += before;
            }
        }
    }
    assert_eq!(written, (RATE_KEYS_MAX as u64 + 1) * 3);
    let left = limiter.flush();
    assert_eq!(left.len(), RATE_KEYS_MAX + 1);
    assert_eq!(left.iter().filter(|left| left.key.is_none()).count(), 1);
    assert_eq!(
        written + told + left.iter().map(|left| left.count).sum::<u64>(),
        asked * 5
    );
    assert!(limiter.flush().is_empty(), "what was told is not told again");
    // Buckets that are as good as new make room.
    let late: Arc<str> = Arc::from("late");
    for _ in 0..3 {
        assert_eq!(admitted(limiter.admit(&late, Reason::AbiNoRule, 1_000_000)), Some(0));
    }
    limiter.admit(&late, Reason::AbiNoRule, 1_000_000);
    assert_eq!(limiter.flush()[0].key.as_ref().unwrap().0, late);
}

/// Tokens counted one by one: a list of the times at which each of them comes back.
#[derive(Default)]
struct Naive {
    level: u128,
    seen: u64,
    started: bool,
}

impl Naive {
    fn take(&mut self, limit: RateLimit, now: u64) -> bool {
        let full = u128::from(limit.burst) * u128::from(limit.interval_ns);
        if !self.started {
            (self.level, self.seen, self.started) = (full, now, true);
        }
        if now > self.seen {
            for _ in self.seen..now {
                if self.level < full {
                    self.level += 1;
                }
            }
            self.seen = now;
        }
        let whole = self.level >= u128::from(limit.interval_ns);
        if whole {
            self.level -= u128::from(limit.interval_ns);
        }
        whole
    }
}

proptest! {
    #[test]
    fn the_limiter_agrees_with_a_naive_one_and_accounts_for_everything(
        burst in 1_u32..5,
        interval_ns in 1_u64..20,
        steps in prop::collection::vec((0_u8..3, 0_usize..3, 0_u64..30), 1..200),
    ) {
        let limit = RateLimit { burst, interval_ns };
        let mut limiter = RateLimiter::new(limit);
        let mut naive: BTreeMap<(u8, usize), (Naive, u64)> = BTreeMap::new();
        let mut now = 1000;
        for (subject, reason, pass) in steps {
            now += pass;
            let (bucket, held) = naive.entry((subject, reason)).or_default();
            let expected = if bucket.take(limit, now) { Some(std::mem::take(held)) } else { *held += 1; None };
            let name = Arc::from(format!("s{subject}"));
            prop_assert_eq!(admitted(limiter.admit(&name, Reason::ALL[reason], now)), expected);
        }
        let left: u64 = limiter.flush().iter().map(|left| left.count).sum();
        prop_assert_eq!(left, naive.values().map(|(_, held)| held).sum::<u64>());
    }
}
