use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use nexus_abi::Reason;

/// The most pairs of subject and reason that have a bucket of their own: a session has one subject, so this is every
/// reason of some two hundred subjects. Past it, all further pairs share one bucket.
pub const RATE_KEYS_MAX: usize = 4096;

/// How often a subject may be recorded for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many at once; at least 1.
    pub burst: u32,
    /// After how many nanoseconds there is room for one more; 0 means no limit.
    pub interval_ns: u64,
}

impl RateLimit {
    /// Fifty at once shows how an attack or a misconfiguration starts; ten a second then keep a day's flood of one
    /// reason below a million records.
    pub const DEFAULT: Self = Self {
        burst: 50,
        interval_ns: 100_000_000,
    };
}

/// Whether a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is, and says how many of its subject and reason before it were not.
    Admit {
        /// How many.
        suppressed_before: u64,
    },
    /// It is not; it is counted for the next one.
    Suppress,
}

/// Records that were not written and that no later record told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// Of which subject and reason; `None` for those that shared the last bucket.
    pub key: Option<(Arc<str>, Reason)>,
    /// How many.
    pub count: u64,
}

/// A bucket of tokens, kept as the nanoseconds of refill that it holds: a token is [`RateLimit::interval_ns`] of them.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level_ns: u64,
    seen_ns: u64,
    suppressed: u64,
}

impl Bucket {
    const fn full(limit: RateLimit, now_ns: u64) -> Self {
        Self {
            level_ns: capacity(limit),
            seen_ns: now_ns,
            suppressed: 0,
        }
    }

    const fn refill(&mut self, limit: RateLimit, now_ns: u64) {
        // A clock that went backwards gives nothing.
        let level = self.level_ns.saturating_add(now_ns.saturating_sub(self.seen_ns));
        let most = capacity(limit);
        self.level_ns = if level > most { most } else { level };
        if now_ns > self.seen_ns {
            self.seen_ns = now_ns;
        }
    }

    const fn take(&mut self, limit: RateLimit, now_ns: u64) -> bool {
        self.refill(limit, now_ns);
        match self.level_ns.checked_sub(limit.interval_ns) {
            Some(rest) => {
                self.level_ns = rest;
                true
            }
            None => {
                self.suppressed = self.suppressed.saturating_add(1);
                false
            }
        }
    }
}

const fn capacity(limit: RateLimit) -> u64 {
    let burst = if limit.burst == 0 { 1 } else { limit.burst };
    limit.interval_ns.saturating_mul(burst as u64)
}

/// Limits records per subject and reason; nothing that it suppresses is ever forgotten.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    buckets: BTreeMap<(Arc<str>, Reason), Bucket>,
    /// What all pairs past [`RATE_KEYS_MAX`] share.
    shared: Bucket,
    /// When room was last sought among the buckets: not more than once an interval, since it looks at each.
    swept_ns: Option<u64>,
}

impl RateLimiter {
    /// A limiter with nothing seen.
    #[must_use]
    pub const fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            buckets: BTreeMap::new(),
            shared: Bucket::full(limit, 0),
            swept_ns: None,
        }
    }

    /// Whether a record of this subject and reason is written now, at `now_ns` of a monotonic clock.
    pub fn admit(&mut self, subject: &Arc<str>, reason: Reason, now_ns: u64) -> Admission {
        let limit = self.limit;
        let key = (Arc::clone(subject), reason);
        if !self.buckets.contains_key(&key) && !self.has_room(now_ns) {
            // Nobody's next record can tell of these, so they wait for the end.
            return match self.shared.take(limit, now_ns) {
                true => Admission::Admit { suppressed_before: 0 },
                false => Admission::Suppress,
            };
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket::full(limit, now_ns));
        match bucket.take(limit, now_ns) {
            true => Admission::Admit {
                suppressed_before: core::mem::take(&mut bucket.suppressed),
            },
            false => Admission::Suppress,
        }
    }

    /// Takes back an admission whose record could not be written after all: it counts as suppressed, together with
    /// those it would have told of.
    pub fn not_written(&mut self, subject: &Arc<str>, reason: Reason, suppressed_before: u64) {
        let bucket = self
            .buckets
            .get_mut(&(Arc::clone(subject), reason))
            .unwrap_or(&mut self.shared);
        bucket.suppressed = bucket.suppressed.saturating_add(suppressed_before).saturating_add(1);
    }

    /// Everything that was suppressed and not told, by subject and reason, the shared bucket last; forgets it.
    pub fn flush(&mut self) -> Vec<Suppressed> {
        let mut out = Vec::new();
        for (key, bucket) in &mut self.buckets {
            let count = core::mem::take(&mut bucket.suppressed);
            if count > 0 {
                out.push(Suppressed {
                    key: Some(key.clone()),
                    count,
                });
            }
        }
        let count = core::mem::take(&mut self.shared.suppressed);
        if count > 0 {
            out.push(Suppressed { key: None, count });
        }
        out
    }

    /// Whether one more bucket fits, after those were dropped that are as good as new.
    fn has_room(&mut self, now_ns: u64) -> bool {
        if self.buckets.len() < RATE_KEYS_MAX {
            return true;
        }
        let due = self
            .swept_ns
            .is_none_or(|swept| now_ns.saturating_sub(swept) >= self.limit.interval_ns);
        if !due {
            return false;
        }
        self.swept_ns = Some(now_ns);
        let limit = self.limit;
        self.buckets.retain(|_, bucket| {
            bucket.refill(limit, now_ns);
            bucket.suppressed > 0 || bucket.level_ns < capacity(limit)
        });
        self.buckets.len() < RATE_KEYS_MAX
    }
}
