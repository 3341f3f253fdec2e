//! The bound within which a healed session must settle.

use super::env::{Env, Life};
use crate::session::Options;
use alloc::vec::Vec;
use core::time::Duration;

/// Checks that every live session settles within its bound, once faults are healed.
pub(super) async fn settle(env: Env) {
    // A dropped driver is replaced within five seconds.
    env.advance(Duration::from_secs(6)).await;
    let sessions: Vec<_> = {
        let sessions = env.0.sessions.borrow();
        let alive = sessions
            .iter()
            .filter(|session| session.life == Life::Alive && session.handle.stats().driver_alive);
        alive
            .map(|session| {
                (
                    session.handle.clone(),
                    session.options.clone(),
                    session.id.clone(),
                    session.is_spooled,
                )
            })
            .collect()
    };
    for (handle, options, id, is_spooled) in sessions {
        let mut bound = settling_bound(&options, handle.stats().queued);
        if is_spooled {
            // A disk that has failed is tried again after a minute, and what goes straight comes after what is on it.
            bound += Duration::from_secs(600);
        }
        let drain = handle.wait_until_drained(bound).await;
        let stats = handle.stats();
        assert!(
            drain.is_drained() || !stats.driver_alive,
            "session {id} has not settled {bound:?} after the faults were healed: {stats:?}"
        );
    }
    #[cfg(feature = "spool")]
    super::spools::settle(&env).await;
}

/// Time for the attempt in flight to end, for its backoff, and to send everything, in the worst case event by event.
pub(super) fn settling_bound(options: &Options, queued: u64) -> Duration {
    const ROUND_TRIP: Duration = Duration::from_millis(30);
    let queued = u32::try_from(queued + 2).unwrap_or(u32::MAX);
    let retry = options
        .retry_max_delay
        .saturating_add(options.retry_max_delay / 10);
    options
        .http_timeout
        .saturating_add(retry)
        .saturating_add(ROUND_TRIP.saturating_mul(queued))
}
