//! Time comes in through a clock, so that timers are tested without sleeping.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Monotonic time since the clock was made.
    fn now(&self) -> Duration;

    /// Wall-clock time since the Unix epoch, UTC.
    fn wall(&self) -> Duration;
}

/// The host's clocks.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl Default for HostClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for HostClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A clock that stands still until it is told to move; for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ns: AtomicU64,
    wall_offset_s: AtomicU64,
}

impl ManualClock {
    /// A clock at monotonic zero whose wall time is `epoch_s` seconds after the Unix epoch.
    pub fn new(epoch_s: u64) -> Self {
        Self {
            now_ns: AtomicU64::new(0),
            wall_offset_s: AtomicU64::new(epoch_s),
        }
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        self.now_ns
            .fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(self.wall_offset_s.load(Ordering::Relaxed)) + self.now()
    }
}
