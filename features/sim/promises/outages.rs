//! What must hold in a long outage with `GiveUp::WhenFull`: nothing is lost while the queue has room, and requests stay
//! few.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::reply::Reply;
use super::HOURS;
use crate::session::{GiveUp, Options};
use core::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) async fn check(env: &Env, options: &Options) {
    let mut patient = options.clone();
    patient.give_up = GiveUp::WhenFull;
    patient.max_retries = Options::default().max_retries;
    (patient.max_queue_size, patient.flush_threshold) = (1_000, 100);
    patient.max_queue_bytes = 1_000_000;
    patient.retry_max_delay = Duration::from_secs(60);
    for reply in [Reply::status(503), Reply::stall()] {
        let session = AppSession::open(env, &patient);
        session.loses_nothing_in_an_outage(reply).await;
    }
}

impl AppSession {
    async fn loses_nothing_in_an_outage(&self, reply: Reply) {
        const ROUNDS: u32 = 120;
        self.drains_at_once().await;
        let before = self.requests();
        self.env.server().always(reply);
        for _ in 0..ROUNDS {
            self.log(3);
            self.handle.flush();
            self.env.advance(HOUR / ROUNDS).await;
        }
        // Up to a minute the delays double, beginning with a millisecond at least.
        let requests = self.requests() - before;
        assert!(requests <= 16 + 67 + 1, "{requests} requests in an outage");
        self.env.heal();
        let drain = self.handle.wait_until_drained(HOURS).await;
        let stats = self.handle.stats();
        assert!(
            drain.all_delivered() && stats.dropped.total() + stats.refused.total() == 0,
            "after an outage: {drain:?} {stats:?}"
        );
    }
}
