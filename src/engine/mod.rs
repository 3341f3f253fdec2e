//! The state machine: everything that can be decided without I/O, a clock or an allocator is decided here.
//!
//! It is told what happens (`push`, `settle`, `request_flush`, `begin_stop`) and what time it is, and answers what to
//! do next (`poll`). Every executor, the simulator and bare metal run this one.

mod batch;
#[cfg(all(test, feature = "std"))]
mod ending_tests;
mod intake;
mod ledger;
mod options;
#[cfg(any(test, not(feature = "std")))]
mod pieces;
#[cfg(all(test, feature = "std"))]
mod properties;
pub(crate) mod retry;
pub(crate) mod ring;
mod stopping;
#[cfg(all(test, feature = "std"))]
mod testing;
#[cfg(all(test, feature = "std"))]
mod tests;
mod wakers;

pub(crate) use batch::Ticket;
pub(crate) use options::EngineOptions;
pub(crate) use wakers::{Registered, WaiterId, Wakers, wake};

use crate::diagnostic::{DiagnosticKind, Notice, Notices};
use crate::engine::ring::Ring;
use crate::event::encode::SessionEnd;
use crate::stats::{DropReason, Stats};
use crate::sys::entropy::Random;
use crate::text::Why;
use crate::time::{self, Instant};
use batch::{InFlight, Phase, Shape, Split};
use core::task::Waker;
use core::time::Duration;
use ledger::Ledger;
use stopping::End;
pub(crate) use stopping::{END_BYTES, EndSlot};
use wakers::{DriverSlot, Waiters};

/// A position in the sequence of accepted events: everything before it is settled when that many are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target(pub(crate) u64);

/// Names one attempt. A result that comes with an old one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendId(u32);

/// What an event is to the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    /// Waits for its flush.
    Ordinary,
    /// Asks for one.
    Urgent,
    /// Asks for one, may use the reserve, and ends the session with the `SESSION_END` whose tail it brings.
    Fatal(&'a SessionEnd),
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Delivered,
    HandedOver,
    /// Worth another attempt, after the time that the server asked for.
    Retryable(Option<Duration>, Why),
    Rejected(Why),
    TooLarge(Why),
}

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this batch, then settle it.
    Send(Ticket),
    /// Poll again at once: a large batch is put together in steps, so that no step holds the lock for long.
    Again,
    /// Poll again at this time, or when woken.
    Wait(Option<Instant>),
    /// The session is over.
    Done,
}

/// A driver is attached already, or was when this process was forked off its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyDriven;

impl core::fmt::Display for AlreadyDriven {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the session has a driver already; a session is driven by one at a time")
    }
}

impl core::error::Error for AlreadyDriven {}

/// The state of one session.
pub(crate) struct Engine {
    options: EngineOptions,
    ring: Ring,
    random: Random,
    ledger: Ledger,
    next_index: u64,
    next_send: u32,
    end: End,
    end_slot: EndSlot,
    is_stopping: bool,
    /// When a stop gives up.
    stop_deadline: Option<Instant>,
    in_flight: Option<InFlight>,
    /// A batch that is being put together, and one that was too large.
    forming: Shape,
    split: Option<Split>,
    /// Everything before it is due now, and what has come in since it was set.
    flush_target: Target,
    fresh_bytes: usize,
    /// The next event is due and unfinished: whoever finishes it is to wake the driver.
    is_held_up: bool,
    /// When what is queued is due at the latest.
    flush_at: Option<Instant>,
    /// When the last batch took all that was queued: what is queued now came later.
    emptied_at: Option<Instant>,
    /// Since when an oversized ring has been empty.
    #[cfg(feature = "alloc")]
    idle_since: Option<Instant>,
    driver: DriverSlot,
    waiters: Waiters,
    notices: Notices,
    is_after_end_told: bool,
}

impl Engine {
    /// How long an oversized ring stays empty before its memory is given back.
    #[cfg(feature = "alloc")]
    const IDLE_GRACE: Duration = Duration::from_secs(1);

    /// An engine for checked options.
    pub(crate) fn new(
        options: EngineOptions,
        ring: Ring,
        end_slot: EndSlot,
        random: Random,
    ) -> Self {
        Self {
            options,
            ring,
            random,
            ledger: Ledger::default(),
            next_index: 0,
            next_send: 0,
            end: End::Open,
            end_slot,
            is_stopping: false,
            stop_deadline: None,
            in_flight: None,
            forming: Shape::default(),
            split: None,
            flush_target: Target(0),
            fresh_bytes: 0,
            is_held_up: false,
            flush_at: None,
            emptied_at: None,
            #[cfg(feature = "alloc")]
            idle_since: None,
            driver: DriverSlot::default(),
            waiters: Waiters::default(),
            notices: Notices::default(),
            is_after_end_told: false,
        }
    }

    /// Says what to do now. Call [`expire`](Self::expire) with the same `now` first.
    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        self.driver.look();
        let until = match &self.in_flight {
            Some(in_flight) => match in_flight.phase {
                Phase::Sending { .. } => self.send_deadline(),
                Phase::Retry { until, .. } if until <= now => return self.begin_attempt(now),
                Phase::Retry { until, .. } => Some(until),
            },
            None if self.is_due(now) => return self.form(now),
            None if self.is_stopping && self.queued() == 0 => return Step::Done,
            None => self.idle_until(now),
        };
        Step::Wait(earliest([until, self.stop_deadline(), self.notices.due()]))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.queued() > 0
            && (self.settled() < self.flush_target
                || self.is_stopping
                || self.flush_at.is_some_and(|at| at <= now))
    }

    /// Arms the flush timer of a queue, or lets an idle one give its memory back.
    fn idle_until(&mut self, now: Instant) -> Option<Instant> {
        if self.queued() > 0 {
            #[cfg(feature = "alloc")]
            {
                self.idle_since = None;
            }
            if self.flush_at.is_none() && self.options.flush_interval > 0 {
                let since = self.emptied_at.take().unwrap_or(now);
                self.flush_at = since.after(self.options.flush_interval);
            }
            return self.flush_at;
        }
        self.flush_at = None;
        self.emptied_at = None;
        self.shrink_when_idle(now)
    }

    /// Gives an oversized ring's memory back when it has been empty for a while; when to look again.
    #[cfg(feature = "alloc")]
    fn shrink_when_idle(&mut self, now: Instant) -> Option<Instant> {
        if !self.ring.is_oversized() {
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        let until = since.checked_add(Self::IDLE_GRACE)?;
        if now < until {
            return Some(until);
        }
        self.idle_since = None;
        self.ring.shrink();
        None
    }

    #[cfg(not(feature = "alloc"))]
    #[expect(
        clippy::unused_self,
        reason = "a ring of a fixed size gives nothing back"
    )]
    fn shrink_when_idle(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Ends an attempt. The wakers are to be woken; an old id changes nothing.
    pub(crate) fn settle(&mut self, id: SendId, outcome: Outcome, now: Instant) -> Wakers {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.is_sending(id)) else {
            return Wakers::default();
        };
        match outcome {
            Outcome::Delivered => self.ledger.delivered += in_flight.shape.events(),
            Outcome::HandedOver => self.ledger.handed_over += in_flight.shape.events(),
            // What a stop's deadline has caught is dropped by the stop, whoever notices first.
            Outcome::Retryable(..) if self.stop_is_over(now) => return self.abandon(),
            Outcome::Retryable(wish, why) if in_flight.attempt < self.options.max_retries => {
                return self.retry(in_flight, wish, why, now);
            }
            Outcome::Retryable(_, why) => {
                self.drop_batch(&in_flight.shape, DropReason::RetriesExhausted, why);
            }
            Outcome::Rejected(why) => self.drop_batch(&in_flight.shape, DropReason::Rejected, why),
            Outcome::TooLarge(why) if in_flight.shape.events() == 1 => {
                self.drop_batch(&in_flight.shape, DropReason::TooLarge, why);
            }
            Outcome::TooLarge(_) => {
                self.split(&in_flight.shape);
                return Wakers::default();
            }
        }
        self.release(&in_flight.shape);
        self.waiters.take()
    }

    fn retry(
        &mut self,
        mut in_flight: InFlight,
        wish: Option<Duration>,
        why: Why,
        now: Instant,
    ) -> Wakers {
        let EngineOptions {
            retry_base_delay: base,
            retry_max_delay: cap,
            ..
        } = self.options;
        let random = &mut self.random;
        let delay = match wish {
            Some(wish) => time::micros(wish).unwrap_or(u64::MAX).min(cap),
            None => retry::backoff(base, cap, in_flight.attempt, |bound| random.below(bound)),
        };
        let until = now.after(delay).unwrap_or(Instant::END);
        in_flight.attempt += 1;
        in_flight.phase = Phase::Retry {
            until,
            is_servers_wish: wish.is_some(),
        };
        self.in_flight = Some(in_flight);
        self.notices.add_why(DiagnosticKind::AttemptFailed, 1, why);
        if self.stop_ends_before(until) {
            return self.abandon();
        }
        Wakers::default()
    }

    fn drop_batch(&mut self, shape: &Shape, reason: DropReason, why: Why) {
        let kind = match reason {
            DropReason::RetriesExhausted => DiagnosticKind::RetriesExhausted,
            DropReason::Rejected => DiagnosticKind::Rejected,
            DropReason::TooLarge => DiagnosticKind::TooLarge,
            DropReason::Shutdown => DiagnosticKind::Shutdown,
        };
        self.ledger.dropped.add(reason, shape.events());
        self.notices.add_why(kind, shape.events(), why);
    }

    /// The events of a settled batch leave the queue.
    fn release(&mut self, shape: &Shape) {
        self.ring.release(shape.records, shape.ring_bytes);
        if shape.with_end {
            self.end = End::Settled;
        }
    }

    /// Makes everything accepted so far due. The waker, if any, is to be woken.
    pub(crate) fn request_flush(&mut self) -> (Target, Option<Waker>) {
        self.make_all_due();
        (self.flush_target, self.driver.wake())
    }

    /// Whether a wait for `target` has nothing left to wait for.
    pub(crate) fn is_over(&self, target: Target) -> bool {
        self.settled() >= target || !self.driver.is_attached
    }

    fn settled(&self) -> Target {
        Target(self.ledger.settled())
    }

    fn queued(&self) -> u64 {
        self.ring.records() as u64 + u64::from(self.end.is_queued())
    }

    /// A driver begins its work.
    pub(crate) fn attach(&mut self) -> Result<(), AlreadyDriven> {
        if self.driver.is_attached {
            return Err(AlreadyDriven);
        }
        self.driver.is_attached = true;
        Ok(())
    }

    /// A driver is gone, perhaps in mid-send: its batch stays, for another attempt with the same key by another driver.
    pub(crate) fn detach(&mut self) -> Wakers {
        if let Some(in_flight) = &mut self.in_flight
            && let Phase::Sending { .. } = in_flight.phase
        {
            in_flight.attempt = in_flight.attempt.saturating_add(1);
            in_flight.phase = Phase::Retry {
                until: Instant::ORIGIN,
                is_servers_wish: false,
            };
        }
        let mut wakers = self.waiters.take();
        wakers.driver = self.driver.clear();
        wakers
    }

    /// The driver goes to sleep, unless something has happened since its last poll. The waker that comes back is to
    /// be dropped.
    pub(crate) fn park(&mut self, waker: Waker) -> Result<Option<Waker>, Waker> {
        self.driver.park(waker)
    }

    /// A name for somebody who will wait.
    pub(crate) fn new_waiter(&mut self) -> WaiterId {
        self.waiters.new_id()
    }

    /// Notes a waiter's waker, to be woken when something is settled.
    pub(crate) fn register(&mut self, waiter: WaiterId, waker: Waker) -> Registered {
        self.waiters.register(waiter, waker)
    }

    /// A waiter is gone. Its waker is to be dropped.
    pub(crate) fn unregister(&mut self, waiter: WaiterId) -> Option<Waker> {
        self.waiters.unregister(waiter)
    }

    /// The next thing to tell the observer, and the limit that was met; `all` tells also what should still be quiet.
    pub(crate) fn next_notice(&mut self, now: Instant, all: bool) -> Option<(Notice, usize)> {
        let notice = self.notices.next(now, all)?;
        let limit = match notice.kind {
            DiagnosticKind::QueueFull => self.options.max_queue_size,
            DiagnosticKind::EventTooLarge => self.options.max_event_bytes,
            DiagnosticKind::RetriesExhausted => self.options.max_retries as usize,
            _ => 0,
        };
        Some((notice, limit))
    }

    /// The ledger, and the state of the session.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            accepted: self.ledger.accepted,
            delivered: self.ledger.delivered,
            handed_over: self.ledger.handed_over,
            dropped: self.ledger.dropped,
            refused: self.ledger.refused.all(),
            truncated: self.ledger.truncated,
            queued: self.queued(),
            queued_bytes: self.ring.used() + self.end_json().len(),
            session_ended: !self.end.is_open(),
            driver_alive: self.driver.is_attached,
        }
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
