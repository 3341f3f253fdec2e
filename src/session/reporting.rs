//! Reports: pending diagnostics go to the observer, in order, from the driver, from waits, from the owner's drop, and
//! from a thread of their own where a session has no driver.

use super::shared::Shared;
use crate::diagnostic::Diagnostic;
use crate::engine::Notice;
use crate::time::Instant;

#[cfg(feature = "std")]
use crate::engine::{Engine, Wakers};

impl Shared {
    /// Reports pending diagnostics to the observer; `all` ignores the rate limit. Does nothing while another call does
    /// the same, which then reports these, too: two at once would mix up the order.
    pub(crate) fn report(&self, now: Instant, all: bool) {
        #[cfg(feature = "std")]
        {
            let reporting = &self.host.reporting;
            let begin = |engine: &mut Engine| {
                if !reporting.begin(all) {
                    return None;
                }
                let next = engine.next_notice(now, all);
                if next.is_none() {
                    reporting.end();
                }
                next
            };
            // Most calls find nothing.
            let Ok(Some(mut notice)) = self.with(begin) else {
                return;
            };
            let _own = (crate::sys::origin::OwnWork::enter(), self.enter_own_work());
            loop {
                self.pass_on(&notice);
                let next = self.update(|engine| {
                    match engine.next_notice(now, all || reporting.wants_all()) {
                        Some(next) => (Some(next), Wakers::None),
                        None if reporting.end() => (None, Wakers::All(None)),
                        None => (None, Wakers::None),
                    }
                });
                match next {
                    Ok(Some(next)) => notice = next,
                    _ => break,
                }
            }
        }
        #[cfg(not(feature = "std"))]
        while let Ok(Some(notice)) = self.with(|engine| engine.next_notice(now, all)) {
            self.pass_on(&notice);
        }
    }

    fn pass_on(&self, notice: &Notice) {
        let diagnostic = Diagnostic {
            kind: notice.kind,
            count: notice.count,
            reason: notice.reason(),
            session_id: self.identity.id(),
            limit: notice.limit,
            limit_name: notice.limit_name,
        };
        let is_heard = self.observer().notify(&diagnostic);
        #[cfg(feature = "std")]
        if !is_heard {
            self.note_unheard(&diagnostic);
        }
        #[cfg(not(feature = "std"))]
        let _ = is_heard;
    }

    /// Whether another thread is reporting: what a wait has found lost may not have reached the observer yet. It wakes
    /// the waits when it is done. Called under the engine's lock.
    pub(super) fn is_being_reported(&self) -> bool {
        #[cfg(feature = "std")]
        return !self.host.own_work.is_here() && self.host.reporting.is_awaited();
        #[cfg(not(feature = "std"))]
        false
    }
}

#[cfg(feature = "std")]
pub(crate) use with_std::Reporting;

#[cfg(feature = "std")]
mod with_std {
    use super::Shared;
    use crate::session::session_ref::WeakSession;
    use crate::sys::panics;
    use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
    use core::time::Duration;
    use std::sync::OnceLock;
    use std::thread;

    /// Whether a thread is reporting a session's diagnostics. Changed under the engine's lock only.
    pub(crate) struct Reporting {
        state: AtomicU8,
        /// The session itself, for a thread that reports where there is no driver; not set in simulations, which have no
        /// threads.
        session: OnceLock<WeakSession>,
        has_thread: AtomicBool,
    }

    const BUSY: u8 = 1;
    /// Another call wants everything to be reported.
    const ALL: u8 = 2;
    /// A wait looks again when the report ends.
    const AWAITED: u8 = 4;

    impl Reporting {
        pub(crate) const fn new() -> Self {
            Self {
                state: AtomicU8::new(0),
                session: OnceLock::new(),
                has_thread: AtomicBool::new(false),
            }
        }

        pub(crate) fn set_session(&self, session: WeakSession) {
            let _ = self.session.set(session);
        }

        fn set(&self, flags: u8) {
            let state = self.state.load(Ordering::Relaxed);
            self.state.store(state | flags, Ordering::Relaxed);
        }

        /// Begins a report, unless one is under way.
        pub(super) fn begin(&self, all: bool) -> bool {
            let is_free = self.state.load(Ordering::Relaxed) == 0;
            if is_free {
                self.set(BUSY);
            } else if all {
                self.set(ALL);
            }
            is_free
        }

        pub(super) fn wants_all(&self) -> bool {
            self.state.load(Ordering::Relaxed) & ALL != 0
        }

        /// Ends it. Returns whether a wait is to look again.
        pub(super) fn end(&self) -> bool {
            let state = self.state.swap(0, Ordering::Relaxed);
            state & AWAITED != 0
        }

        /// Whether a report is under way; if so, its end wakes the waits.
        pub(super) fn is_awaited(&self) -> bool {
            let is_busy = self.state.load(Ordering::Relaxed) != 0;
            if is_busy {
                self.set(AWAITED);
            }
            is_busy
        }
    }

    impl Shared {
        /// Reports on a thread of its own what happens to a session without a driver: `log` itself never reports, since
        /// the observer may take any time, and may be the very code that is logging.
        #[cold]
        pub(crate) fn report_unattended(&self) {
            let reporting = &self.host.reporting;
            let Some(session) = reporting.session.get() else {
                return;
            };
            if !self.has_pending() || reporting.has_thread.swap(true, Ordering::SeqCst) {
                return;
            }
            let session = session.clone();
            let start = || {
                let builder = thread::Builder::new().name("tinkex-report".into());
                builder.spawn(move || {
                    while let Some(delay) = report_once(&session) {
                        thread::sleep(delay);
                    }
                })
            };
            // Without a thread it stays pending until a wait ends or the owner is dropped.
            if panics::catch(start).is_none_or(|started| started.is_err()) {
                reporting.has_thread.store(false, Ordering::SeqCst);
            }
        }

        fn has_pending(&self) -> bool {
            let due = self.with(|engine| engine.unattended_notice());
            due.is_ok_and(|due| due.is_some())
        }
    }

    /// Reports what is due. Returns when to look again, unless nothing is pending, there is a driver again, or the
    /// session is gone.
    fn report_once(session: &WeakSession) -> Option<Duration> {
        const BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
        let handle = session.upgrade()?;
        let session = handle.session()?;
        let shared = session.shared();
        let now = session.now();
        shared.report(now, false);
        let due = || shared.with(|engine| engine.unattended_notice());
        if due() == Ok(None) {
            let has_thread = &shared.host.reporting.has_thread;
            has_thread.store(false, Ordering::SeqCst);
            // Unless something came up meanwhile, and found that there is a thread.
            if due() == Ok(None) || has_thread.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
        let left = due().ok()??.saturating_duration_since(now);
        Some(left.clamp(BOUNDS.0, BOUNDS.1))
    }
}
