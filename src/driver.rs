//! The driver loop, between engine, clock and transport.

use crate::clock::Clock;
use crate::engine::{Attempt, AttemptId, Engine, SendOutcome, Step, WithWakers};
use crate::event::encode::BODY_SUFFIX;
use crate::event::writer::{self, EventWriter};
use crate::sys::fork::Forked;
use crate::sys::lock::COPY_PIECE;
use crate::sys::panics;
use crate::text::Reason;
use crate::time::Instant;
use crate::transport::{Batch, BatchMeta, Body, LocalTransport, Receipt, SendError, SendErrorKind};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;

/// What the loop needs from a session.
pub(crate) trait Driven: Sync {
    type Clock: Clock;

    fn clock(&self) -> &Self::Clock;

    /// Runs `work` on the session's engine, under its lock; fails in the child of a fork.
    fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> Result<R, Forked>;

    /// [`with`](Self::with) for calls that return wakers, which it wakes outside the lock.
    fn update<W: WithWakers>(
        &self,
        work: impl FnOnce(&mut Engine) -> W,
    ) -> Result<W::Value, Forked>;

    /// Lets other threads take the lock between repeated calls of [`with`](Self::with).
    fn pause(&self);

    fn is_forked(&self) -> bool;

    /// Reports pending diagnostics to the observer; `all` ignores the rate limit.
    fn report(&self, now: Instant, all: bool);

    /// Records that the driver is polled on this thread.
    fn note_driver_thread(&self);

    fn session_id(&self) -> &str;

    /// The length of a request's body before its events.
    fn body_prefix_len(&self) -> usize;

    /// Writes a request's body before its events.
    fn write_body_prefix(&self, out: &mut EventWriter<'_>);
}

/// How long the driver leaves the lock alone while it stays awake, in turns of a loop: half a microsecond.
#[cfg(has_arc)]
const PAUSE: u8 = 16;

/// How many steps the driver takes before it yields to the executor.
const STEPS_PER_TURN: u8 = 16;

/// The largest body buffer to keep while there is nothing to send, in bytes.
const IDLE_BODY: usize = 64 * 1024;

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would store its arguments twice"
)]
pub(crate) fn drive<T: LocalTransport, S: Driven>(
    session: &S,
    transport: &mut T,
    body: &mut Body,
) -> impl Future<Output = ()> {
    async move {
        let mut steps: u8 = 0;
        loop {
            // A transport that is always ready would starve a single-threaded executor.
            steps += 1;
            if steps == STEPS_PER_TURN {
                steps = 0;
                yield_now().await;
            }
            match next_step(session) {
                Step::Send(attempt) => {
                    // Across the await the loop keeps only the id and the future of the attempt, and what that borrows.
                    let id = attempt.id;
                    let Some(meta) = prepare(session, body, attempt) else {
                        continue;
                    };
                    let batch = Batch {
                        body: &mut *body,
                        head: &meta,
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
                #[cfg(has_arc)]
                Step::Yield => {
                    // The lock is free meanwhile, for the callers that fill the queue.
                    (0..PAUSE).for_each(|_| core::hint::spin_loop());
                    yield_now().await;
                }
                // Made in `next_step` already.
                #[cfg(has_arc)]
                Step::Report => {}
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
        let step = session.update(|engine| {
            let wakers = engine.expire(now);
            (engine.poll(now), wakers)
        });
        // In the child of a fork: the parent sends what is queued.
        let Ok(step) = step else {
            return Step::Done;
        };
        #[cfg(has_arc)]
        if step == Step::Report {
            let at = session.clock().utc();
            let _ = session.with(|engine| engine.make_report(at));
            continue;
        }
        if step != Step::Again {
            return step;
        }
        session.pause();
    }
}

/// Sleeps until `until`, or until something happens.
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

/// Whether something has happened since the last poll; if not, registers the waker.
fn is_dirty<S: Driven>(session: &S, context: &Context<'_>) -> bool {
    let waker = context.waker().clone();
    let is_parked = session.update(|engine| engine.park(waker));
    is_parked == Ok(false)
}

/// Fills the body for one attempt. `None` if there is nothing to send after all.
fn prepare<'a, S: Driven>(
    session: &'a S,
    body: &mut Body,
    attempt: Attempt,
) -> Option<BatchMeta<'a>> {
    match fill(session, body, &attempt) {
        Filled::Ready(list) => {
            let (time_left, is_last) = prospects(session)?;
            Some(BatchMeta {
                session: session.session_id(),
                first_index: attempt.first_index,
                events: attempt.events,
                attempt: attempt.attempt,
                broke_while_sending: attempt.broke_while_sending,
                is_last,
                time_left,
                key: attempt.key,
                list,
            })
        }
        Filled::NoMemory => {
            let reason = Reason::new("no memory for the request's body");
            settle(session, attempt.id, SendOutcome::Retryable(None, reason));
            None
        }
        Filled::Gone => None,
    }
}

/// The time until the deadline of the attempt that has begun, and whether it is a stopped session's last. `None` if its
/// batch is no longer in flight.
fn prospects<S: Driven>(session: &S) -> Option<(Duration, bool)> {
    let prospects = session.with(|engine| Some((engine.send_deadline()?, engine.is_last())));
    let (deadline, is_last) = prospects.ok()??;
    let time_left = deadline.saturating_duration_since(session.clock().now());
    Some((time_left, is_last))
}

/// Whether the attempt that has begun has become pointless: its batch was dropped, or this is the child of a fork, and
/// the connection belongs to the parent.
#[cfg(feature = "alloc")]
fn is_abandoned<S: Driven>(session: &S) -> bool {
    !matches!(session.with(|engine| engine.send_deadline()), Ok(Some(_)))
}

/// Without an allocator nothing forks. A batch that was discarded is found when its deadline is looked at.
#[cfg(not(feature = "alloc"))]
fn is_abandoned<S: Driven>(_: &S) -> bool {
    false
}

fn settle<S: Driven>(session: &S, id: AttemptId, outcome: SendOutcome) {
    let now = session.clock().now();
    let _ = session.update(|engine| engine.settle(id, outcome, now));
}

pub(crate) enum Filled {
    /// The body is complete; the list of events is in this range of bytes.
    Ready((usize, usize)),
    NoMemory,
    /// The batch is no longer in flight.
    Gone,
}

/// Builds the request's body; copies the events in pieces, so that no piece holds the lock for long.
pub(crate) fn fill<S: Driven>(session: &S, body: &mut Body, attempt: &Attempt) -> Filled {
    writer::with(session.body_prefix_len(), |prefix| {
        session.write_body_prefix(prefix);
        let prefix = prefix.bytes();
        let end = prefix.len() + attempt.json_bytes;
        let Some(out) = body.prepare(end + BODY_SUFFIX.len()) else {
            return Filled::NoMemory;
        };
        out[..prefix.len()].copy_from_slice(prefix);
        out[end..].copy_from_slice(BODY_SUFFIX);
        let mut cursor = attempt.cursor();
        for piece in out[prefix.len()..end].chunks_mut(COPY_PIECE) {
            let copied = session.with(|engine| engine.copy(&mut cursor, piece));
            if copied.unwrap_or(0) < piece.len() {
                return Filled::Gone;
            }
            session.pause();
        }
        Filled::Ready((prefix.len(), end))
    })
}

/// Sends within the deadline, which a stop may bring forward. `None` if the batch is no longer in flight.
async fn send<S: Driven>(
    session: &S,
    mut sending: Pin<&mut Option<impl Future<Output = Result<Receipt, SendError>>>>,
) -> Option<Result<Receipt, SendError>> {
    let mut timer = pin!(None);
    let mut armed = None;
    let result = poll_fn(|context| {
        // Looked at first, so that an attempt sends nothing more once its events are discarded.
        if is_abandoned(session) {
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
            .map(|()| Some(Err(SendError::retryable("no response in time"))))
    })
    .await;
    // The future's destructor is the transport's code and may panic, too. The result stands.
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

/// Yields to the executor once.
pub(crate) async fn yield_now() {
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

fn outcome<S: Driven>(session: &S, result: Result<Receipt, SendError>) -> SendOutcome {
    match result {
        #[cfg(has_arc)]
        Ok(Receipt {
            handed_over,
            rejected: rejected @ 1..,
        }) => SendOutcome::Partly {
            handed_over,
            rejected,
        },
        Ok(receipt) if receipt.handed_over => SendOutcome::HandedOver,
        Ok(_) => SendOutcome::Delivered,
        Err(SendError { kind, reason }) => match kind {
            SendErrorKind::Retryable(after) => {
                SendOutcome::Retryable(after.map(|it| it.delay(session.clock().utc())), reason)
            }
            SendErrorKind::Failed(after) => {
                let after = after.map(|it| it.delay(session.clock().utc()));
                #[cfg(has_arc)]
                let outcome = SendOutcome::Failed(after, reason);
                #[cfg(not(has_arc))]
                let outcome = SendOutcome::Retryable(after, reason);
                outcome
            }
            SendErrorKind::BrokeWhileSending => SendOutcome::Broke(reason),
            SendErrorKind::InvalidEvents => SendOutcome::InvalidEvents(reason),
            SendErrorKind::Rejected | SendErrorKind::Unauthorized => SendOutcome::Rejected(reason),
            SendErrorKind::TooLarge => SendOutcome::TooLarge(reason),
        },
    }
}

/// Runs the transport's code. A panic in it fails the attempt, not the session.
fn catch<R>(work: impl FnOnce() -> R) -> Result<R, SendError> {
    panics::catch(work).ok_or_else(|| SendError::retryable("the transport panicked"))
}
