//! Time for the runtimes that lack their own: the standard library's clocks, and a timer thread.

#[cfg(any(
    feature = "async-std",
    feature = "smol",
    feature = "thread",
    feature = "tokio"
))]
pub(super) mod std_clock;
#[cfg(any(
    feature = "reqwest",
    feature = "surf",
    feature = "thread",
    feature = "tokio"
))]
pub(super) mod timer;
