//! The state machine of a session: makes every decision, without doing I/O or reading a clock.
//!
//! Events and results go in (`push` or `reserve`, `settle`, `request_flush`, `begin_stop`), with the current time where
//! it matters; `poll` returns the next step. All executors, the simulator and bare metal run this same engine.

mod batch;
mod discarding;
#[cfg(all(test, feature = "std"))]
mod ending_tests;
#[cfg(feature = "std")]
mod groups;
mod halving;
#[cfg(all(test, feature = "std"))]
mod halving_tests;
mod intake;
mod invariants;
mod ledger;
mod lookout;
#[cfg(all(test, feature = "std"))]
mod lookout_tests;
#[cfg(has_arc)]
pub(crate) mod loss_report;
#[cfg(all(test, feature = "std"))]
mod loss_report_tests;
mod notices;
mod options;
#[cfg(has_arc)]
mod patience;
#[cfg(all(test, feature = "std"))]
mod patience_tests;
mod pieces;
mod prediction;
mod progress;
#[cfg(all(test, feature = "std"))]
mod properties;
pub(crate) mod retry;
pub(crate) mod ring;
#[cfg(has_arc)]
mod runs;
mod stopping;
mod storage;
#[cfg(all(test, feature = "std"))]
mod testing;
#[cfg(all(test, feature = "std"))]
mod tests;
mod wakers;

pub(crate) use batch::Attempt;
pub(crate) use intake::Priority;
pub(crate) use notices::Notice;
use notices::{Notices, Unsent};
pub use options::GiveUp;
pub(crate) use options::{EngineOptions, reserve};
pub(crate) use wakers::{WaiterId, Wakers, WithWakers};

use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::Ring;
use crate::stats::DropReason;
use crate::sys::entropy::Random;
use crate::text::Reason;
use crate::time::{self, Instant};
use batch::{BatchExtent, InFlight, Phase};
use core::task::Waker;
use core::time::Duration;
#[cfg(feature = "std")]
use groups::Groups;
use halving::{Acceptance, Halving, Refused};
use ledger::Ledger;
#[cfg(has_arc)]
use loss_report::LossReport;
use prediction::Prediction;
pub(crate) use progress::Goal;
use stopping::End;
pub(crate) use stopping::{END_BYTES, EndSlot};
use wakers::{DriverSlot, Waiters};

/// A position in the sequence of accepted events, reached when that many events are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watermark(pub(crate) u64);

/// Identifies one attempt. A result with an outdated id is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(u32);

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(crate) enum SendOutcome {
    Delivered,
    HandedOver,
    /// All but these, of which it is not known which they are.
    #[cfg(has_arc)]
    Partly {
        handed_over: bool,
        rejected: usize,
    },
    /// Worth another attempt, after the server's `Retry-After` if it sent one.
    Retryable(Option<Duration>, Reason),
    /// Worth another attempt: the connection broke while the request was being sent.
    Broke(Reason),
    /// Worth another attempt, though the server has failed on this very request.
    #[cfg(has_arc)]
    Failed(Option<Duration>, Reason),
    /// An event is invalid; the others may be delivered without it.
    InvalidEvents(Reason),
    Rejected(Reason),
    TooLarge(Reason),
}

/// What the driver must do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this batch, then settle it.
    Send(Attempt),
    /// Poll again at once: a large batch is formed in steps, so that no step holds the lock for long.
    Again,
    /// Poll again as soon as other tasks and threads had their turn: a sleep would take too long.
    #[cfg(has_arc)]
    Yield,
    /// Poll again once a loss report is [made](Engine::make_report), for which the engine does not know the time.
    #[cfg(has_arc)]
    Report,
    /// Poll again at this time, or when woken.
    Wait(Option<Instant>),
    /// The session has ended.
    Done,
}

/// The session already has a driver, or it belongs to the parent of this forked process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AlreadyDriven;

impl core::fmt::Display for AlreadyDriven {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the session has a driver already; a session is driven by one at a time")
    }
}

crate::text::debug_with_causes!(AlreadyDriven);

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
    /// The program has switched the session off, and may switch it on again.
    is_disabled: bool,
    /// When the stop gives up.
    stop_deadline: Option<Instant>,
    in_flight: Option<InFlight>,
    /// The batch being formed.
    forming: BatchExtent,
    /// The batch that was refused and is now sent in pieces.
    halving: Option<Halving>,
    acceptance: Acceptance,
    #[cfg(has_arc)]
    report: LossReport,
    /// How many attempts have failed in a row, counted with [`GiveUp::WhenFull`] alone.
    #[cfg(has_arc)]
    failures: u32,
    /// Every event before it is due now.
    flush_watermark: Watermark,
    /// Bytes accepted since the watermark was set.
    bytes_since_flush: usize,
    /// Whether the second event is the session's context, which does not count towards the threshold.
    has_context: bool,
    /// The next event is due but unfinished, so finishing it must wake the driver.
    awaits_writer: bool,
    /// When the queue is due at the latest.
    flush_at: Option<Instant>,
    prediction: Prediction,
    /// When an oversized ring was first seen empty.
    #[cfg(has_arc)]
    idle_since: Option<Instant>,
    driver: DriverSlot,
    waiters: Waiters,
    notices: Notices,
    logged_after_end_reported: bool,
}

impl Engine {
    /// How long an oversized ring must be empty before it returns its memory.
    #[cfg(has_arc)]
    const IDLE_GRACE: Duration = Duration::from_secs(1);

    /// Creates an engine; the options must have been checked.
    pub(crate) fn new(
        options: EngineOptions,
        ring: Ring,
        end_slot: EndSlot,
        random: Random,
    ) -> Self {
        #[cfg(feature = "std")]
        let ring = ring.grouped(Groups::new(
            options.max_batch_size,
            options.batch_budget,
            options.max_queue_size,
        ));
        #[cfg(has_arc)]
        let report = LossReport::new(options.loss_report, options.max_event_bytes);
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
            is_disabled: false,
            stop_deadline: None,
            in_flight: None,
            forming: BatchExtent::default(),
            halving: None,
            acceptance: Acceptance::default(),
            #[cfg(has_arc)]
            report,
            #[cfg(has_arc)]
            failures: 0,
            flush_watermark: Watermark(0),
            bytes_since_flush: 0,
            has_context: false,
            awaits_writer: false,
            flush_at: None,
            prediction: Prediction::new(),
            #[cfg(has_arc)]
            idle_since: None,
            driver: DriverSlot::default(),
            waiters: Waiters::default(),
            notices: Notices::default(),
            logged_after_end_reported: false,
        }
    }

    /// Returns the next step. Call [`expire`](Self::expire) with the same `now` first.
    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        self.driver.begin_poll();
        self.prediction.begin_poll(now);
        if self.is_threshold_reached() {
            self.make_threshold_due();
        }
        if let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.is_ready(now)) {
            #[cfg(has_arc)]
            if in_flight.doubt.is_cut() {
                return self.form(now);
            }
            return self.begin_attempt(in_flight, now);
        }
        #[cfg(has_arc)]
        let report_at = match &self.in_flight {
            None => self.reserve_report(now),
            Some(_) => None,
        };
        let mut look = None;
        let until = match &self.in_flight {
            Some(in_flight) => match in_flight.phase {
                Phase::Sending { .. } => self.send_deadline(),
                Phase::Retry { until, .. } => Some(until),
            },
            None if self.is_allowance_spent() => return Step::Again,
            None if self.is_due(now) => return self.form(now),
            None if self.is_stopping && self.queued() == 0 => return Step::Done,
            None => {
                let until = self.idle_until(now);
                #[cfg(has_arc)]
                if self.stays_awake(now) {
                    return Step::Yield;
                }
                look = self.next_look(now);
                until
            }
        };
        let due = earliest([until, look, self.stop_deadline(), self.notices.due()]);
        #[cfg(has_arc)]
        let due = earliest([due, report_at]);
        Step::Wait(due)
    }

    fn is_due(&self, now: Instant) -> bool {
        #[cfg(has_arc)]
        if self.report.is_queued() {
            return true;
        }
        self.queued() > 0
            && (self.settled() < self.flush_watermark
                || self.is_stopping
                || self.flush_at.is_some_and(|at| at <= now))
    }

    /// Arms the flush timer, or shrinks a queue that has been empty for a while. Returns when to poll again.
    fn idle_until(&mut self, now: Instant) -> Option<Instant> {
        if self.queued() > 0 {
            #[cfg(has_arc)]
            {
                self.idle_since = None;
            }
            if self.flush_at.is_none() && self.options.flush_interval > 0 {
                self.note_first(now);
            }
            return self.flush_at;
        }
        // An interval without an event: the next one wakes the driver.
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.prediction.rest();
        }
        earliest([self.flush_at, self.shrink_when_idle(now)])
    }

    /// Shrinks an oversized ring that has been empty for a while. Returns when to poll again.
    #[cfg(has_arc)]
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

    #[cfg(not(has_arc))]
    #[expect(
        clippy::unused_self,
        reason = "a ring of fixed size has nothing to return"
    )]
    fn shrink_when_idle(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Records an attempt's outcome. An outdated id changes nothing.
    pub(crate) fn settle(&mut self, id: AttemptId, outcome: SendOutcome, now: Instant) -> Wakers {
        let is_sending = |in_flight: &mut InFlight| in_flight.is_sending(id);
        let Some(in_flight) = self.in_flight.take_if(is_sending) else {
            return Wakers::default();
        };
        #[cfg(has_arc)]
        if self.options.is_patient {
            return self.settle_patiently(in_flight, outcome, now);
        }
        self.settle_attempt(in_flight, outcome, now)
    }

    fn settle_attempt(
        &mut self,
        mut in_flight: InFlight,
        outcome: SendOutcome,
        now: Instant,
    ) -> Wakers {
        #[cfg(has_arc)]
        let outcome = outcome.without_blame();
        let (retry_after, reason) = match outcome {
            SendOutcome::Delivered => {
                self.ledger.delivered += in_flight.extent.events();
                return self.settle_delivered(&in_flight.extent);
            }
            SendOutcome::HandedOver => {
                self.ledger.handed_over += in_flight.extent.events();
                return self.settle_delivered(&in_flight.extent);
            }
            #[cfg(has_arc)]
            SendOutcome::Partly {
                handed_over,
                rejected,
            } => return self.settle_partly(&in_flight.extent, handed_over, rejected),
            SendOutcome::Rejected(reason) => {
                // Smaller pieces would fare no better.
                self.halving = None;
                return self.settle_dropped(&in_flight.extent, DropReason::Rejected, reason);
            }
            SendOutcome::InvalidEvents(reason) => {
                return self.refuse_batch(&in_flight, Refused::Invalid, reason);
            }
            SendOutcome::TooLarge(reason) => {
                return self.refuse_batch(&in_flight, Refused::TooLarge, reason);
            }
            // Past a stop's deadline the stop drops the batch, even if the attempt's result is seen first.
            SendOutcome::Retryable(_, reason) | SendOutcome::Broke(reason)
                if self.stop_deadline_passed(now) =>
            {
                self.notices.note_failure(reason);
                return self.drop_remaining_because(Unsent::Failed);
            }
            SendOutcome::Broke(reason) => {
                in_flight.breaks += 1;
                #[cfg(has_arc)]
                self.note_end_sent(&in_flight.extent);
                let attempts_end = in_flight.breaks > self.options.max_retries;
                if attempts_end || self.is_halved_at_once(in_flight.extent.events()) {
                    return self.refuse_batch(&in_flight, Refused::Broke, reason);
                }
                (None, reason)
            }
            // Has become the one below.
            #[cfg(has_arc)]
            SendOutcome::Failed(retry_after, reason) => (retry_after, reason),
            SendOutcome::Retryable(retry_after, reason) => (retry_after, reason),
        };
        if in_flight.attempt < self.options.max_retries {
            return self.retry(in_flight, retry_after, reason, now);
        }
        self.settle_dropped(&in_flight.extent, DropReason::RetriesExhausted, reason)
    }

    fn settle_delivered(&mut self, extent: &BatchExtent) -> Wakers {
        self.note_delivered();
        self.release(extent);
        Wakers::All(None)
    }

    #[cfg(has_arc)]
    fn settle_partly(
        &mut self,
        extent: &BatchExtent,
        handed_over: bool,
        rejected: usize,
    ) -> Wakers {
        let events = extent.events();
        let rejected = events.min(rejected as u64);
        let taken = events - rejected;
        self.note_rejected(extent, rejected);
        if handed_over {
            self.ledger.handed_over += taken;
        } else {
            self.ledger.delivered += taken;
        }
        self.ledger.dropped.add(DropReason::Rejected, rejected);
        let reason = Reason::new(format_args!("{rejected} of {events} events were not taken"));
        let kind = DiagnosticKind::of(DropReason::Rejected);
        self.notices.add_with_reason(kind, rejected, reason);
        self.settle_delivered(extent)
    }

    fn settle_dropped(
        &mut self,
        extent: &BatchExtent,
        drop_reason: DropReason,
        reason: Reason,
    ) -> Wakers {
        self.drop_batch(extent, drop_reason, reason);
        self.release(extent);
        Wakers::All(None)
    }

    fn retry(
        &mut self,
        mut in_flight: InFlight,
        retry_after: Option<Duration>,
        reason: Reason,
        now: Instant,
    ) -> Wakers {
        let EngineOptions {
            retry_base_delay: base,
            retry_max_delay: cap,
            is_patient,
            ..
        } = self.options;
        let random = &mut self.random;
        let jitter = |bound| random.below(bound);
        let backoff = retry::backoff(base, cap, in_flight.attempt, is_patient, jitter);
        let after = |delay: u64| now.after(delay).unwrap_or(Instant::END);
        let not_before = retry_after.map_or(Instant::ORIGIN, |delay| {
            after(time::micros(delay).unwrap_or(u64::MAX).min(cap))
        });
        // A server may ask for a longer wait than the session's own, never for a shorter one.
        let until = after(backoff).max(not_before);
        in_flight.attempt += 1;
        in_flight.phase = Phase::Retry { until, not_before };
        #[cfg(has_arc)]
        self.note_end_sent(&in_flight.extent);
        self.in_flight = Some(in_flight);
        if self.stop_ends_before(until) {
            // There will be no retry to speak of.
            self.notices.note_failure(reason);
            return self.drop_remaining();
        }
        self.notices
            .add_with_reason(DiagnosticKind::AttemptFailed, 1, reason);
        Wakers::default()
    }

    fn drop_batch(&mut self, extent: &BatchExtent, drop_reason: DropReason, reason: Reason) {
        let kind = DiagnosticKind::of(drop_reason);
        #[cfg(has_arc)]
        self.note_dropped(extent, drop_reason);
        self.ledger.dropped.add(drop_reason, extent.events());
        self.notices.add_with_reason(kind, extent.events(), reason);
    }

    /// Removes a settled batch from the queue.
    fn release(&mut self, extent: &BatchExtent) {
        self.ring.release(extent.records, extent.ring_bytes);
        if extent.with_end {
            self.end = End::Settled;
        }
        #[cfg(has_arc)]
        if extent.with_report {
            self.release_report();
        }
        self.end_halving();
        #[cfg(has_arc)]
        self.queue_last_report();
    }

    /// Makes everything accepted so far due.
    pub(crate) fn request_flush(&mut self) -> (Goal, Wakers) {
        self.make_all_due();
        (self.accepted_goal(), self.driver.wake())
    }

    /// Attaches a driver.
    pub(crate) fn attach(&mut self) -> Result<(), AlreadyDriven> {
        if self.driver.is_attached {
            return Err(AlreadyDriven);
        }
        self.driver.attach();
        Ok(())
    }

    /// Detaches the driver, perhaps in mid-send: its batch stays, and the next driver retries it with the same key.
    pub(crate) fn detach(&mut self) -> Wakers {
        if let Some(in_flight) = &mut self.in_flight
            && let Phase::Sending { .. } = in_flight.phase
        {
            #[cfg(has_arc)]
            if in_flight.extent.with_end {
                self.report.expose_end();
            }
            in_flight.attempt = in_flight.attempt.saturating_add(1);
            #[cfg(has_arc)]
            in_flight.doubt.end_probe();
            in_flight.phase = Phase::Retry {
                until: Instant::ORIGIN,
                not_before: Instant::ORIGIN,
            };
        }
        if self.queued() > 0 {
            self.notices.set_undriven(self.queued());
        }
        Wakers::All(self.driver.detach())
    }

    /// Puts the driver to sleep and returns true, unless something has happened since its last poll.
    pub(crate) fn park(&mut self, waker: Waker) -> (bool, Wakers) {
        self.driver.park(waker)
    }

    /// Returns an id for a new wait.
    pub(crate) fn new_waiter(&mut self) -> WaiterId {
        self.waiters.new_id()
    }

    /// Registers a waiter's waker, which is woken when events are settled.
    pub(crate) fn register(&mut self, waiter: WaiterId, waker: Waker) -> Wakers {
        self.waiters.register(waiter, waker)
    }

    /// Removes a waiter's waker.
    pub(crate) fn unregister(&mut self, waiter: WaiterId) -> Wakers {
        self.waiters.unregister(waiter)
    }

    /// Whether there is no driver, to report or to send.
    pub(crate) const fn is_unattended(&self) -> bool {
        !self.driver.is_attached
    }

    /// When the next diagnostic is due, if there is no driver to report it.
    #[cfg(feature = "std")]
    pub(crate) fn unattended_notice(&self) -> Option<Instant> {
        self.notices.due().filter(|_| self.is_unattended())
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
