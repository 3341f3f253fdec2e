//! Reports how the requests of a session wait in the backend's queue: as events, to the observer, and as diagnostics.

use super::api::Api;
use super::kind::RequestKind;
use super::progress::Progress;
use crate::bus::{QueueState, QueueStateTracker};
use crate::diagnostic::DiagnosticKind;
use crate::session::Handle;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

/// The shortest time between two diagnostics about a pause.
const DIAGNOSTIC_INTERVAL: Duration = Duration::from_secs(60);

/// The queue states of a session's requests.
pub(super) struct QueueWatch {
    tracker: QueueStateTracker,
    handle: Handle,
    session_id: Box<str>,
    api: Arc<Api>,
    quiet_until: Mutex<Option<Instant>>,
}

/// A request under watch until this is dropped.
pub(super) struct WatchedRequest<'a> {
    watch: &'a QueueWatch,
    request_id: &'a str,
    kind: RequestKind,
    progress: &'a Progress,
}

impl QueueWatch {
    pub(super) fn new(
        tracker: QueueStateTracker,
        handle: Handle,
        session_id: &str,
        api: Arc<Api>,
    ) -> Self {
        Self {
            tracker,
            handle,
            session_id: session_id.into(),
            api,
            quiet_until: Mutex::new(None),
        }
    }

    pub(super) const fn watch<'a>(
        &'a self,
        request_id: &'a str,
        kind: RequestKind,
        progress: &'a Progress,
    ) -> WatchedRequest<'a> {
        WatchedRequest {
            watch: self,
            request_id,
            kind,
            progress,
        }
    }

    /// Whether a diagnostic about a pause is due. If so, the next one is due an interval later.
    fn is_diagnostic_due(&self) -> bool {
        let now = self.api.now();
        let quiet_until = self.quiet_until.lock();
        let mut quiet_until = quiet_until.unwrap_or_else(PoisonError::into_inner);
        if quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        *quiet_until = now.checked_add(DIAGNOSTIC_INTERVAL);
        true
    }
}

impl WatchedRequest<'_> {
    pub(super) fn observe(&self, state: QueueState, reason: Option<&str>, depth: Option<u64>) {
        let watch = self.watch;
        // Observers may forward the reason, so secrets are redacted first.
        let reason = reason.map(|reason| watch.api.excerpt(reason.as_bytes()));
        let reason = reason.as_deref().filter(|reason| !reason.is_empty());
        self.progress.queued(state, reason);
        let tracker = &watch.tracker;
        tracker.observe(self.request_id, state, reason, depth);
        let Some(default_reason) = pause_reason(state, self.kind) else {
            return;
        };
        if watch.is_diagnostic_due() {
            let reason = reason.unwrap_or(default_reason);
            let reason = format!("{} is paused: {reason}", self.kind.name());
            let kind = DiagnosticKind::QueuePaused;
            watch.handle.report(kind, &reason, &watch.session_id);
        }
    }
}

impl Drop for WatchedRequest<'_> {
    fn drop(&mut self) {
        self.watch.tracker.finish(self.request_id);
    }
}

/// The reason for a pause when the backend gives none; `None` if the state is no pause.
fn pause_reason(state: QueueState, kind: RequestKind) -> Option<&'static str> {
    match (state, kind) {
        (QueueState::PausedRateLimit, RequestKind::Sample) => {
            Some("concurrent sampler weights limit hit")
        }
        (QueueState::PausedRateLimit, _) => Some("concurrent training clients rate limit hit"),
        (QueueState::PausedCapacity, _) => {
            Some("Tinker backend is running short on capacity, please wait")
        }
        _ => None,
    }
}
