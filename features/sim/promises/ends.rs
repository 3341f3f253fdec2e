//! What must hold when a session ends: stops in a backoff and under a `Retry-After`, drops with an attempt under way.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::reply::Reply;
use super::HOURS;
use crate::session::Options;
use core::time::Duration;

pub(super) async fn check(env: &Env, options: &Options) {
    // A session that is dropped sends its end, which would take a scripted reply from the next one.
    if options.max_retries > 0 {
        AppSession::open(env, options)
            .stops_after_retry_after()
            .await;
    }

    let mut few = options.clone();
    few.max_retries = 2;
    AppSession::open(env, &few)
        .stops_without_losing_an_attempt()
        .await;

    let mut slow = options.clone();
    slow.http_timeout = options.drop_timeout + Duration::from_secs(60);
    let session = AppSession::open(env, &slow);
    session.takes_the_response_at_its_deadline().await;
    session.ends_by_the_drop_timeout().await;
    AppSession::open(env, &slow)
        .stops_an_attempt_without_a_wait()
        .await;
}

impl AppSession {
    /// A stop waits for a server's `Retry-After`, and then delivers.
    async fn stops_after_retry_after(mut self) {
        let retry_after = Duration::from_secs(30).min(self.options.retry_max_delay);
        let before = self.requests();
        let reply = Reply::status(503).retry_after("30");
        self.env.server().reply(reply);
        self.send_one();
        let start = self.env.now();
        self.env.advance(Duration::from_millis(30)).await;
        assert_eq!(self.requests(), before + 1, "not sent at once");
        let drain = self.stop(HOURS).await;
        assert!(drain.all_delivered(), "a stop under Retry-After: {drain:?}");
        let took = self.env.now().saturating_duration_since(start);
        assert!(
            took >= retry_after,
            "a stop cuts Retry-After short: {took:?}"
        );
        let bound = retry_after + Duration::from_millis(30 * 5);
        assert!(took <= bound, "a stop after Retry-After took {took:?}");
    }

    /// The attempt that a stop brings forward is the one that was due anyway: as many are left as before.
    async fn stops_without_losing_an_attempt(mut self) {
        self.drains_at_once().await;
        let before = self.requests();
        for _ in 0..2 {
            self.env.server().reply(Reply::status(503));
        }
        self.send_one();
        self.env.advance(Duration::from_millis(30)).await;
        let drain = self.stop(HOURS).await;
        assert!(drain.all_delivered(), "a stop in a backoff: {drain:?}");
        let attempts = self.requests() - before;
        // Three for the event, of which the first ended before the stop, and one for `SESSION_END`.
        assert_eq!(attempts, 4, "attempts");
    }

    /// A response that is there counts, even if its deadline is.
    async fn takes_the_response_at_its_deadline(&self) {
        self.drains_at_once().await;
        let before = self.requests();
        self.env.0.world.state().server.is_instant = true;
        let reply = Reply::accept().delay(self.options.http_timeout);
        self.env.server().reply(reply);
        self.send_one();
        let late = self.options.http_timeout + Duration::from_millis(1);
        self.env.advance(late).await;
        self.env.0.world.state().server.is_instant = false;
        let stats = self.handle.stats();
        assert_eq!(
            (stats.queued, self.requests() - before),
            (0, 1),
            "a response at its deadline is lost: {stats:?}"
        );
    }

    /// A dropped reporter does not live on for an attempt under way.
    async fn ends_by_the_drop_timeout(mut self) {
        self.env.server().always(Reply::stall());
        self.send_one();
        self.env.advance(Duration::from_millis(30)).await;
        self.reporter = None;
        let late = self.options.drop_timeout + Duration::from_millis(1);
        self.env.advance(late).await;
        let stats = self.handle.stats();
        assert!(
            stats.queued == 0 && !stats.driver_alive,
            "after the drop timeout: {stats:?}"
        );
        self.env.heal();
    }

    /// A stop ends an attempt at its deadline, whether or not anything waits for the stop.
    async fn stops_an_attempt_without_a_wait(self) {
        let timeout = Duration::from_secs(1);
        self.env.server().always(Reply::stall());
        self.send_one();
        self.env.advance(Duration::from_millis(30)).await;
        drop(self.handle.stop(timeout));
        self.env.advance(timeout + Duration::from_millis(1)).await;
        let stats = self.handle.stats();
        assert!(
            stats.queued == 0 && !stats.driver_alive,
            "after a stop without a wait: {stats:?}"
        );
        self.env.heal();
    }
}
