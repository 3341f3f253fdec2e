//! A dedicated thread for each session, and the standard library's clocks.

mod executor;

#[cfg(feature = "ureq")]
pub(super) use executor::{call_here, end_call};

use super::common::{std_clock, timer};
use crate::{Clock, Instant, Placement, Runtime, SpawnError, Spawner, Timestamp};
use core::future::{Future, pending};

/// The runtime for programs without an executor, and for any that want telemetry to be independent of theirs: each
/// session's driver has a thread of its own, which nothing in the application can starve. With `Ureq` there are two from
/// the first request on: one waits for the answer, the other keeps the deadlines.
///
/// All its timers share one more thread, which the process starts at first use and keeps. Blocking waits work on every
/// thread but the driver's, also inside an executor (which they block); dropping the reporter drains the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread;

impl Clock for Thread {
    fn now(&self) -> Instant {
        std_clock::now()
    }

    fn utc(&self) -> Timestamp {
        std_clock::utc()
    }

    async fn sleep_until(&self, at: Instant) {
        match std_clock::instant(at) {
            Some(at) => timer::sleep_until(at).await,
            None => pending().await,
        }
    }
}

impl Spawner for Thread {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        executor::spawn(task)
            .map_err(|_| SpawnError::new("the operating system gives no more threads"))
    }

    fn placement(&self) -> Placement {
        Placement::Dedicated
    }
}

impl Runtime for Thread {}
