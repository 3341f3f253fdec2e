//! Own work: the sessions that the calling thread works for, so that what this work logs does not return to them.
//!
//! A session that sent what its own sending logs would have something to send forever. The same holds for two sessions
//! that log to each other, so a set of sessions is passed on: from a session's driver to the threads that make its
//! calls, and with an event to the session that takes it.

use core::cell::Cell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::lock::Lock;

/// A few sessions. A set that would be larger contains every session.
#[derive(Clone, Copy)]
pub(crate) struct Sessions {
    ids: [usize; Self::MAX],
    len: usize,
}

impl Sessions {
    const MAX: usize = 8;
    const NONE: Self = Self {
        ids: [0; Self::MAX],
        len: 0,
    };

    fn contains(&self, id: usize) -> bool {
        match self.ids.get(..self.len) {
            Some(ids) => ids.contains(&id),
            None => true,
        }
    }

    fn insert(&mut self, id: usize) {
        if self.contains(id) {
            return;
        }
        if let Some(slot) = self.ids.get_mut(self.len) {
            *slot = id;
        }
        self.len += 1;
    }

    fn insert_all(&mut self, others: &Self) {
        match others.ids.get(..others.len) {
            Some(ids) => ids.iter().for_each(|id| self.insert(*id)),
            None => self.len = others.len,
        }
    }

    /// Marks what this thread does as these sessions' own work, until the result is dropped.
    pub(crate) fn enter(self) -> Working {
        let before = SESSIONS.get();
        let mut all = before;
        all.insert_all(&self);
        set(all);
        Working {
            before,
            not_send: PhantomData,
        }
    }
}

std::thread_local! {
    static SESSIONS: Cell<Sessions> = const { Cell::new(Sessions::NONE) };
    /// Whether there are any: the one thing that `log` has to look at.
    static IS_ANY: Cell<bool> = const { Cell::new(false) };
}

fn set(sessions: Sessions) {
    SESSIONS.set(sessions);
    IS_ANY.set(sessions.len > 0);
}

/// The sessions that the calling thread works for.
pub(crate) fn current() -> Sessions {
    SESSIONS.get()
}

/// Whether the calling thread works for any session.
#[inline]
pub(crate) fn is_any() -> bool {
    IS_ANY.get()
}

/// See [`Sessions::enter`].
pub(crate) struct Working {
    before: Sessions,
    /// The mark is the thread's.
    not_send: PhantomData<*const ()>,
}

impl Drop for Working {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// A session's part: its id, and whose work its queued events come from.
pub(crate) struct OwnWork {
    id: usize,
    has_causes: AtomicBool,
    causes: Lock<Causes>,
}

/// The sessions whose own work logged events that are still queued here.
struct Causes {
    sessions: Sessions,
    /// They are all settled when this many events are.
    until: u64,
    /// The events that are being logged now.
    under_way: usize,
}

impl OwnWork {
    pub(crate) fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        Self {
            id: LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            has_causes: AtomicBool::new(false),
            causes: Lock::new(Causes {
                sessions: Sessions::NONE,
                until: 0,
                under_way: 0,
            }),
        }
    }

    /// Whether the calling thread does this session's work, directly or through other sessions.
    pub(crate) fn is_here(&self) -> bool {
        is_any() && current().contains(self.id)
    }

    /// Marks what this thread does as this session's work, and as that of the sessions whose events it may be sending;
    /// `settled` counts the events that are settled.
    pub(crate) fn enter(&self, settled: impl FnOnce() -> u64) -> Working {
        let mut sessions = Sessions::NONE;
        sessions.insert(self.id);
        if self.has_causes.load(Ordering::Acquire) {
            let settled = settled();
            self.causes.with(|causes| {
                if causes.under_way == 0 && causes.until <= settled {
                    causes.sessions = Sessions::NONE;
                    self.has_causes.store(false, Ordering::Release);
                }
                sessions.insert_all(&causes.sessions);
            });
        }
        sessions.enter()
    }

    /// Begins logging an event here that other sessions' work, on this thread, has caused.
    pub(crate) fn begin_caused(&self) {
        let current = current();
        self.causes.with(|causes| {
            causes.sessions.insert_all(&current);
            causes.under_way += 1;
            self.has_causes.store(true, Ordering::Release);
        });
    }

    /// Ends it; `accepted` counts the events that have been accepted.
    pub(crate) fn end_caused(&self, accepted: u64) {
        self.causes.with(|causes| {
            causes.under_way -= 1;
            causes.until = causes.until.max(accepted);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_ends_with_its_guard_and_covers_this_thread_only() {
        let (a, b) = (OwnWork::new(), OwnWork::new());
        assert!(!a.is_here() && !is_any());
        let outer = a.enter(|| 0);
        let inner = b.enter(|| 0);
        assert!(a.is_here() && b.is_here());
        assert!(!std::thread::spawn(is_any).join().unwrap());
        drop(inner);
        assert!(a.is_here() && !b.is_here());
        drop(outer);
        assert!(!a.is_here() && !is_any());
    }

    #[test]
    fn an_event_carries_its_causes_until_it_is_settled() {
        let (a, b, c) = (OwnWork::new(), OwnWork::new(), OwnWork::new());
        let of_a = a.enter(|| 0);
        b.begin_caused();
        b.end_caused(5);
        drop(of_a);
        // Its fifth event comes from the work of `a`, and passes that on.
        let of_b = b.enter(|| 4);
        assert!(a.is_here() && b.is_here());
        c.begin_caused();
        drop(of_b);
        let of_c = c.enter(|| 9);
        assert!(a.is_here() && b.is_here() && c.is_here());
        drop(of_c);
        c.end_caused(9);
        let of_c = c.enter(|| 9);
        assert!(c.is_here() && !a.is_here());
        drop(of_c);
        let _of_b = b.enter(|| 5);
        assert!(b.is_here() && !a.is_here());
    }

    #[test]
    fn a_set_that_would_be_too_large_contains_every_session() {
        let works: [OwnWork; Sessions::MAX + 1] = core::array::from_fn(|_| OwnWork::new());
        let stranger = OwnWork::new();
        let mut guards = alloc::vec::Vec::new();
        for work in &works {
            assert!(!stranger.is_here());
            guards.push(work.enter(|| 0));
        }
        assert!(stranger.is_here());
        while guards.pop().is_some() {}
        assert!(!is_any());
    }
}
