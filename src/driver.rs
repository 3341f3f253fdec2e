//! The loop between engine, clock and transport.

use crate::clock::Clock;
use crate::engine::{Outcome, SendId, Step, Ticket, Wakers};
use crate::lock::COPY_PIECE;
use crate::panics;
use crate::scratch;
use crate::session::FOOT;
use crate::shared::{Core, CoreRef};
use crate::text::Why;
use crate::time::Instant;
use crate::transport::{
    Batch, BatchHead, Body, LocalTransport, Receipt, SendError, SendErrorKind, Transport,
};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

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

/// How many steps the driver takes before it lets others have a turn, though it has more to do.
const STEPS_PER_TURN: u8 = 16;

/// The largest buffer that is kept while nothing is to be sent.
const IDLE_BODY: usize = 64 * 1024;

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
        marked(drive(self))
    }
}

impl<T: LocalTransport, C: Clock> Driver<T, C> {
    /// [`run`](Driver::run), for transports that are not `Send`.
    pub fn run_local(self) -> impl Future<Output = ()> {
        marked(drive(self))
    }
}

/// Marks what the driver does as its own.
#[cfg(feature = "std")]
async fn marked(drive: impl Future<Output = ()>) {
    let mut drive = pin!(drive);
    poll_fn(|context| {
        let _driving = crate::origin::Driving::enter();
        drive.as_mut().poll(context)
    })
    .await;
}

/// Without `std` nobody asks; and a future around it would be as large once more.
#[cfg(not(feature = "std"))]
fn marked<F: Future<Output = ()>>(drive: F) -> F {
    drive
}

#[expect(
    clippy::manual_async_fn,
    reason = "that would keep the parts of what it is given beside the whole"
)]
fn drive<T: LocalTransport, C: Clock>(mut driver: Driver<T, C>) -> impl Future<Output = ()> {
    async move {
        let Some(Attachment(core)) = &driver.attachment else {
            return;
        };
        let core: &Core<C> = core;
        let mut steps: u8 = 0;
        loop {
            // A transport that is always ready would keep a single-threaded executor to itself.
            steps += 1;
            if steps == STEPS_PER_TURN {
                steps = 0;
                yield_now().await;
            }
            match next_step(core) {
                Step::Send(ticket) => {
                    // Nothing but the attempt's future and its id is kept while it is under way.
                    let id = ticket.id;
                    let Some(head) = prepare(core, &mut driver.body, ticket) else {
                        continue;
                    };
                    let (body, head) = (&mut driver.body, &head);
                    let mut sending = pin!(None);
                    match catch(|| driver.transport.send(Batch { body, head })) {
                        Ok(future) => sending.set(Some(future)),
                        Err(panicked) => {
                            settle(core, id, outcome(core, Err(panicked)));
                            continue;
                        }
                    }
                    if let Some(result) = send(core, sending.as_mut()).await {
                        settle(core, id, outcome(core, result));
                    }
                }
                Step::Again => {}
                Step::Wait(until) => {
                    if until.is_none() {
                        driver.body.trim(IDLE_BODY);
                    }
                    sleep(core, until).await;
                }
                Step::Done => break,
            }
        }
        core.shared.report(core.clock.now(), true);
    }
}

fn next_step<C: Clock>(core: &Core<C>) -> Step {
    core.shared.note_driver_thread();
    let now = core.clock.now();
    core.shared.report(now, false);
    loop {
        let looked = core.shared.with(|engine| {
            let wakers = engine.expire(now);
            (wakers, engine.poll(now))
        });
        // What is queued is the parent's to send.
        let Ok((wakers, step)) = looked else {
            return Step::Done;
        };
        wakers.into_iter().for_each(Wakers::wake);
        if step != Step::Again {
            return step;
        }
        core.shared.pause();
    }
}

/// Waits until the time has come or something has happened.
async fn sleep<C: Clock>(core: &Core<C>, until: Option<Instant>) {
    let mut timer = pin!(until.map(|until| core.clock.sleep_until(until)));
    poll_fn(|context| {
        core.shared.note_driver_thread();
        if is_dirty(core, context) || core.shared.is_forked() {
            return Poll::Ready(());
        }
        poll_option(timer.as_mut(), context)
    })
    .await;
}

/// Notes the waker, unless something has happened since the last look.
fn is_dirty<C>(core: &Core<C>, context: &Context<'_>) -> bool {
    let waker = context.waker().clone();
    let parked = core.shared.with(|engine| engine.park(waker));
    matches!(parked, Ok(Err(_)))
}

/// Puts the bytes of one attempt's batch into the body. `None` when there is nothing to send after all.
fn prepare<'a, C: Clock>(
    core: &'a Core<C>,
    body: &mut Body,
    ticket: Ticket,
) -> Option<BatchHead<'a>> {
    match fill(core, body, &ticket) {
        Filled::Ready(list) => Some(BatchHead {
            session: core.shared.session.id(),
            first_index: ticket.first_index,
            events: ticket.events,
            attempt: ticket.attempt,
            key: ticket.key,
            list,
        }),
        Filled::NoMemory => {
            let why = Why::new("no memory for the request's body");
            settle(core, ticket.id, Outcome::Retryable(None, why));
            None
        }
        Filled::Gone => None,
    }
}

fn settle<C: Clock>(core: &Core<C>, id: SendId, outcome: Outcome) {
    let now = core.clock.now();
    let settled = core.shared.with(|engine| engine.settle(id, outcome, now));
    if let Ok(wakers) = settled {
        wakers.wake();
    }
}

enum Filled {
    /// The body is there; the list of events is at these bytes.
    Ready((usize, usize)),
    NoMemory,
    /// The batch is no longer in flight.
    Gone,
}

/// Puts the request's body together, the events in pieces so that no piece holds the lock for long.
fn fill<C>(core: &Core<C>, body: &mut Body, ticket: &Ticket) -> Filled {
    scratch::with(core.shared.head_len, |head| {
        // It was written once already, when the session was built.
        let _ = core.shared.session.write_head(head);
        let head = head.bytes();
        let end = head.len() + ticket.json_bytes;
        let Some(out) = body.prepare(end + FOOT.len()) else {
            return Filled::NoMemory;
        };
        out[..head.len()].copy_from_slice(head);
        out[end..].copy_from_slice(FOOT);
        let mut cursor = ticket.cursor();
        for piece in out[head.len()..end].chunks_mut(COPY_PIECE) {
            let copied = core.shared.with(|engine| engine.copy(&mut cursor, piece));
            if copied.unwrap_or(0) < piece.len() {
                return Filled::Gone;
            }
            core.shared.pause();
        }
        Filled::Ready((head.len(), end))
    })
}

/// Sends, within the deadline, which a stop may bring forward. `None` when the batch is no longer in flight.
async fn send<C: Clock>(
    core: &Core<C>,
    mut sending: Pin<&mut Option<impl Future<Output = Result<Receipt, SendError>>>>,
) -> Option<Result<Receipt, SendError>> {
    let mut timer = pin!(None);
    let mut armed = None;
    let result = poll_fn(|context| {
        // The connection is the parent's, too.
        if core.shared.is_forked() {
            return Poll::Ready(None);
        }
        core.shared.note_driver_thread();
        match catch(|| poll_option(sending.as_mut(), context)) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => return Poll::Ready(Some(result)),
            Err(panicked) => return Poll::Ready(Some(Err(panicked))),
        }
        while is_dirty(core, context) {
            core.shared.report(core.clock.now(), false);
        }
        let Ok(Some(deadline)) = core.shared.with(|engine| engine.send_deadline()) else {
            return Poll::Ready(None);
        };
        if armed != Some(deadline) {
            armed = Some(deadline);
            timer.set(Some(core.clock.sleep_until(deadline)));
        }
        poll_option(timer.as_mut(), context)
            .map(|()| Some(Err(SendError::retryable("no answer in time"))))
    })
    .await;
    // Its destructor is the transport's code, too. The attempt has its result already.
    let _ = catch(|| sending.set(None));
    result
}

fn poll_option<F: Future>(
    future: Pin<&mut Option<F>>,
    context: &mut Context<'_>,
) -> Poll<F::Output> {
    match future.as_pin_mut() {
        Some(future) => future.poll(context),
        None => Poll::Pending,
    }
}

/// Lets others have a turn.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn outcome<C: Clock>(core: &Core<C>, result: Result<Receipt, SendError>) -> Outcome {
    match result {
        Ok(Receipt { handed_over: false }) => Outcome::Delivered,
        Ok(Receipt { handed_over: true }) => Outcome::HandedOver,
        Err(SendError { kind, why }) => match kind {
            SendErrorKind::Retryable(wish) => {
                Outcome::Retryable(wish.map(|wish| wish.delay(core.clock.utc())), why)
            }
            SendErrorKind::Rejected => Outcome::Rejected(why),
            SendErrorKind::TooLarge => Outcome::TooLarge(why),
        },
    }
}

/// Runs code of the transport's. A panic costs the attempt, not the reporter.
fn catch<R>(work: impl FnOnce() -> R) -> Result<R, SendError> {
    panics::catch(work).ok_or_else(|| SendError::retryable("the transport panicked"))
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
    use crate::time::Timestamp;
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
        let core = &driver.attachment.as_ref().unwrap().0;
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
