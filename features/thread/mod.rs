//! The thread runtime: a dedicated thread per session, and the standard library's clocks.

#[cfg_attr(
    not(feature = "ureq"),
    allow(dead_code, reason = "only ureq makes blocking calls")
)]
mod executor;
mod sleep;

#[cfg(feature = "ureq")]
pub(super) use executor::{finish_call, run_on_leader};

use super::common::std_clock;
use crate::clock::Clock;
use crate::spawner::{Placement, Runtime, SpawnError, Spawner};
use crate::time::{Instant, Timestamp};
use core::future::{Future, pending};

/// The runtime that needs no executor: each session's driver has a thread of its own.
///
/// It is for programs without an executor, and for any whose executor must not be able to starve telemetry. With `Ureq`
/// a session has two threads from the first request on: one waits for the response, the other enforces the deadlines.
///
/// An idle session's own thread waits for its timers. The deadlines of requests and of waits share one more thread,
/// which the process starts at first use and keeps. Blocking waits work on every
/// thread but the driver's, even inside an executor (which they block); dropping the reporter drains the session.
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
        match std_clock::std_instant(at) {
            Some(at) => sleep::sleep_until(at).await,
            None => pending().await,
        }
    }
}

impl Spawner for Thread {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        executor::spawn(task)
            .map_err(|_| SpawnError::new("the operating system cannot start another thread"))
    }

    fn placement(&self) -> Placement {
        Placement::Dedicated
    }
}

impl Runtime for Thread {}
