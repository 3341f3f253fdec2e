//! How the requests of a session wait: told on the bus, to the observer, and in words when they are paused.

use super::link::Link;
use super::poll::Kind;
use crate::bus::{QueueState, QueueStateTracker};
use crate::diagnostic::DiagnosticKind;
use crate::session::Handle;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

/// How often a pause is told in words.
const GAP: Duration = Duration::from_secs(60);

/// What is known of the requests of a session.
pub(super) struct Queue {
    tracker: QueueStateTracker,
    handle: Handle,
    session_id: Box<str>,
    link: Arc<Link>,
    quiet_until: Mutex<Option<Instant>>,
}

/// A request that is polled for. It is forgotten when that ends.
pub(super) struct Watched<'a> {
    queue: &'a Queue,
    request_id: &'a str,
    kind: Kind,
}

impl Queue {
    pub(super) fn new(
        tracker: QueueStateTracker,
        handle: Handle,
        session_id: &str,
        link: Arc<Link>,
    ) -> Self {
        Self {
            tracker,
            handle,
            session_id: session_id.into(),
            link,
            quiet_until: Mutex::new(None),
        }
    }

    pub(super) const fn watch<'a>(&'a self, request_id: &'a str, kind: Kind) -> Watched<'a> {
        Watched {
            queue: self,
            request_id,
            kind,
        }
    }

    /// Whether a pause may be told now.
    fn may_tell(&self) -> bool {
        let now = self.link.now();
        let quiet = self.quiet_until.lock();
        let mut quiet = quiet.unwrap_or_else(PoisonError::into_inner);
        if quiet.is_some_and(|until| now < until) {
            return false;
        }
        *quiet = now.checked_add(GAP);
        true
    }
}

impl Watched<'_> {
    pub(super) fn observe(&self, state: QueueState, reason: Option<&str>) {
        let queue = self.queue;
        // Whoever is told may send it on.
        let reason = reason.map(|reason| queue.link.excerpt(reason.as_bytes()));
        let reason = reason.as_deref().filter(|reason| !reason.is_empty());
        let tracker = &queue.tracker;
        tracker.observe(self.request_id, state, reason, None);
        let Some(text) = pause_text(state, self.kind) else {
            return;
        };
        if queue.may_tell() {
            let reason = reason.unwrap_or(text);
            let reason = format!("{} is paused: {reason}", self.kind.name());
            let kind = DiagnosticKind::QueuePaused;
            queue.handle.tell(kind, &reason, &queue.session_id);
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.queue.tracker.finish(self.request_id);
    }
}

/// Why requests of a kind wait, where the backend does not say so itself.
fn pause_text(state: QueueState, kind: Kind) -> Option<&'static str> {
    match (state, kind) {
        (QueueState::PausedRateLimit, Kind::Sample) => Some("concurrent sampler weights limit hit"),
        (QueueState::PausedRateLimit, _) => Some("concurrent training clients rate limit hit"),
        (QueueState::PausedCapacity, _) => {
            Some("Tinker backend is running short on capacity, please wait")
        }
        _ => None,
    }
}
