//! What several runtimes share: the system's clock, and a thread of timers.

pub(super) mod std_clock;
#[cfg(any(feature = "thread", feature = "tokio"))]
pub(super) mod timer;
