//! Time for the runtimes that lack their own: the standard library's clocks, and a timer thread.

pub(super) mod std_clock;
#[cfg(any(feature = "thread", feature = "tokio"))]
pub(super) mod timer;
