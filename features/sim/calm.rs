//! The end of every workload: what an application may count on while nothing is wrong, whatever was wrong before.

use super::env::Env;
use super::run::settling_bound;
use super::server::Reply;
use super::workload::{Session, Unencodable};
use crate::event::Severity;
use crate::session::Options;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

/// Longer than all retries take together.
const HOURS: Duration = Duration::from_secs(10 * 3_600);

pub(super) async fn calm(env: &Env, options: &Options) {
    let open = || Session::open(env, options);

    // A fatal error right after the start does not wait for a timer.
    open().fatal_at_once().await;

    // An event that cannot be encoded stops nothing; a drain asks for its flush.
    let session = open();
    session.expect_refusal(Unencodable);
    session.log(options.flush_threshold as u32 - 1);
    // Its start was not logged here, and a small queue refuses the last ones.
    let count = session.handle.stats().accepted - 1;
    env.0.world.state().server.bodies = Some(Vec::new());
    session.drains_at_once().await;
    let bodies = env.0.world.state().server.bodies.take().unwrap_or_default();
    let mut rest = bodies.as_slice();
    for n in 0..count {
        let wanted = format!(r#"{{"n":{n},"text":"some text"}}"#);
        let at = memchr::memmem::find(rest, wanted.as_bytes());
        assert!(
            at.is_some(),
            "what was logged is not what was sent: {wanted}"
        );
        rest = &rest[at.unwrap_or_default() + wanted.len()..];
    }
    session.keeps_its_interval().await;
    session.rests().await;
    drop(session);

    // A full queue is sent, and the end behind it.
    if options.max_queue_size <= 100 {
        let mut session = open();
        session.burst();
        let queued = session.handle.stats().queued;
        let drain = session.stop(settling_bound(options, queued)).await;
        assert!(drain.all_delivered(), "a stop in calm: {drain:?}");
        session.has_ended();
    }

    // What the server says is heard.
    let session = open();
    session.drains_at_once().await;
    session.gives_up_after_max_retries().await;
    session.waits_as_the_server_wishes().await;
    session.splits_what_is_too_large().await;
    session.cuts_a_backoff_short().await;
    open().gives_up_when_there_is_no_time().await;

    // Dropping a reporter sends what is queued...
    let mut session = open();
    session.log(2);
    session.reporter = None;
    assert!(session.handle.stats().session_ended);
    env.advance(Duration::from_secs(1)).await;
    let stats = session.handle.stats();
    assert_eq!(stats.queued, 0, "after a drop: {stats:?}");
    if !options.drop_timeout.is_zero() {
        assert_eq!(stats.delivered, stats.accepted, "after a drop: {stats:?}");
        session.has_ended();
    }

    // ...as far as there is time.
    env.server().always(Reply::stall());
    let mut session = open();
    session.log(2);
    session.reporter = None;
    env.advance(options.drop_timeout).await;
    let stats = session.handle.stats();
    assert_eq!(stats.queued, 0, "a drop has no end: {stats:?}");
    env.heal();
}

impl Session {
    fn requests(&self) -> u64 {
        let id = self.handle.session_id().unwrap_or_default();
        self.env.server().requests(id)
    }

    /// One event, to be sent at once.
    fn send_one(&self) {
        self.log(1);
        self.handle.flush();
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

    async fn waits_as_the_server_wishes(&self) {
        const MARGIN: Duration = Duration::from_millis(200);
        if self.options.max_retries == 0 {
            return;
        }
        let wish = Duration::from_secs(30).min(self.options.retry_max_delay);
        let before = self.requests();
        self.env
            .server()
            .reply(Reply::status(503).retry_after("30"));
        self.send_one();
        self.env.advance(wish - MARGIN).await;
        assert_eq!(self.requests(), before + 1, "sent before Retry-After");
        self.env.advance(2 * MARGIN).await;
        assert_eq!(self.requests(), before + 2, "not sent after Retry-After");
        assert_eq!(self.handle.stats().queued, 0);
    }

    async fn splits_what_is_too_large(&self) {
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
        self.was_quick(start, 2);
    }

    async fn gives_up_when_there_is_no_time(mut self) {
        let wish = Duration::from_secs(600).min(self.options.retry_max_delay);
        self.drains_at_once().await;
        self.env
            .server()
            .reply(Reply::status(503).retry_after("600"));
        self.send_one();
        self.env.advance(Duration::from_millis(30)).await;
        let start = self.env.now();
        let drain = self.stop(wish / 2).await;
        let is_open = self.options.max_retries > 0;
        assert_eq!(
            drain.remaining > 0,
            is_open,
            "a stop without time: {drain:?}"
        );
        self.was_quick(start, 2);
    }

    async fn fatal_at_once(&self) {
        let start = self.env.now();
        let error = std::io::Error::other("simulated, at once");
        let drain = self
            .handle
            .log_fatal_exception(&error, Severity::Critical)
            .await;
        assert!(drain.all_delivered(), "a fatal error in calm: {drain:?}");
        assert_eq!(drain.delivered, 3, "a fatal error in calm: {drain:?}");
        self.was_quick(start, 3);
        self.has_ended();
    }

    async fn drains_at_once(&self) {
        let (start, queued) = (self.env.now(), self.handle.stats().queued);
        let drain = self
            .handle
            .wait_until_drained(Duration::from_secs(60))
            .await;
        assert!(drain.all_delivered(), "a drain in calm: {drain:?}");
        self.was_quick(start, queued);
    }

    /// So many events are sent, one by one at the worst.
    fn was_quick(&self, start: crate::time::Instant, events: u64) {
        let took = self.env.now().saturating_duration_since(start);
        let bound = Duration::from_millis(30 * (events + 2));
        assert!(took <= bound, "in calm {events} events took {took:?}");
    }

    fn has_ended(&self) {
        let id = self.handle.session_id().unwrap_or_default();
        assert!(self.env.server().has_ended(id), "no SESSION_END of {id}");
    }

    /// An event waits for its interval, and no longer.
    async fn keeps_its_interval(&self) {
        const MARGIN: Duration = Duration::from_millis(500);
        let interval = self.options.flush_interval;
        self.env.advance(MARGIN).await;
        if interval.is_zero() || self.options.flush_threshold == 1 {
            return;
        }
        // The second time there was a timer before.
        for _ in 0..2 {
            self.log(1);
            self.env.advance(interval - MARGIN).await;
            let stats = self.handle.stats();
            assert_eq!(stats.queued, 1, "sent before its interval: {stats:?}");
            self.env.advance(MARGIN * 2).await;
            let stats = self.handle.stats();
            assert_eq!(stats.queued, 0, "not sent after its interval: {stats:?}");
        }
    }

    /// Who has nothing to do does not wake up.
    async fn rests(&self) {
        let turns = || self.env.0.turns.get();
        self.env.advance(Duration::from_secs(60)).await;
        let before = turns();
        self.env.advance(Duration::from_secs(600)).await;
        let woken = turns() - before;
        assert!(woken <= 30, "{woken} turns with nothing to do");
    }
}
