//! What must hold for the driver's looks at the queue: in steady load no call wakes the driver, and where the load is
//! another than predicted, no event waits longer and none is refused.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::rng::Rng;
use crate::driver::yield_now;
use crate::session::Options;
use crate::sometimes;
use core::time::Duration;

const THRESHOLD: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

/// A look that replaces a wake-up is due within 10 ms; then an attempt and its response.
const PROMPT: Duration = Duration::from_millis(510);

pub(super) async fn check(env: &Env, options: &Options) {
    let mut busy = options.clone();
    (busy.flush_threshold, busy.max_batch_size) = (THRESHOLD as usize, 100);
    (busy.max_queue_size, busy.max_queue_bytes) = (1_000, 10_000_000);
    (busy.max_batch_bytes, busy.flush_interval) = (1_000_000, INTERVAL);
    let session = AppSession::open(env, &busy);
    session.drains_at_once().await;

    let mut rng = Rng::stream(env.0.seed, 10);
    let period = Duration::from_micros(500 + rng.below(2_500));
    session.steady(10, period).await;
    let woken = session.steady(10, period).await;
    // The flush interval may end in between, and with it a prediction.
    assert!(woken <= 2, "{woken} calls woke the driver in steady load");
    sometimes!(woken == 0, "in steady load no call wakes the driver");
    match rng.below(3) {
        0 => session.sends_a_burst_at_once().await,
        1 => session.sends_at_its_interval_in_a_pause().await,
        _ => session.follows_a_rate_that_doubles(period).await,
    }
}

impl AppSession {
    /// Logs an event every `period`, for as long as these batches take. Returns how many of the calls woke the driver.
    async fn steady(&self, batches: u32, period: Duration) -> u32 {
        const YIELDS: u64 = 3;
        let mut woken = 0;
        for _ in 0..batches * THRESHOLD {
            self.env.advance(period).await;
            // What this time has made ready.
            for _ in 0..YIELDS {
                yield_now().await;
            }
            let before = self.env.0.turns.get();
            self.log(1);
            for _ in 0..YIELDS {
                yield_now().await;
            }
            woken += u32::from(self.env.0.turns.get() - before > YIELDS);
        }
        woken
    }

    async fn sends_a_burst_at_once(&self) {
        let refused = self.handle.stats().refused.total();
        self.log(3 * THRESHOLD);
        self.env.advance(PROMPT).await;
        let stats = self.handle.stats();
        assert!(
            stats.queued < u64::from(THRESHOLD),
            "a burst is not sent: {stats:?}"
        );
        assert_eq!(stats.refused.total(), refused, "a burst finds no room");
    }

    async fn sends_at_its_interval_in_a_pause(&self) {
        self.env.advance(INTERVAL + PROMPT).await;
        let stats = self.handle.stats();
        assert_eq!(stats.queued, 0, "not sent after the interval: {stats:?}");
    }

    async fn follows_a_rate_that_doubles(&self, period: Duration) {
        let woken = self.steady(8, period / 2).await;
        assert!(
            woken <= 4,
            "{woken} calls woke the driver after the rate had doubled"
        );
        self.env.advance(PROMPT).await;
        let stats = self.handle.stats();
        assert!(stats.queued < u64::from(THRESHOLD), "not sent: {stats:?}");
    }
}
