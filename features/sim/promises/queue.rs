//! What must hold for queued events: their indices, the reserve, and how long the flush interval lets them wait.

use super::super::app::{AppSession, Unencodable, indices_taken};
use super::super::env::Env;
use super::super::reply::Reply;
use crate::event::Severity;
use crate::session::Options;
use core::time::Duration;

/// For an attempt, its response and what follows from it.
const MARGIN: Duration = Duration::from_millis(500);

const INTERVAL: Duration = Duration::from_secs(10);

pub(super) async fn check(env: &Env, options: &Options) {
    let session = AppSession::open(env, options);
    session.leaves_a_gap_for_each_refusal().await;
    drop(session);

    let mut small = options.clone();
    (small.max_queue_size, small.flush_threshold) = (20, 20);
    AppSession::open(env, &small)
        .takes_a_fatal_error_beyond_a_full_queue_each_time()
        .await;

    let mut patient = options.clone();
    (patient.max_queue_size, patient.flush_threshold) = (100, 20);
    patient.max_batch_size = 100;
    patient.max_batch_bytes = 100_000;
    patient.max_queue_bytes = 1_000_000;
    patient.flush_interval = INTERVAL;
    patient.http_timeout = Duration::from_secs(5);
    patient.max_retries = 8;
    patient.retry_base_delay = Duration::from_millis(100);
    patient.retry_max_delay = Duration::from_secs(60);
    let session = AppSession::open(env, &patient);
    session.sends_the_halves_of_a_batch_at_once().await;
    session.flushes_at_its_interval_after_an_outage().await;
    session.flushes_at_its_interval_behind_halves().await;
}

impl AppSession {
    /// The number of indices that the server knows to be taken.
    fn next_index_at_server(&self) -> u64 {
        let id = self.handle.session_id().unwrap_or_default();
        let state = self.env.0.world.state();
        let record = state.server.sessions.get(id);
        record.map_or(0, |record| record.next_index())
    }

    /// Each refused event leaves a gap of one in the indices, where it would have been.
    async fn leaves_a_gap_for_each_refusal(&self) {
        let too_large = self.options.max_event_bytes as u32 + 100;
        for refusals in 0..4 {
            match refusals {
                0 => {}
                1 => self.expect_refusal(Unencodable),
                2 => self.log_text(too_large),
                _ => self.burst(),
            }
            self.drains_at_once().await;
            self.log(1);
            self.drains_at_once().await;
            let (taken, stats) = (self.next_index_at_server(), self.handle.stats());
            assert_eq!(taken, indices_taken(&stats), "{stats:?}");
        }
    }

    /// The reserve serves each fatal error that meets a full queue, once the one before is settled.
    async fn takes_a_fatal_error_beyond_a_full_queue_each_time(self) {
        for end in [1, 0] {
            self.env.server().always(Reply::stall());
            self.burst();
            let before = self.handle.stats();
            let error = std::io::Error::other("simulated, in reserve");
            drop(self.handle.log_fatal_exception(&error, Severity::Critical));
            let after = self.handle.stats();
            assert_eq!(
                after.accepted,
                before.accepted + 1 + end,
                "a fatal error and a full queue: {before:?} {after:?}"
            );
            self.env.heal();
            self.env.advance(self.options.http_timeout).await;
            let bound = self.options.retry_max_delay + Duration::from_secs(60);
            let drain = self.handle.wait_until_drained(bound).await;
            assert!(drain.is_drained(), "after an outage: {drain:?}");
        }
    }

    /// What made a batch due makes its halves due.
    async fn sends_the_halves_of_a_batch_at_once(&self) {
        self.drains_at_once().await;
        self.env.advance(INTERVAL + MARGIN).await;
        let before = self.requests();
        self.log(4);
        self.env.advance(INTERVAL - MARGIN).await;
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 4, "sent before the interval: {stats:?}");
        self.env.server().reply(Reply::status(413));
        self.env.advance(2 * MARGIN).await;
        let stats = self.handle.stats();
        assert_eq!(
            (stats.queued, self.requests() - before),
            (0, 3),
            "halves that are not sent at once: {stats:?}"
        );
    }

    /// An event that was logged in an outage waits for its interval, and no longer.
    async fn flushes_at_its_interval_after_an_outage(&self) {
        self.env.server().always(Reply::status(503));
        self.send_one();
        self.env.advance(Duration::from_secs(1)).await;
        self.log(1);
        self.env.advance(Duration::from_secs(1)).await;
        self.env.heal();
        self.env
            .advance(INTERVAL - Duration::from_secs(1) + MARGIN)
            .await;
        let stats = self.handle.stats();
        assert_eq!(
            stats.queued, 0,
            "after an outage and the interval: {stats:?}"
        );
    }

    /// An event behind a batch that is sent in halves waits for its interval, and no longer.
    async fn flushes_at_its_interval_behind_halves(&self) {
        let before = self.requests();
        let reply = Reply::status(413).delay(Duration::from_secs(2));
        self.env.server().reply(reply);
        self.log(4);
        self.handle.flush();
        self.env.advance(Duration::from_secs(1)).await;
        self.log(1);
        self.env.advance(INTERVAL + MARGIN).await;
        let stats = self.handle.stats();
        assert_eq!(
            (stats.queued, self.requests() - before),
            (0, 4),
            "after a split and the interval: {stats:?}"
        );
    }
}
