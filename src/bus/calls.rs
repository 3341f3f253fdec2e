//! The numbers of a session's calls, by which the events of each are paired.

use super::Bus;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Numbers the calls of a session: HTTP requests, and requests in the backend's queue. Clones share the sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// The number of the next call, from 0.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) as u64
    }

    /// Whether anything but the bus has this sequence.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// The sequences of a bus, by session id: whatever emits events for a session finds the same one.
pub(super) struct Sequences(Lock<BySession>);

struct BySession {
    sequences: BTreeMap<Box<str>, Calls>,
    /// The size at which those that are not in use are removed.
    sweep_at: usize,
}

impl Sequences {
    const MIN_SWEEP: usize = 1_024;

    pub(super) const fn new() -> Self {
        Self(Lock::new(BySession {
            sequences: BTreeMap::new(),
            sweep_at: Self::MIN_SWEEP,
        }))
    }
}

impl BySession {
    fn of(&mut self, session_id: &str, is_new: bool) -> Calls {
        if let Some(calls) = self.sequences.get(session_id)
            && (calls.is_in_use() || !is_new)
        {
            return calls.clone();
        }
        if self.sequences.len() >= self.sweep_at {
            self.sequences.retain(|_, calls| calls.is_in_use());
            self.sweep_at = Sequences::MIN_SWEEP.max(2 * self.sequences.len());
        }
        let calls = Calls::default();
        self.sequences.insert(session_id.into(), calls.clone());
        calls
    }
}

impl Bus {
    /// The sequence of a session's calls.
    pub(crate) fn calls(&self, session_id: &str) -> Calls {
        self.sequence(session_id, false)
    }

    /// The sequence for a session that begins: a new one, unless something emits events for it already.
    pub(crate) fn calls_of_new_session(&self, session_id: &str) -> Calls {
        self.sequence(session_id, true)
    }

    fn sequence(&self, session_id: &str, is_new: bool) -> Calls {
        // In the child of a fork the lock may be held forever, and no handler is called.
        if self.0.fork.is_forked() {
            return Calls::default();
        }
        self.0.calls.0.with(|all| all.of(session_id, is_new))
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
        assert_eq!(bus.calls_of_new_session("a").next(), 3, "it is in use");
        drop((one, same));
        assert_eq!(bus.calls("a").next(), 4);
        let second_run = bus.calls_of_new_session("a");
        assert_eq!((second_run.next(), bus.calls("a").next()), (0, 1));
    }

    #[test]
    fn sequences_of_ended_sessions_take_bounded_memory() {
        let bus = Bus::new();
        let kept = bus.calls("kept");
        kept.next();
        for n in 0..10_000 {
            bus.calls(&format!("session-{n}"));
        }
        let count = bus.0.calls.0.with(|all| all.sequences.len());
        assert!(count <= Sequences::MIN_SWEEP, "{count}");
        assert_eq!(bus.calls("kept").next(), 1);
    }
}
