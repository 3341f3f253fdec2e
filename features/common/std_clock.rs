//! The standard library's clocks: monotonic time since one origin per process, and wall time.

use crate::time::Timestamp;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

#[cfg(any(feature = "async-std", feature = "smol", feature = "thread"))]
pub(crate) use monotonic::{now, std_instant};

/// Time zero of the process's monotonic clocks.
pub(crate) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

pub(crate) fn utc() -> Timestamp {
    SystemTime::now().into()
}

/// For runtimes whose time cannot be paused.
#[cfg(any(feature = "async-std", feature = "smol", feature = "thread"))]
mod monotonic {
    use super::origin;
    use crate::time::Instant;
    use core::time::Duration;

    pub(crate) fn now() -> Instant {
        let micros = origin().elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The same moment on the standard library's clock; `None` if it is out of range.
    pub(crate) fn std_instant(at: Instant) -> Option<std::time::Instant> {
        origin().checked_add(Duration::from_micros(at.as_micros()))
    }
}
