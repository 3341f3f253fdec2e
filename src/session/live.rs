//! The live sessions of this process, by where they send: two of one id would collide there.

use super::session_ref::{SessionRef, WeakSession};
use crate::clock::Clock;
use crate::session::Handle;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// The child of a fork has none of its parent's.
static LIVE: PerProcess<Lock<Live>> = PerProcess::new();

struct Live {
    /// By destination and session id.
    sessions: BTreeMap<(Box<str>, Box<str>), WeakSession>,
    /// The size at which the ended sessions are removed.
    sweep_at: usize,
}

/// Registers a session, unless a live one has the same id and destination. A session is live until its stop begins or
/// its end is queued, and while it has a driver.
pub(crate) fn register<C: Clock>(destination: &str, session: &SessionRef<C>) -> bool {
    let live = LIVE.get_or_init(|| {
        Lock::new(Live {
            sessions: BTreeMap::new(),
            sweep_at: 16,
        })
    });
    let key = (destination.into(), session.shared.identity.id().into());
    // What this returns may be the last reference to a session, whose drop must not run under the lock.
    let (is_free, _other) = live.with(|live| {
        let other = live.sessions.get(&key).and_then(WeakSession::upgrade);
        let is_free = !other.as_ref().is_some_and(is_live);
        if is_free {
            live.sessions.insert(key, session.downgrade());
            live.sweep();
        }
        (is_free, other)
    });
    is_free
}

fn is_live(handle: &Handle) -> bool {
    let Some(session) = handle.session() else {
        return false;
    };
    let is_live = session.shared().with(|engine| {
        let stats = engine.stats();
        stats.driver_alive && !stats.session_ended && !engine.is_stopping()
    });
    is_live.unwrap_or(false)
}

impl Live {
    /// Removes the sessions that are gone, seldom enough to cost a constant time per session.
    fn sweep(&mut self) {
        if self.sessions.len() >= self.sweep_at {
            self.sessions.retain(|_, session| session.exists());
            self.sweep_at = 16.max(2 * self.sessions.len());
        }
    }
}
