//! Time as the parts that have threads of their own read it: they have no executor, whose clock might be paused.

use crate::time::{Instant, Timestamp};
use core::time::Duration;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Reads the time.
pub(crate) trait Time: Send + Sync {
    fn now(&self) -> Instant;

    fn utc(&self) -> Timestamp;
}

/// The standard library's clocks.
pub(super) struct StdTime;

impl Time for StdTime {
    fn now(&self) -> Instant {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let origin = ORIGIN.get_or_init(std::time::Instant::now);
        let passed = origin.elapsed();
        Instant::ORIGIN.checked_add(passed).unwrap_or(Instant::END)
    }

    fn utc(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// So long after `now`, or the end of the clock, which never comes: a wait without an end is none.
pub(super) fn after(now: Instant, delay: Duration) -> Option<Instant> {
    Some(now.checked_add(delay).unwrap_or(Instant::END))
}
