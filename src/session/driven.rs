//! The driver that users run: a transport, attached to a session.

use crate::clock::Clock;
use crate::driver::{self, Driven};
use crate::engine::{Engine, WithWakers};
use crate::event::writer::EventWriter;
use crate::session::session_ref::SessionRef;
use crate::session::shared::{SessionCore, Shared};
use crate::sys::fork::Forked;
use crate::time::Instant;
use crate::transport::{Body, LocalTransport, Transport};
use core::fmt;
use core::future::Future;

#[cfg(feature = "std")]
use core::{future::poll_fn, pin::pin};

/// The driver of a session, which sends what is queued. A session has at most one.
///
/// [`Builder::start`](crate::session::Builder::start) spawns it; [`Builder::build`](crate::session::Builder::build)
/// returns it, for the caller to run on any executor. A driver counts as alive from when it is built until it is
/// dropped, polled or not.
///
/// Dropping it before the session has ended loses nothing: the queue stays, every wait ends at once, and another
/// driver ([`Reporter::new_driver`](crate::Reporter::new_driver)) can take over. In the child of a `fork()` it ends at
/// its next poll and sends nothing.
#[must_use = "nothing is sent unless the driver runs"]
pub struct Driver<T, C: 'static> {
    transport: T,
    body: Body,
    // Declared last, so dropped last: transport and body are gone before the session sees the driver detach.
    attachment: Option<Attachment<C>>,
}

/// The driver's attachment to its session; detaches when dropped.
struct Attachment<C: 'static>(SessionRef<C>);

impl<C> Drop for Attachment<C> {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        let _ = shared.update(Engine::detach);
        // No driver is left to report that. The clock's type is unknown here, and a report of everything needs no time.
        shared.report(Instant::ORIGIN, true);
        #[cfg(feature = "std")]
        shared.tell_losses();
    }
}

impl<T, C> Driver<T, C> {
    /// Creates a driver for a session whose engine is already attached. Without a session it has nothing to do.
    pub(crate) fn new(core: Option<SessionRef<C>>, transport: T, body: Body) -> Self {
        Self {
            attachment: core.map(Attachment),
            transport,
            body,
        }
    }
}

impl<T: Transport, C: Clock> Driver<T, C> {
    /// Runs until the session has ended. The future may be dropped at any time; see [`Driver`].
    pub fn run(self) -> impl Future<Output = ()> + Send {
        marked(self.drive())
    }
}

impl<T: LocalTransport, C: Clock> Driver<T, C> {
    /// [`run`](Driver::run), for transports that are not `Send`.
    pub fn run_local(self) -> impl Future<Output = ()> {
        marked(self.drive())
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would store its argument twice"
    )]
    fn drive(mut self) -> impl Future<Output = ()> {
        async move {
            let Self {
                transport,
                body,
                attachment,
            } = &mut self;
            if let Some(Attachment(core)) = attachment {
                working(&core.shared, driver::drive(&**core, transport, body)).await;
            }
        }
    }
}

/// Marks the work done in each poll as the session's own.
#[cfg(feature = "std")]
async fn working(session: &Shared, drive: impl Future<Output = ()>) {
    let mut drive = pin!(drive);
    poll_fn(|context| {
        let _working = session.enter_own_work();
        drive.as_mut().poll(context)
    })
    .await;
}

/// Nothing reads the mark without `std`.
#[cfg(not(feature = "std"))]
fn working<F: Future<Output = ()>>(_: &Shared, drive: F) -> F {
    drive
}

/// Marks the work done in each poll as the driver's.
#[cfg(feature = "std")]
async fn marked(drive: impl Future<Output = ()>) {
    let mut drive = pin!(drive);
    poll_fn(|context| {
        let _driving = crate::sys::origin::Driving::enter();
        drive.as_mut().poll(context)
    })
    .await;
}

/// Nothing reads the marker without `std`, and wrapping the future would double its size.
#[cfg(not(feature = "std"))]
fn marked<F: Future<Output = ()>>(drive: F) -> F {
    drive
}

impl<C: Clock> Driven for SessionCore<C> {
    type Clock = C;

    fn clock(&self) -> &C {
        &self.clock
    }

    #[inline]
    fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> Result<R, Forked> {
        self.shared.with(work)
    }

    fn update<W: WithWakers>(
        &self,
        work: impl FnOnce(&mut Engine) -> W,
    ) -> Result<W::Value, Forked> {
        self.shared.update(work)
    }

    fn pause(&self) {
        self.shared.pause();
    }

    fn is_forked(&self) -> bool {
        self.shared.is_forked()
    }

    fn report(&self, now: Instant, all: bool) {
        self.shared.report(now, all);
    }

    fn note_driver_thread(&self) {
        self.shared.note_driver_thread();
    }

    fn session_id(&self) -> &str {
        self.shared.identity.id()
    }

    fn body_prefix_len(&self) -> usize {
        self.shared.body_prefix_len
    }

    fn write_body_prefix(&self, out: &mut EventWriter<'_>) {
        // Cannot fail: it was written once already, when the session was built.
        let _ = self.shared.identity.write_body_prefix(out);
    }
}

impl<T, C> fmt::Debug for Driver<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("has_session", &self.attachment.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::driver::{Filled, fill, next_step};
    use crate::engine::Step;
    use crate::session::{AlreadyDriven, Reporter};
    use crate::time::Timestamp;
    use crate::transport::{Batch, Receipt, SendError};
    use alloc::format;
    use alloc::string::ToString as _;
    use core::time::Duration;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Instant {
            Instant::ORIGIN
        }

        fn utc(&self) -> Timestamp {
            Timestamp::from_unix_micros(0)
        }

        async fn sleep_until(&self, _: Instant) {
            core::future::pending().await
        }
    }

    struct Nowhere;

    impl Transport for Nowhere {
        async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
            Ok(Receipt::delivered())
        }
    }

    #[test]
    fn a_batch_dropped_while_it_is_copied_is_not_sent_in_part() {
        let builder = Reporter::builder("s").transport(Nowhere).clock(Still);
        let (reporter, mut driver) = builder.enabled(true).build().unwrap();
        let core = &*driver.attachment.as_ref().unwrap().0;
        reporter.flush();
        let Step::Send(attempt) = next_step(core) else {
            panic!("nothing to send");
        };
        let whole = fill(core, &mut driver.body, &attempt);
        assert!(matches!(whole, Filled::Ready(_)));
        drop(reporter.stop(Duration::ZERO));
        assert_eq!(reporter.stats().dropped.shutdown, 2);
        let rest = fill(core, &mut driver.body, &attempt);
        assert!(matches!(rest, Filled::Gone));
    }

    #[test]
    fn a_driver_and_already_driven_describe_themselves() {
        let builder = Reporter::builder("s").transport(Nowhere).clock(Still);
        let (_reporter, driver) = builder.enabled(true).build().unwrap();
        assert_eq!(format!("{driver:?}"), "Driver { has_session: true, .. }");
        assert!(AlreadyDriven.to_string().contains("one at a time"));
    }
}
