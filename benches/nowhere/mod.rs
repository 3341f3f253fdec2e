//! A session whose events go nowhere, for benchmarks of what they cost before.

use core::future::Future;
use core::hint::black_box;
use core::pin::Pin;
use core::task::{Context, Waker};
use std::time::Instant;
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::time::Timestamp;
use tinkex_telemetry::{Batch, Handle, Receipt, Reporter, SendError, Transport};

/// Takes everything at once.
pub(crate) struct Swallow;

impl Transport for Swallow {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        black_box(batch.body());
        Ok(Receipt::delivered())
    }
}

/// The system's clocks, without timers.
pub(crate) struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> tinkex_telemetry::time::Instant {
        tinkex_telemetry::time::Instant::from_micros(self.0.elapsed().as_micros() as u64)
    }

    fn utc(&self) -> Timestamp {
        std::time::SystemTime::now().into()
    }

    async fn sleep_until(&self, _: tinkex_telemetry::time::Instant) {
        core::future::pending().await
    }
}

pub(crate) fn session(name: &str) -> Builder<Swallow, SystemClock, ()> {
    Reporter::builder(name)
        .transport(Swallow)
        .clock(SystemClock(Instant::now()))
        .enabled(true)
}

/// Has the driver send what is queued: it takes its turn between rows, outside the clock.
pub(crate) fn drain(handle: &Handle, mut driver: Pin<&mut impl Future<Output = ()>>) {
    let mut context = Context::from_waker(Waker::noop());
    handle.flush();
    while handle.stats().queued > 0 {
        assert!(driver.as_mut().poll(&mut context).is_pending());
    }
}
