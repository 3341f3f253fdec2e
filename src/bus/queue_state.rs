//! The queue state of requests at the backend: each change of state or reason is reported once.

use super::{Bus, Calls, QUEUE_STATE_CHANGE, Value};
use crate::sys::lock::Lock;
use crate::sys::panics;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::fmt;

/// The state of a request in the backend's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueState {
    /// `active`: the request makes progress.
    Active,
    /// `paused_rate_limit`: the caller has exceeded its rate limit.
    PausedRateLimit,
    /// `paused_capacity`: the backend lacks capacity.
    PausedCapacity,
    /// `unknown`: the backend reported no state, or one this version does not know.
    #[default]
    Unknown,
}

impl QueueState {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Active,
        Self::PausedRateLimit,
        Self::PausedCapacity,
        Self::Unknown,
    ];

    /// The state's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PausedRateLimit => "paused_rate_limit",
            Self::PausedCapacity => "paused_capacity",
            Self::Unknown => "unknown",
        }
    }

    /// Parses the backend's name of a state, ignoring case and surrounding white space. Any other name is
    /// [`Unknown`](Self::Unknown), since backends add states before their clients know them.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        let word = word.trim();
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.as_str().eq_ignore_ascii_case(word))
            .unwrap_or_default()
    }
}

impl fmt::Display for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A change in a request's queue state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStateChange<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The number of the request, the same in all its changes: calls of a session are numbered from 0, HTTP requests
    /// included.
    pub call: u64,
    /// The state before; [`QueueState::Unknown`] for a request not seen before.
    pub from: QueueState,
    /// The state now.
    pub to: QueueState,
    /// The reason, in the backend's words, if it gave one.
    pub reason: Option<&'a str>,
    /// The number of queued requests, if the backend gave it.
    pub queue_depth: Option<u64>,
}

/// Observes queue state changes, on the thread that detects them. It should return quickly; its panics are caught.
///
/// Implemented by closures that take `&QueueStateChange`.
pub trait QueueStateObserver: Send + Sync + 'static {
    /// Called on each change.
    fn on_queue_state_change(&self, change: &QueueStateChange<'_>);
}

impl<F: Fn(&QueueStateChange<'_>) + Send + Sync + 'static> QueueStateObserver for F {
    fn on_queue_state_change(&self, change: &QueueStateChange<'_>) {
        self(change);
    }
}

/// Tracks the queue state of each request and reports changes: as the event
/// [`tinkex.queue.state_change`](QUEUE_STATE_CHANGE) on a bus, and to an observer.
///
/// ```
/// # use tinkex_telemetry::bus::{Bus, QueueState, QueueStateTracker};
/// let tracker = QueueStateTracker::on(&Bus::new(), "session-123");
/// assert!(tracker.observe("request-1", QueueState::PausedCapacity, Some("no room"), Some(7)));
/// assert!(!tracker.observe("request-1", QueueState::PausedCapacity, Some("no room"), Some(6)));
/// tracker.finish("request-1");
/// ```
pub struct QueueStateTracker {
    bus: Option<Bus>,
    session_id: Box<str>,
    calls: Calls,
    observer: Option<Box<dyn QueueStateObserver>>,
    capacity: usize,
    seen: Lock<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: BTreeMap<Box<str>, Last>,
    /// A logical clock: the number of observations so far.
    now: u64,
}

/// The last observation of a request.
struct Last {
    state: QueueState,
    reason: Option<Box<str>>,
    call: u64,
    at: u64,
}

impl QueueStateTracker {
    /// The default number of requests to track; see [`capacity`](Self::capacity).
    pub const CAPACITY: usize = 1_024;

    /// Creates a tracker that executes its events on this bus, with this `session_id` in their metadata.
    #[must_use]
    pub fn on(bus: &Bus, session_id: &str) -> Self {
        Self::with(Some(bus.clone()), session_id)
    }

    pub(crate) fn with(bus: Option<Bus>, session_id: &str) -> Self {
        let calls = bus.as_ref().map(|bus| bus.calls(session_id));
        Self {
            bus,
            session_id: session_id.into(),
            calls: calls.unwrap_or_default(),
            observer: None,
            capacity: Self::CAPACITY,
            seen: Lock::new(Seen::default()),
        }
    }

    /// Reports changes to this observer, too.
    #[must_use]
    pub fn observer(mut self, observer: impl QueueStateObserver) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Tracks at most this many requests, at least 1. Beyond that, the least recently observed one is evicted, which
    /// takes a scan of all of them.
    #[must_use]
    pub fn capacity(mut self, requests: usize) -> Self {
        self.capacity = requests.max(1);
        self
    }

    /// Records the state that the backend reported for a request. If state or reason differ from the last observation,
    /// reports the change and returns true. A request not seen before counts as [`Unknown`](QueueState::Unknown),
    /// without a reason.
    pub fn observe(
        &self,
        request_id: &str,
        state: QueueState,
        reason: Option<&str>,
        queue_depth: Option<u64>,
    ) -> bool {
        let change = self
            .seen
            .with(|seen| seen.change(request_id, state, reason, self));
        let Some((from, call)) = change else {
            return false;
        };
        self.report(&QueueStateChange {
            request_id,
            call,
            from,
            to: state,
            reason,
            queue_depth,
        });
        true
    }

    /// Forgets a request that has finished.
    pub fn finish(&self, request_id: &str) {
        self.seen.with(|seen| seen.requests.remove(request_id));
    }

    fn report(&self, change: &QueueStateChange<'_>) {
        if let Some(bus) = &self.bus {
            // Absent where the backend said none: null would look like a measurement that failed.
            let measurements = [("queue_depth", change.queue_depth.into())];
            let known = usize::from(change.queue_depth.is_some());
            let metadata = [
                ("from", Value::Str(change.from.as_str())),
                ("to", Value::Str(change.to.as_str())),
                ("reason", change.reason.into()),
                ("request_id", change.request_id.into()),
                ("call", change.call.into()),
                ("session_id", Value::Str(&self.session_id)),
            ];
            bus.execute(QUEUE_STATE_CHANGE, &measurements[..known], &metadata);
        }
        if let Some(observer) = &self.observer
            && panics::contain(|| observer.on_queue_state_change(change)).is_none()
        {
            let report = || {
                log::error!(target: "tinkex_telemetry", "the observer of queue states panicked");
            };
            let _ = panics::catch(report);
        }
    }
}

impl Seen {
    /// Records an observation. Returns the state before and the number of the request, if this is a change.
    fn change(
        &mut self,
        request_id: &str,
        state: QueueState,
        reason: Option<&str>,
        tracker: &QueueStateTracker,
    ) -> Option<(QueueState, u64)> {
        self.now += 1;
        let at = self.now;
        if let Some(last) = self.requests.get_mut(request_id) {
            last.at = at;
            if last.state == state && last.reason.as_deref() == reason {
                return None;
            }
            if last.reason.as_deref() != reason {
                last.reason = reason.map(Into::into);
            }
            return Some((core::mem::replace(&mut last.state, state), last.call));
        }
        if self.requests.len() >= tracker.capacity {
            self.evict_oldest();
        }
        let is_change = state != QueueState::Unknown || reason.is_some();
        let call = tracker.calls.next();
        let last = Last {
            state,
            reason: reason.map(Into::into),
            call,
            at,
        };
        self.requests.insert(request_id.into(), last);
        is_change.then_some((QueueState::Unknown, call))
    }

    fn evict_oldest(&mut self) {
        let oldest = self.requests.iter().min_by_key(|(_, last)| last.at);
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            self.requests.remove(&id);
        }
    }
}

impl fmt::Debug for QueueStateTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueStateTracker")
            .field("session_id", &self.session_id)
            .field("requests", &self.seen.with(|seen| seen.requests.len()))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use QueueState::{Active, PausedCapacity, PausedRateLimit, Unknown};
    use alloc::string::{String, ToString};
    use alloc::sync::Arc;
    use alloc::{format, vec::Vec};
    use std::sync::Mutex;

    #[test]
    fn every_state_round_trips_and_any_other_name_is_unknown() {
        for state in QueueState::ALL {
            assert_eq!(QueueState::parse(&state.to_string()), state);
        }
        for other in ["", "paused", "PAUSED-CAPACITY", "nope"] {
            assert_eq!(QueueState::parse(other), Unknown);
        }
        assert_eq!(QueueState::parse(" Paused_Rate_Limit\n"), PausedRateLimit);
    }

    type Lines = Arc<Mutex<Vec<String>>>;

    fn tracker() -> (QueueStateTracker, Lines) {
        let (bus, lines) = (Bus::new(), Lines::default());
        let log = Arc::clone(&lines);
        bus.attach("test", QUEUE_STATE_CHANGE, move |event| {
            let json = serde_json::to_string(&(event.measurements(), event.metadata()));
            log.lock().unwrap().push(json.unwrap());
        })
        .unwrap();
        (QueueStateTracker::on(&bus, "s"), lines)
    }

    #[test]
    fn each_change_of_state_or_reason_is_reported_once_and_nothing_else_is() {
        let (tracker, lines) = tracker();
        let observed = Lines::default();
        let note = Arc::clone(&observed);
        let tracker = tracker.observer(move |change: &QueueStateChange<'_>| {
            let line = format!("{}: {} to {}", change.request_id, change.from, change.to);
            note.lock().unwrap().push(line);
        });
        let steps = [
            (Unknown, None, false),
            (Active, None, true),
            (Active, None, false),
            (PausedCapacity, None, true),
            (PausedCapacity, Some("full"), true),
            (PausedCapacity, Some("full"), false),
            (PausedRateLimit, Some("full"), true),
            (Active, None, true),
            (Unknown, None, true),
        ];
        for (at, (state, reason, is_change)) in steps.into_iter().enumerate() {
            assert_eq!(
                tracker.observe("r", state, reason, Some(3)),
                is_change,
                "{at}"
            );
        }
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 6);
        assert_eq!(
            lines[2],
            r#"[{"queue_depth":3},{"from":"paused_capacity","to":"paused_capacity","reason":"full","request_id":"r","call":0,"session_id":"s"}]"#
        );
        let observed = observed.lock().unwrap();
        assert_eq!(observed[0], "r: unknown to active");
        assert_eq!(observed.len(), 6);
    }

    #[test]
    fn each_request_has_its_own_state_until_it_finishes() {
        let (tracker, _) = tracker();
        assert!(tracker.observe("a", Active, None, None));
        assert!(tracker.observe("b", Active, None, None));
        assert!(!tracker.observe("a", Active, None, None));
        tracker.finish("a");
        assert!(tracker.observe("a", Active, None, None));
        tracker.finish("unknown");
    }

    #[test]
    fn all_changes_of_a_request_carry_its_number_and_another_request_has_the_next() {
        let numbers = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&numbers);
        let (tracker, _) = tracker();
        let tracker = tracker.observer(move |change: &QueueStateChange<'_>| {
            note.lock().unwrap().push(change.call);
        });
        for (id, state) in [
            ("a", Active),
            ("b", Active),
            ("a", PausedCapacity),
            ("b", Unknown),
        ] {
            assert!(tracker.observe(id, state, None, None));
        }
        tracker.finish("a");
        tracker.observe("a", Active, None, None);
        assert_eq!(*numbers.lock().unwrap(), [0, 1, 0, 1, 2]);
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_observed_request_is_evicted() {
        let (tracker, _) = tracker();
        let tracker = tracker.capacity(3);
        for id in ["a", "b", "c", "a", "d"] {
            tracker.observe(id, Active, None, None);
        }
        assert!(!tracker.observe("a", Active, None, None), "it was kept");
        assert!(tracker.observe("b", Active, None, None), "it was evicted");
        assert_eq!(tracker.seen.with(|seen| seen.requests.len()), 3);
    }

    #[test]
    fn an_observer_that_panics_does_no_harm_and_is_still_called() {
        let (tracker, lines) = tracker();
        let calls = Arc::new(Mutex::new(0));
        let count = Arc::clone(&calls);
        let tracker = tracker.observer(move |_: &QueueStateChange<'_>| {
            *count.lock().unwrap() += 1;
            std::panic::resume_unwind(Box::new("an observer"));
        });
        tracker.observe("a", Active, None, None);
        tracker.observe("a", PausedCapacity, None, None);
        assert_eq!(
            (
                *calls.lock().unwrap_or_else(|e| e.into_inner()),
                lines.lock().unwrap().len()
            ),
            (2, 2)
        );
    }
}
