//! What must hold of loss reports: they are exact, seldom, and there are none where nothing is lost. Part of what ends
//! every workload.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::reply::Reply;
use super::super::rng::Rng;
use crate::session::Options;
use crate::sometimes;
use core::time::Duration;

/// How long after a loss it is reported.
const DELAY: Duration = Duration::from_secs(300);

/// Longer than it takes to notice a loss, and to send what is queued and then a report.
const MARGIN: Duration = Duration::from_secs(60);

pub(super) async fn check(env: &Env, options: &Options) {
    let mut options = options.clone();
    options.loss_report = true;
    (options.max_queue_size, options.max_queue_bytes) = (1_000, 1_000_000);
    // So that each promise takes a known number of attempts.
    (options.max_retries, options.retry_base_delay) = (1, Duration::from_millis(1));
    let open = || AppSession::open(env, &options);
    let mut rng = Rng::stream(env.0.seed, 23);
    match rng.below(4) {
        0 => open().reports_alternating_losses(&mut rng).await,
        1 => open().reports_losses_of_its_last_batch(&mut rng).await,
        2 => open().reports_seldom_and_again_what_was_not_told().await,
        _ => open().reports_after_a_fatal_error_that_it_survives().await,
    }
}

impl AppSession {
    /// How many reports the server has, and how many losses the latest tells of.
    fn reported(&self) -> (u64, u64) {
        let id = self.handle.session_id().unwrap_or_default();
        let state = self.env.0.world.state();
        state.server.losses.get(id).map_or((0, 0), |log| {
            let total = log.latest().map_or(0, |(_, losses)| losses.total());
            (log.count(), total)
        })
    }

    async fn drained(&self) {
        let drain = self.handle.wait_until_drained(DELAY / 2).await;
        assert!(drain.is_drained(), "without faults: {drain:?}");
    }

    /// Stops the session, of which so many indices are missing.
    async fn ends_with(mut self, losses: u64) {
        let before = self.handle.stats().reports;
        let drain = self.stop(MARGIN).await;
        assert!(drain.is_drained(), "a stop without faults: {drain:?}");
        let stats = self.handle.stats();
        let (count, told) = self.reported();
        assert_eq!(told, losses, "reported losses: {stats:?}");
        let is_last = u64::from(losses > 0);
        assert_eq!(stats.reports, before + is_last, "{stats:?}");
        assert!(count > 0 || losses == 0);
        self.assert_has_ended();
    }

    fn assert_has_ended(&self) {
        let id = self.handle.session_id().unwrap_or_default();
        assert!(self.env.server().has_ended(id), "no SESSION_END of {id}");
    }

    /// One event of two is too large, so that there are more runs than a report has room for.
    async fn reports_alternating_losses(self, rng: &mut Rng) {
        self.drained().await;
        let losses = rng.below(60);
        let too_large = self.options.max_event_bytes as u32;
        for _ in 0..losses {
            self.log_text(too_large);
            self.log(1);
        }
        if rng.below(2) == 0 {
            self.drained().await;
        }
        sometimes!(losses > 16, "there are more runs than a report can list");
        self.ends_with(losses).await;
    }

    /// What is lost after the stop has begun is reported, as long as the end is not sent.
    async fn reports_losses_of_its_last_batch(self, rng: &mut Rng) {
        self.drained().await;
        let id = self.handle.session_id().unwrap_or_default();
        let next = self.handle.stats().accepted;
        let count = 1 + rng.below(20);
        let mut losses = 0;
        for index in next..next + count {
            if rng.below(3) == 0 {
                self.env.server().refuse_event(id, index);
                losses += 1;
            }
        }
        self.log(count as u32);
        let last = self.options.max_batch_size as u64 > count;
        sometimes!(last && losses > 0, "a batch with the end is refused");
        self.ends_with(losses).await;
    }

    async fn reports_seldom_and_again_what_was_not_told(self) {
        let too_large = self.options.max_event_bytes as u32;
        let interval = self.options.flush_interval;
        self.drained().await;
        self.env.advance(DELAY + MARGIN).await;
        assert_eq!(self.reported(), (0, 0), "nothing is lost");
        // Two losses, one report.
        self.log_text(too_large);
        self.env.advance(Duration::from_secs(100)).await;
        self.log_text(too_large);
        self.log(1);
        self.env.advance(DELAY - Duration::from_secs(101)).await;
        assert_eq!(self.reported(), (0, 0), "too early");
        self.env.advance(MARGIN + interval).await;
        assert_eq!(self.reported(), (1, 2), "in time");
        self.env.advance(3 * DELAY).await;
        assert_eq!(self.reported(), (1, 2), "there is nothing new");
        // The next report includes one that was lost.
        self.log_text(too_large);
        self.drained().await;
        self.env.server().always(Reply::status(401));
        self.env.advance(DELAY + MARGIN).await;
        self.env.heal();
        let stats = self.handle.stats();
        assert_eq!((stats.reports, stats.dropped.rejected), (2, 1), "{stats:?}");
        self.env.advance(DELAY + MARGIN).await;
        assert_eq!(self.reported(), (2, 4), "with the report that was lost");
        self.ends_with(4).await;
    }

    /// The end has a report before it, and the stop one more if anything was lost since.
    async fn reports_after_a_fatal_error_that_it_survives(mut self) {
        let too_large = self.options.max_event_bytes as u32;
        self.log_text(too_large);
        let error = std::io::Error::other("simulated, survived");
        let drain = self
            .handle
            .log_fatal_exception(&error, crate::event::Severity::Critical)
            .await;
        assert!(drain.all_delivered(), "without faults: {drain:?}");
        self.assert_has_ended();
        assert_eq!(self.reported(), (1, 1));
        self.log(1);
        self.log_text(too_large);
        self.log(1);
        let drain = self.stop(MARGIN).await;
        assert!(drain.all_delivered(), "without faults: {drain:?}");
        assert_eq!(self.reported(), (2, 2), "{:?}", self.handle.stats());
    }
}
