//! A workload: operations drawn from a seed, kept as a list so that a failure can be shrunk.

use super::Fault;
use super::app::AppSession;
use super::env::Env;
use super::op::Op;
use super::promises;
use super::rng::Rng;
use crate::event::Severity;
use crate::session::{GiveUp, Options};
use crate::sometimes;
use alloc::vec::Vec;
use core::time::Duration;

/// The operations of a simulated application, and the options of its sessions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Workload {
    /// The options of each session.
    pub options: Options,
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// Whether each session has fields of its own, which it sends once as `session.context`.
    pub has_context: bool,
}

impl Workload {
    /// Draws up to 61 operations, and options with small queues and batches, so that every limit is reached.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, 6);
        let mut pick = |values: &[u64]| values[rng.below(values.len() as u64) as usize];
        let mut options = Options::default();
        options.max_queue_size = pick(&[5, 20, 100, 1_000]) as usize;
        options.flush_threshold =
            pick(&[1, 5, 20, 100]).min(options.max_queue_size as u64) as usize;
        options.max_batch_size = pick(&[1, 7, 100]) as usize;
        options.max_event_bytes = pick(&[1_024, 4_096]) as usize;
        options.max_batch_bytes = pick(&[6_000, 100_000]) as usize;
        options.max_queue_bytes = pick(&[16_384, 1_000_000]) as usize;
        options.flush_interval = Duration::from_secs(pick(&[0, 1, 10]));
        options.http_timeout = Duration::from_millis(pick(&[200, 5_000]));
        options.max_retries = pick(&[0, 1, 3, 8]) as u32;
        options.retry_base_delay = Duration::from_millis(pick(&[1, 100, 1_000]));
        options.retry_max_delay = Duration::from_secs(pick(&[1, 60]));
        options.flush_timeout = Duration::from_secs(pick(&[1, 30]));
        options.drop_timeout = Duration::from_secs(pick(&[0, 5]));
        // A stream of its own: whether a session is patient changes nothing else.
        if Rng::stream(seed, 11).below(4) == 0 {
            options.give_up = GiveUp::WhenFull;
            options.max_retries = Options::default().max_retries;
        }
        options.loss_report = Rng::stream(seed, 22).below(8) > 0;
        let count = 1 + pick(&[4, 15, 60]);
        let mut ops: Vec<_> = (0..count).map(|_| Op::draw(&mut rng)).collect();
        // Likewise for what a session takes.
        let mut rng = Rng::stream(seed, 12);
        if rng.below(4) == 0 {
            for _ in 0..=rng.below(4) {
                let at = rng.below(ops.len() as u64 + 1) as usize;
                ops.insert(at, Op::draw_consent(&mut rng));
            }
            if rng.below(4) == 0 {
                options.min_severity = Severity::ALL[rng.below(3) as usize];
            }
        }
        // And for the contexts that it logs in.
        let mut rng = Rng::stream(seed, 25);
        if rng.below(4) == 0 {
            for _ in 0..=rng.below(3) {
                let at = rng.below(ops.len() as u64 + 1) as usize;
                ops.insert(at, Op::LogInContext(1 + rng.below(5) as u32));
            }
        }
        Self {
            options,
            ops,
            has_context: rng.below(4) == 0,
        }
    }

    /// Runs all operations, and checks what each promises.
    pub async fn run(self, env: Env) {
        let mut session = AppSession::open_in(&env, &self.options, self.has_context);
        for op in self.ops {
            if env.occurs(Fault::ShutdownInRetry) {
                let _ = session.stop(Duration::from_secs(1)).await;
            }
            session.step(op).await;
        }
        let is_healed = env.0.is_healed.get();
        if env.random(2) == 0 {
            session.settle().await;
        }
        let drain = session.stop(Duration::from_secs(10)).await;
        sometimes!(
            is_healed && drain.all_delivered(),
            "all is delivered after healing"
        );
        env.heal();
        // The promises about time do not hold beyond the clock's maximum.
        if env.now().as_micros() < u64::MAX / 2 {
            let mut options = self.options;
            options.give_up = GiveUp::AfterRetries;
            options.min_severity = Severity::Debug;
            promises::check(&env, &options).await;
        }
    }
}
