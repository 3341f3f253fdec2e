//! What must hold exactly without faults, whatever happened before: the end of every workload checks it.

mod calls;
mod consent;
mod ends;
mod looks;
mod losses;
mod outages;
mod queue;
mod refusals;
mod waits;

use super::app::{AppSession, Unencodable};
use super::env::Env;
use super::reply::Reply;
use super::rng::Rng;
use super::settling::settling_bound;
use crate::event::Severity;
use crate::session::Options;
use crate::time::Instant;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

/// Longer than all retries take together.
const HOURS: Duration = Duration::from_secs(10 * 3_600);

pub(super) async fn check(env: &Env, options: &Options) {
    losses::check(env, options).await;
    // The other promises count each event and each request.
    let options = &Options {
        loss_report: false,
        ..options.clone()
    };
    let open = || AppSession::open(env, options);

    // A fatal error right after the start does not wait for a timer.
    open().sends_a_fatal_error_at_once().await;
    open().sends_a_fatal_error_that_no_one_waits_for().await;

    let session = open();
    session.sends_what_was_logged().await;
    session.flushes_at_its_interval().await;
    session.stays_idle().await;
    drop(session);

    if options.max_queue_size <= 100 {
        open().sends_a_full_queue_and_its_end().await;
    }

    let session = open();
    session.drains_at_once().await;
    session.gives_up_after_max_retries().await;
    session.honors_retry_after().await;
    session.waits_its_own_backoff_at_least().await;
    session.splits_after_413().await;
    session.cuts_a_backoff_short().await;
    open().gives_up_before_a_hopeless_deadline().await;

    open().sends_the_queue_on_drop().await;
    open().drops_the_queue_at_the_drop_timeout().await;

    calls::check(env, options).await;

    // One of these for each seed, by a stream of its own: thousands of seeds must stay quick.
    match Rng::stream(env.0.seed, 9).below(7) {
        0 => ends::check(env, options).await,
        1 => queue::check(env, options).await,
        2 => refusals::check(env, options).await,
        3 => looks::check(env, options).await,
        4 => outages::check(env, options).await,
        5 => consent::check(env, options).await,
        _ => waits::check(env, options).await,
    }
}

impl AppSession {
    fn requests(&self) -> u64 {
        let id = self.handle.session_id().unwrap_or_default();
        self.env.server().requests(id)
    }

    /// Logs one event and flushes it.
    fn send_one(&self) {
        self.log(1);
        self.handle.flush();
    }

    /// An event that cannot be encoded blocks nothing, and a drain flushes.
    async fn sends_what_was_logged(&self) {
        self.expect_refusal(Unencodable);
        self.log(self.options.flush_threshold as u32 - 1);
        // SESSION_START is not one of these, and a small queue refuses the last ones.
        let count = self.handle.stats().accepted - 1;
        let world = &self.env.0.world;
        world.state().server.bodies = Some(Vec::new());
        self.drains_at_once().await;
        let bodies = world.state().server.bodies.take().unwrap_or_default();
        let mut rest = bodies.as_slice();
        for n in 0..count {
            let logged = format!(r#"{{"n":{n},"text":"some text"}}"#);
            let at = memchr::memmem::find(rest, logged.as_bytes());
            assert!(at.is_some(), "logged, but not sent: {logged}");
            rest = &rest[at.unwrap_or_default() + logged.len()..];
        }
    }

    async fn sends_a_full_queue_and_its_end(mut self) {
        self.burst();
        let queued = self.handle.stats().queued;
        let drain = self.stop(settling_bound(&self.options, queued)).await;
        assert!(drain.all_delivered(), "a stop without faults: {drain:?}");
        self.assert_ended();
    }

    async fn gives_up_after_max_retries(&self) {
        let (before, dropped) = (self.requests(), self.handle.stats().dropped);
        self.env.server().always(Reply::status(503));
        self.send_one();
        let _ = self.handle.wait_until_drained(HOURS).await;
        let attempts = self.requests() - before;
        assert_eq!(
            attempts,
            u64::from(self.options.max_retries) + 1,
            "attempts"
        );
        let exhausted = self.handle.stats().dropped.retries_exhausted;
        assert_eq!(exhausted, dropped.retries_exhausted + 1);
        self.env.heal();
    }

    async fn honors_retry_after(&self) {
        const MARGIN: Duration = Duration::from_millis(200);
        if self.options.max_retries == 0 {
            return;
        }
        let retry_after = Duration::from_secs(30).min(self.options.retry_max_delay);
        let before = self.requests();
        self.env
            .server()
            .reply(Reply::status(503).retry_after("30"));
        self.send_one();
        self.env.advance(retry_after - MARGIN).await;
        assert_eq!(self.requests(), before + 1, "sent before Retry-After");
        self.env.advance(2 * MARGIN).await;
        assert_eq!(self.requests(), before + 2, "not sent after Retry-After");
        assert_eq!(self.handle.stats().queued, 0);
    }

    /// A `Retry-After` never shortens the session's own backoff.
    async fn waits_its_own_backoff_at_least(&self) {
        let backoff = self
            .options
            .retry_base_delay
            .min(self.options.retry_max_delay);
        if self.options.max_retries == 0 || backoff < Duration::from_millis(100) {
            return;
        }
        let before = self.requests();
        self.env.server().reply(Reply::status(503).retry_after("0"));
        self.send_one();
        self.env.advance(backoff - Duration::from_millis(1)).await;
        assert_eq!(self.requests(), before + 1, "sent before its own backoff");
        self.env.advance(backoff + Duration::from_millis(200)).await;
        assert_eq!(self.requests(), before + 2, "not sent after its backoff");
    }

    async fn splits_after_413(&self) {
        if self.options.max_batch_size < 2 || self.options.flush_threshold <= 2 {
            return;
        }
        let (before, dropped) = (self.requests(), self.handle.stats().dropped.total());
        self.env.server().reply(Reply::status(413));
        self.log(2);
        self.drains_at_once().await;
        assert_eq!(self.requests(), before + 3, "a batch and its halves");
        assert_eq!(self.handle.stats().dropped.total(), dropped);
    }

    /// A stop during a backoff retries at once.
    async fn cuts_a_backoff_short(mut self) {
        if self.options.max_retries == 0 {
            return;
        }
        self.env.server().reply(Reply::status(503));
        self.send_one();
        self.env.advance(Duration::from_millis(30)).await;
        let start = self.env.now();
        let drain = self.stop(HOURS).await;
        assert!(drain.all_delivered(), "a stop in a backoff: {drain:?}");
        self.assert_prompt(start, 2);
    }

    /// A stop returns early if `Retry-After` exceeds its timeout.
    async fn gives_up_before_a_hopeless_deadline(mut self) {
        let retry_after = Duration::from_secs(600).min(self.options.retry_max_delay);
        self.drains_at_once().await;
        self.env
            .server()
            .reply(Reply::status(503).retry_after("600"));
        self.send_one();
        self.env.advance(Duration::from_millis(30)).await;
        let start = self.env.now();
        let drain = self.stop(retry_after / 2).await;
        let is_open = self.options.max_retries > 0;
        assert_eq!(
            drain.remaining > 0,
            is_open,
            "a stop without time: {drain:?}"
        );
        self.assert_prompt(start, 2);
    }

    async fn sends_the_queue_on_drop(mut self) {
        self.log(2);
        self.reporter = None;
        assert!(self.handle.stats().session_ended);
        self.env.advance(Duration::from_secs(1)).await;
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 0, "after a drop: {stats:?}");
        if !self.options.drop_timeout.is_zero() {
            assert_eq!(stats.delivered, stats.accepted, "after a drop: {stats:?}");
            self.assert_ended();
        }
    }

    async fn drops_the_queue_at_the_drop_timeout(mut self) {
        self.env.server().always(Reply::stall());
        self.log(2);
        self.reporter = None;
        self.env.advance(self.options.drop_timeout).await;
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 0, "after the drop timeout: {stats:?}");
        self.env.heal();
    }

    async fn sends_a_fatal_error_at_once(&self) {
        let start = self.env.now();
        let error = std::io::Error::other("simulated, at once");
        let drain = self
            .handle
            .log_fatal_exception(&error, Severity::Critical)
            .await;
        assert!(
            drain.all_delivered() && drain.delivered == 3,
            "a fatal error without faults: {drain:?}"
        );
        self.assert_prompt(start, 3);
        self.assert_ended();
    }

    async fn sends_a_fatal_error_that_no_one_waits_for(&self) {
        let error = std::io::Error::other("simulated, and left alone");
        drop(self.handle.log_fatal_exception(&error, Severity::Critical));
        self.env.advance(Duration::from_millis(500)).await;
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 0, "a fatal error waits: {stats:?}");
        self.assert_ended();
    }

    async fn drains_at_once(&self) {
        let (start, queued) = (self.env.now(), self.handle.stats().queued);
        let drain = self
            .handle
            .wait_until_drained(Duration::from_secs(60))
            .await;
        assert!(drain.all_delivered(), "a drain without faults: {drain:?}");
        self.assert_prompt(start, queued);
    }

    /// At most this many events were sent since `start`, in the worst case one by one.
    fn assert_prompt(&self, start: Instant, events: u64) {
        let took = self.env.now().saturating_duration_since(start);
        let bound = Duration::from_millis(30 * (events + 2));
        assert!(
            took <= bound,
            "without faults {events} events took {took:?}"
        );
    }

    fn assert_ended(&self) {
        let id = self.handle.session_id().unwrap_or_default();
        assert!(self.env.server().has_ended(id), "no SESSION_END of {id}");
    }

    /// An event waits for the flush interval, and no longer. The interval runs from the last batch on, or from the first
    /// event after an idle time.
    async fn flushes_at_its_interval(&self) {
        const MARGIN: Duration = Duration::from_millis(500);
        let interval = self.options.flush_interval;
        if interval.is_zero() || self.options.flush_threshold == 1 {
            return;
        }
        self.env.advance(interval + MARGIN).await;
        self.log(1);
        self.env.advance(interval - MARGIN).await;
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 1, "sent before the interval: {stats:?}");
        self.env.advance(MARGIN * 2).await;
        // In the later rounds a batch was sent before.
        for _ in 0..3 {
            let stats = self.handle.stats();
            assert_eq!(stats.queued, 0, "not sent after the interval: {stats:?}");
            self.log(1);
            self.env.advance(interval + MARGIN).await;
        }
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 0, "not sent after the interval: {stats:?}");
    }

    /// A session without work does not wake up.
    async fn stays_idle(&self) {
        let turns = || self.env.0.turns.get();
        self.env.advance(Duration::from_secs(60)).await;
        let before = turns();
        self.env.advance(Duration::from_secs(600)).await;
        let woken = turns() - before;
        assert!(woken <= 30, "{woken} turns without work");
    }
}
