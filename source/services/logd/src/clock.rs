use nexus_audit::UnixMillis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a record's times come from; a test gives its own.
pub trait Clock: Send + Sync {
    /// Nanoseconds of the monotonic clock (`CLOCK_MONOTONIC`, clock_gettime(2)).
    fn mono_ns(&self) -> u64;
    /// The time of day.
    fn time(&self) -> UnixMillis;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn mono_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn time(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
