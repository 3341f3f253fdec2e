//! The standard library's clocks, for runtimes whose time is the system's.

use crate::Timestamp;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

#[cfg(any(feature = "async-std", feature = "smol", feature = "thread"))]
pub(in super::super) use monotonic::{instant, now};

/// Where clocks that live as long as the process count from.
pub(in super::super) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

pub(in super::super) fn utc() -> Timestamp {
    SystemTime::now().into()
}

/// For those whose time cannot be paused.
#[cfg(any(feature = "async-std", feature = "smol", feature = "thread"))]
mod monotonic {
    use super::origin;
    use crate::Instant;
    use core::time::Duration;

    pub(in super::super::super) fn now() -> Instant {
        let micros = origin().elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The same moment, unless the system cannot say it.
    pub(in super::super::super) fn instant(at: Instant) -> Option<std::time::Instant> {
        origin().checked_add(Duration::from_micros(at.as_micros()))
    }
}
