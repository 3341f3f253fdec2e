//! The driver that users run: a hold on its session, a transport, and the loop between them.

use crate::clock::Clock;
use crate::driver::{self, Driven};
use crate::engine::Engine;
use crate::event::writer::Scratch;
use crate::session::shared::{Core, CoreRef};
use crate::sys::fork::Forked;
use crate::time::Instant;
use crate::transport::{Body, LocalTransport, Transport};
use core::fmt;
use core::future::Future;

#[cfg(feature = "std")]
use core::{future::poll_fn, pin::pin};

/// Sends what a session queues. There is at most one for each session.
///
/// [`Builder::start`](crate::Builder::start) spawns it; [`Builder::build`](crate::Builder::build) hands it out, to be
/// run by anything that runs a future. A driver is alive from the moment it is built until it is dropped, polled or
/// not. When it is dropped before its session has ended, nothing is lost: every wait ends at once, the queue stays, and
/// another driver ([`Reporter::new_driver`](crate::Reporter::new_driver)) can carry on. In the child of a `fork()` it
/// ends at its next poll and sends nothing.
#[must_use = "nothing is sent unless the driver runs"]
pub struct Driver<T, C: 'static> {
    transport: T,
    body: Body,
    // The last to be dropped: nothing of the driver's is left when it is told to be gone.
    attachment: Option<Attachment<C>>,
}

/// A driver's hold on its session, let go when it is dropped.
struct Attachment<C: 'static>(CoreRef<C>);

impl<C> Drop for Attachment<C> {
    fn drop(&mut self) {
        if let Ok(wakers) = self.0.shared.with(|engine| engine.detach()) {
            wakers.wake();
        }
    }
}

impl<T, C> Driver<T, C> {
    /// A driver for a session that is attached to it already; without a session it has nothing to do.
    pub(crate) fn new(core: Option<CoreRef<C>>, transport: T, body: Body) -> Self {
        Self {
            attachment: core.map(Attachment),
            transport,
            body,
        }
    }
}

impl<T: Transport, C: Clock> Driver<T, C> {
    /// Runs until the session has ended. The future may be dropped at any time, see [`Driver`].
    pub fn run(self) -> impl Future<Output = ()> + Send {
        marked(self.drive())
    }
}

impl<T: LocalTransport, C: Clock> Driver<T, C> {
    /// [`run`](Driver::run), for transports that are not `Send`.
    pub fn run_local(self) -> impl Future<Output = ()> {
        marked(self.drive())
    }
}

impl<T: LocalTransport, C: Clock> Driver<T, C> {
    fn drive(mut self) -> impl Future<Output = ()> {
        async move {
            let Self {
                transport,
                body,
                attachment,
            } = &mut self;
            if let Some(Attachment(core)) = attachment {
                driver::drive(&**core, transport, body).await;
            }
        }
    }
}

/// Marks what the driver does as its own.
#[cfg(feature = "std")]
async fn marked(drive: impl Future<Output = ()>) {
    let mut drive = pin!(drive);
    poll_fn(|context| {
        let _driving = crate::sys::origin::Driving::enter();
        drive.as_mut().poll(context)
    })
    .await;
}

/// Without `std` nobody asks; and a future around it would be as large once more.
#[cfg(not(feature = "std"))]
fn marked<F: Future<Output = ()>>(drive: F) -> F {
    drive
}

impl<C: Clock> Driven for Core<C> {
    type Clock = C;

    fn clock(&self) -> &C {
        &self.clock
    }

    #[inline]
    fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> Result<R, Forked> {
        self.shared.with(work)
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
        self.shared.session.id()
    }

    fn head_len(&self) -> usize {
        self.shared.head_len
    }

    fn write_head(&self, out: &mut Scratch<'_>) {
        // It was written once already, when the session was built.
        let _ = self.shared.session.write_head(out);
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
    use crate::time::Timestamp;
    use crate::transport::{Batch, Receipt, SendError};
    use crate::{AlreadyDriven, Reporter};
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
    fn a_batch_that_is_given_up_while_it_is_copied_is_not_sent_in_part() {
        let builder = Reporter::builder("s").transport(Nowhere).clock(Still);
        let (reporter, mut driver) = builder.enabled(true).build().unwrap();
        let core = &*driver.attachment.as_ref().unwrap().0;
        reporter.flush();
        let Step::Send(ticket) = next_step(core) else {
            panic!("nothing to send");
        };
        let whole = fill(core, &mut driver.body, &ticket);
        assert!(matches!(whole, Filled::Ready(_)));
        drop(reporter.stop(Duration::ZERO));
        assert_eq!(reporter.stats().dropped.shutdown, 2);
        let rest = fill(core, &mut driver.body, &ticket);
        assert!(matches!(rest, Filled::Gone));
    }

    #[test]
    fn a_driver_and_its_refusal_say_what_they_are() {
        let builder = Reporter::builder("s").transport(Nowhere).clock(Still);
        let (_reporter, driver) = builder.enabled(true).build().unwrap();
        assert_eq!(format!("{driver:?}"), "Driver { has_session: true, .. }");
        assert!(AlreadyDriven.to_string().contains("one at a time"));
    }
}
