//! What must hold of the application's HTTP calls: each has one start and one end at the server, with the same number,
//! however it ends. Part of what ends every workload.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::rng::Rng;
use crate::driver::yield_now;
use crate::features::http::{HttpCall, HttpEvents};
use crate::session::Options;
use crate::sometimes;
use alloc::vec::Vec;

pub(super) async fn check(env: &Env, options: &Options) {
    let mut roomy = options.clone();
    // Each call is two events, at most two are under way, and a queue that refuses one would leave its call unpaired.
    roomy.max_queue_size = roomy.max_queue_size.max(100);
    roomy.max_queue_bytes = roomy.max_queue_bytes.max(1_000_000);
    let mut rng = Rng::stream(env.0.seed, 21);
    AppSession::open(env, &roomy).pairs_calls(&mut rng).await;
}

impl AppSession {
    async fn pairs_calls(mut self, rng: &mut Rng) {
        let count = 1 + rng.below(12);
        let mut under_way: Vec<HttpCall> = Vec::new();
        for _ in 0..count {
            // Each from another place in the program.
            let events = HttpEvents::new(&self.handle);
            under_way.push(events.start("GET", "/simulated"));
            if under_way.len() > 1 {
                let one = under_way.swap_remove(rng.below(2) as usize);
                end(one, rng);
            }
            yield_now().await;
        }
        let is_under_way = rng.below(2) == 0;
        let left = if is_under_way { under_way.len() } else { 0 };
        if !is_under_way {
            under_way.drain(..).for_each(|call| end(call, rng));
        }
        sometimes!(is_under_way, "a session ends with a call under way");
        let bound = super::settling_bound(&self.options, self.handle.stats().queued);
        let drain = self.stop(bound).await;
        assert!(drain.all_delivered(), "a stop without faults: {drain:?}");
        // Ends after the stop: they are refused.
        drop(under_way);
        let id = self.handle.session_id().unwrap_or_default();
        let state = self.env.0.world.state();
        let calls = state.server.sessions.get(id).map(|record| record.calls());
        assert_eq!(
            calls,
            Some((count as usize - left, left)),
            "calls that have ended, and calls under way"
        );
    }
}

fn end(call: HttpCall, rng: &mut Rng) {
    match rng.below(3) {
        0 => call.stop(200 + rng.below(400) as u16),
        1 => call.exception("error", "simulated"),
        _ => drop(call),
    }
}
