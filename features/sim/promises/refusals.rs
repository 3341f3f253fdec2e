//! What must hold exactly where a server refuses, answers early or is away: part of what ends every workload.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::reply::Reply;
use super::super::settling::settling_bound;
use crate::event::Severity;
use crate::session::Options;
use crate::{fields, sometimes};
use core::time::Duration;

pub(super) async fn check(env: &Env, options: &Options) {
    let open = || AppSession::open(env, options);
    open()
        .drops_only_the_events_that_the_server_finds_invalid()
        .await;
    open().hears_an_early_response().await;
    let mut small = options.clone();
    small.max_queue_size = small.max_queue_size.min(100);
    small.flush_threshold = small.flush_threshold.min(100);
    AppSession::open(env, &small).keeps_room_for_errors().await;
}

impl AppSession {
    fn id(&self) -> &str {
        self.handle.session_id().unwrap_or_default()
    }

    /// The others of a batch are delivered, wherever it has its invalid events.
    async fn drops_only_the_events_that_the_server_finds_invalid(&self) {
        let _ = self
            .handle
            .wait_until_drained(Duration::from_secs(60))
            .await;
        let before = self.handle.stats();
        let next = before.accepted + before.refused.total();
        let size = self.options.max_batch_size.min(self.options.max_queue_size) as u64;
        let count = size.min(40);
        let mut culprits = 0;
        for at in 0..count {
            if self.env.random(5) == 0 {
                self.env.server().refuse_event(self.id(), next + at);
                culprits += 1;
            }
        }
        self.log(count as u32);
        let drain = self
            .handle
            .wait_until_drained(Duration::from_secs(600))
            .await;
        let stats = self.handle.stats();
        let (logged, dropped) = (
            stats.accepted - before.accepted,
            stats.dropped.rejected - before.dropped.rejected,
        );
        assert!(drain.is_drained(), "with invalid events: {drain:?}");
        assert!(
            dropped <= culprits && stats.delivered - before.delivered == logged - dropped,
            "{culprits} invalid events of {logged}: {stats:?}"
        );
        sometimes!(
            culprits > 1 && dropped > 1,
            "several events of a batch are invalid"
        );
        self.env.heal();
    }

    /// A connection that breaks because the server has answered already costs an attempt, and then the answer counts.
    async fn hears_an_early_response(&self) {
        if self.options.max_retries == 0 || self.options.max_batch_size < 2 {
            return;
        }
        let _ = self
            .handle
            .wait_until_drained(Duration::from_secs(60))
            .await;
        let before = self.handle.stats();
        for _ in 0..2 {
            self.env.server().reply(Reply::status(413).early());
        }
        self.log(2);
        let drain = self
            .handle
            .wait_until_drained(Duration::from_secs(3_600))
            .await;
        let stats = self.handle.stats();
        assert!(drain.all_delivered(), "an early 413: {drain:?}");
        sometimes!(
            stats.delivered - before.delivered == 2,
            "a batch whose 413 came early is delivered in pieces"
        );
        self.env.heal();
    }

    /// Errors go beyond the limits of a full queue, again and again.
    async fn keeps_room_for_errors(&self) {
        let reserve = self.options.reserved(self.options.max_queue_size);
        for _ in 0..2 {
            self.env.server().always(Reply::stall());
            self.burst();
            let stats = self.handle.stats();
            let has_room = reserve > 0
                && self.options.reserved(self.options.max_queue_bytes) > 1_024
                && stats.queued >= self.options.max_queue_size as u64;
            let accepted = self
                .handle
                .log_with("error", fields! { n: 1 }, Severity::Error);
            assert!(
                accepted || !has_room,
                "a full queue has no room for an error"
            );
            sometimes!(accepted && has_room, "an error goes beyond a full queue");
            self.env.heal();
            let bound = settling_bound(&self.options, stats.queued);
            let _ = self.handle.wait_until_drained(bound).await;
        }
    }
}
