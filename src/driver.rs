//! The loop between engine, clock and transport.

use crate::clock::Clock;
use crate::engine::{Engine, Outcome, SendId, Step, Ticket, Wakers};
use crate::event::encode::FOOT;
use crate::event::writer::{self, Scratch};
use crate::sys::fork::Forked;
use crate::sys::lock::COPY_PIECE;
use crate::sys::panics;
use crate::text::Why;
use crate::time::Instant;
use crate::transport::{Batch, BatchHead, Body, LocalTransport, Receipt, SendError, SendErrorKind};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

/// What the loop needs of a session.
pub(crate) trait Driven: Sync {
    type Clock: Clock;

    fn clock(&self) -> &Self::Clock;

    /// Runs `work` on the session's engine, unless this is the child of a fork.
    fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> Result<R, Forked>;

    /// Lets others have the engine between two of many calls of [`with`](Self::with).
    fn pause(&self);

    fn is_forked(&self) -> bool;

    /// Tells the observer what has happened; `all` also what should still be quiet.
    fn report(&self, now: Instant, all: bool);

    /// Remembers that the driver is polled on this thread.
    fn note_driver_thread(&self);

    fn session_id(&self) -> &str;

    /// The length of a request's body up to its events.
    fn head_len(&self) -> usize;

    /// Writes a request's body up to its events.
    fn write_head(&self, out: &mut Scratch<'_>);
}

/// How many steps the driver takes before it lets others have a turn, though it has more to do.
const STEPS_PER_TURN: u8 = 16;

/// The largest buffer that is kept while nothing is to be sent.
const IDLE_BODY: usize = 64 * 1024;

#[expect(
    clippy::manual_async_fn,
    reason = "that would keep the parts of what it is given beside the whole"
)]
pub(crate) fn drive<T: LocalTransport, S: Driven>(
    session: &S,
    transport: &mut T,
    body: &mut Body,
) -> impl Future<Output = ()> {
    async move {
        let mut steps: u8 = 0;
        loop {
            // A transport that is always ready would keep a single-threaded executor to itself.
            steps += 1;
            if steps == STEPS_PER_TURN {
                steps = 0;
                yield_now().await;
            }
            match next_step(session) {
                Step::Send(ticket) => {
                    // Nothing but the attempt's future and its id is kept while it is under way.
                    let id = ticket.id;
                    let Some(head) = prepare(session, body, ticket) else {
                        continue;
                    };
                    let batch = Batch {
                        body: &mut *body,
                        head: &head,
                    };
                    let mut sending = pin!(None);
                    match catch(|| transport.send(batch)) {
                        Ok(future) => sending.set(Some(future)),
                        Err(panicked) => {
                            settle(session, id, outcome(session, Err(panicked)));
                            continue;
                        }
                    }
                    if let Some(result) = send(session, sending.as_mut()).await {
                        settle(session, id, outcome(session, result));
                    }
                }
                Step::Again => {}
                Step::Wait(until) => {
                    if until.is_none() {
                        body.trim(IDLE_BODY);
                    }
                    sleep(session, until).await;
                }
                Step::Done => break,
            }
        }
        session.report(session.clock().now(), true);
    }
}

pub(crate) fn next_step<S: Driven>(session: &S) -> Step {
    session.note_driver_thread();
    let now = session.clock().now();
    session.report(now, false);
    loop {
        let looked = session.with(|engine| {
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
        session.pause();
    }
}

/// Waits until the time has come or something has happened.
async fn sleep<S: Driven>(session: &S, until: Option<Instant>) {
    let mut timer = pin!(until.map(|until| session.clock().sleep_until(until)));
    poll_fn(|context| {
        session.note_driver_thread();
        if is_dirty(session, context) || session.is_forked() {
            return Poll::Ready(());
        }
        poll_option(timer.as_mut(), context)
    })
    .await;
}

/// Notes the waker, unless something has happened since the last look.
fn is_dirty<S: Driven>(session: &S, context: &Context<'_>) -> bool {
    let waker = context.waker().clone();
    let parked = session.with(|engine| engine.park(waker));
    matches!(parked, Ok(Err(_)))
}

/// Puts the bytes of one attempt's batch into the body. `None` when there is nothing to send after all.
fn prepare<'a, S: Driven>(
    session: &'a S,
    body: &mut Body,
    ticket: Ticket,
) -> Option<BatchHead<'a>> {
    match fill(session, body, &ticket) {
        Filled::Ready(list) => Some(BatchHead {
            session: session.session_id(),
            first_index: ticket.first_index,
            events: ticket.events,
            attempt: ticket.attempt,
            key: ticket.key,
            list,
        }),
        Filled::NoMemory => {
            let why = Why::new("no memory for the request's body");
            settle(session, ticket.id, Outcome::Retryable(None, why));
            None
        }
        Filled::Gone => None,
    }
}

fn settle<S: Driven>(session: &S, id: SendId, outcome: Outcome) {
    let now = session.clock().now();
    let settled = session.with(|engine| engine.settle(id, outcome, now));
    if let Ok(wakers) = settled {
        wakers.wake();
    }
}

pub(crate) enum Filled {
    /// The body is there; the list of events is at these bytes.
    Ready((usize, usize)),
    NoMemory,
    /// The batch is no longer in flight.
    Gone,
}

/// Puts the request's body together, the events in pieces so that no piece holds the lock for long.
pub(crate) fn fill<S: Driven>(session: &S, body: &mut Body, ticket: &Ticket) -> Filled {
    writer::with(session.head_len(), |head| {
        // It was written once already, when the session was built.
        session.write_head(head);
        let head = head.bytes();
        let end = head.len() + ticket.json_bytes;
        let Some(out) = body.prepare(end + FOOT.len()) else {
            return Filled::NoMemory;
        };
        out[..head.len()].copy_from_slice(head);
        out[end..].copy_from_slice(FOOT);
        let mut cursor = ticket.cursor();
        for piece in out[head.len()..end].chunks_mut(COPY_PIECE) {
            let copied = session.with(|engine| engine.copy(&mut cursor, piece));
            if copied.unwrap_or(0) < piece.len() {
                return Filled::Gone;
            }
            session.pause();
        }
        Filled::Ready((head.len(), end))
    })
}

/// Sends, within the deadline, which a stop may bring forward. `None` when the batch is no longer in flight.
async fn send<S: Driven>(
    session: &S,
    mut sending: Pin<&mut Option<impl Future<Output = Result<Receipt, SendError>>>>,
) -> Option<Result<Receipt, SendError>> {
    let mut timer = pin!(None);
    let mut armed = None;
    let result = poll_fn(|context| {
        // The connection is the parent's, too.
        if session.is_forked() {
            return Poll::Ready(None);
        }
        session.note_driver_thread();
        match catch(|| poll_option(sending.as_mut(), context)) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(result)) => return Poll::Ready(Some(result)),
            Err(panicked) => return Poll::Ready(Some(Err(panicked))),
        }
        while is_dirty(session, context) {
            session.report(session.clock().now(), false);
        }
        let Ok(Some(deadline)) = session.with(|engine| engine.send_deadline()) else {
            return Poll::Ready(None);
        };
        if armed != Some(deadline) {
            armed = Some(deadline);
            timer.set(Some(session.clock().sleep_until(deadline)));
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

fn outcome<S: Driven>(session: &S, result: Result<Receipt, SendError>) -> Outcome {
    match result {
        Ok(Receipt { handed_over: false }) => Outcome::Delivered,
        Ok(Receipt { handed_over: true }) => Outcome::HandedOver,
        Err(SendError { kind, why }) => match kind {
            SendErrorKind::Retryable(wish) => {
                Outcome::Retryable(wish.map(|wish| wish.delay(session.clock().utc())), why)
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
