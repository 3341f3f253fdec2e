//! The numbers of a session's calls, by which the events of each are paired.

use super::Bus;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Numbers the calls of a session: HTTP requests, and requests in the backend's queue. Clones share the sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// The number of the next call, from 0.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) as u64
    }
}

/// The sequences in use on a bus, by session id: whatever emits events for a session finds the same one.
pub(super) struct Sequences(Lock<InUse>);

impl Sequences {
    pub(super) fn new() -> Self {
        Self(Lock::new(InUse::default()))
    }
}

#[derive(Default)]
struct InUse {
    by_session: BTreeMap<Box<str>, Weak<AtomicUsize>>,
    /// The size at which sequences that are no longer in use are removed.
    sweep_at: usize,
}

impl InUse {
    const MIN_SWEEP: usize = 16;

    fn of(&mut self, session_id: &str) -> Calls {
        let in_use = self.by_session.get(session_id).and_then(Weak::upgrade);
        if let Some(calls) = in_use {
            return Calls(calls);
        }
        if self.by_session.len() >= self.sweep_at.max(Self::MIN_SWEEP) {
            self.by_session.retain(|_, calls| calls.strong_count() > 0);
            self.sweep_at = 2 * self.by_session.len();
        }
        let calls = Calls::default();
        let weak = Arc::downgrade(&calls.0);
        self.by_session.insert(session_id.into(), weak);
        calls
    }
}

impl Bus {
    /// The sequence of a session's calls. It begins anew once neither the session nor anything that emits its events
    /// is left.
    pub(crate) fn calls(&self, session_id: &str) -> Calls {
        // In the child of a fork the lock may be held for ever, and no handler is called.
        if self.0.fork.is_forked() {
            return Calls::default();
        }
        self.0.calls.0.with(|in_use| in_use.of(session_id))
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn all_that_emit_for_a_session_share_its_numbers_and_other_sessions_have_their_own() {
        let bus = Bus::new();
        let (one, same, other) = (bus.calls("a"), bus.calls("a"), bus.calls("b"));
        assert_eq!((one.next(), same.next(), one.next()), (0, 1, 2));
        assert_eq!(other.next(), 0);
        drop(one);
        assert_eq!(bus.calls("a").next(), 3, "it is still in use");
        drop(same);
        assert_eq!(bus.calls("a").next(), 0);
    }

    #[test]
    fn sequences_of_ended_sessions_take_no_memory() {
        let bus = Bus::new();
        let kept = bus.calls("kept");
        kept.next();
        for n in 0..10_000 {
            bus.calls(&format!("session-{n}"));
        }
        let count = bus.0.calls.0.with(|in_use| in_use.by_session.len());
        assert!(count <= 2 * InUse::MIN_SWEEP, "{count}");
        assert_eq!(bus.calls("kept").next(), 1);
    }
}
