//! The calls of a session that are under way, and the reports of those that take long.

use super::api::Api;
use super::progress::Progress;
use crate::bus::{Bus, Calls, QueueState, REQUEST_STALL_ENDED, REQUEST_STALLED, Value};
use crate::diagnostic::DiagnosticKind;
use crate::session::Handle;
use crate::sys::panics;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use async_channel::{Receiver, Sender};
use core::fmt;
use core::pin::pin;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A call that is under way; see [`ServiceClient::open_requests`](super::ServiceClient::open_requests).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenRequest {
    /// The number of the call in the session; HTTP requests are numbered in the same sequence.
    pub call: u64,
    /// The name of the call, as in its errors: `sample`, `forward_backward`.
    pub r#type: &'static str,
    /// How long it has been under way: since it was first polled.
    pub age: Duration,
    /// The id of the request at the backend, once it has been submitted.
    pub request_id: Option<String>,
    /// The state of the request in the backend's queue, if the backend has reported one.
    pub queue_state: Option<QueueState>,
    /// The reason for this state, in the backend's words, without secrets.
    pub queue_state_reason: Option<String>,
    /// The number of polls for the result.
    pub polls: u64,
    /// The last response of the backend, as `HTTP 503`, or the reason why there was none.
    pub last_response: Option<String>,
    /// How many times it was reported as stalled.
    pub stalls: u32,
    /// How it ended; `None` while it is under way.
    pub end: Option<CallEnd>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallEnd {
    /// With a result.
    Ok,
    /// With an error.
    Error,
    /// It was dropped, or has panicked.
    Cancelled,
    /// With the session.
    Closed,
}

impl CallEnd {
    /// Its name: `ok`, `error`, `cancelled` or `closed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::Closed => "closed",
        }
    }
}

/// One line: `sample has been under way for 75s (call 3, 12 polls, paused_capacity: no room, last response: HTTP 408)`.
impl fmt::Display for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = Duration::from_millis(u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX));
        match self.end {
            None => write!(f, "{} has been under way for {age:?}", self.r#type)?,
            Some(end) => write!(
                f,
                "{} has ended after {age:?}: {}",
                self.r#type,
                end.as_str()
            )?,
        }
        let (call, polls) = (self.call, self.polls);
        let plural = if polls == 1 { "" } else { "s" };
        write!(f, " (call {call}, {polls} poll{plural}")?;
        if let Some(state) = self.queue_state {
            write!(f, ", {state}")?;
        }
        if let Some(reason) = &self.queue_state_reason {
            write!(f, ": {reason}")?;
        }
        match &self.last_response {
            Some(response) => write!(f, ", last response: {response})"),
            None => f.write_str(", no response yet)"),
        }
    }
}

/// Receives stalled calls and their ends.
pub(super) type StallObserver = Arc<dyn Fn(&OpenRequest) + Send + Sync>;

/// The calls of a session that are under way.
pub(super) struct OpenCalls {
    api: Arc<Api>,
    handle: Handle,
    bus: Option<Bus>,
    /// Shared with the session's HTTP requests and queue states.
    numbers: Calls,
    session_id: Box<str>,
    stall_after: Duration,
    observer: Option<StallObserver>,
    state: Mutex<State>,
    /// Holds a message when there is a call that is due before the watch looks again.
    sooner: (Sender<()>, Receiver<()>),
}

struct State {
    calls: BTreeMap<u64, Entry>,
    /// When the watch looks again.
    looks_at: Instant,
}

struct Entry {
    name: &'static str,
    started: Instant,
    progress: Arc<Progress>,
    stalls: u32,
    /// When it is next reported as stalled.
    due: Instant,
}

impl Entry {
    fn describe(&self, call: u64, now: Instant, end: Option<CallEnd>) -> OpenRequest {
        let mut request = OpenRequest {
            call,
            r#type: self.name,
            age: now.saturating_duration_since(self.started),
            request_id: None,
            queue_state: None,
            queue_state_reason: None,
            polls: 0,
            last_response: None,
            stalls: self.stalls,
            end,
        };
        self.progress.describe(&mut request);
        request
    }
}

impl OpenCalls {
    pub(super) fn new(
        api: Arc<Api>,
        handle: &Handle,
        session_id: &str,
        stall_after: Duration,
        observer: Option<StallObserver>,
    ) -> Arc<Self> {
        Arc::new(Self {
            api,
            handle: handle.clone(),
            numbers: handle
                .bus()
                .map(|bus| bus.calls(session_id))
                .unwrap_or_default(),
            bus: handle.bus().cloned(),
            session_id: session_id.into(),
            stall_after: stall_after.max(Duration::from_millis(1)),
            observer,
            state: Mutex::new(State {
                calls: BTreeMap::new(),
                looks_at: Instant::END,
            }),
            sooner: async_channel::bounded(1),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call, which ends when the returned value is dropped, at the latest.
    pub(super) fn begin(
        self: &Arc<Self>,
        name: &'static str,
        progress: &Arc<Progress>,
    ) -> CallUnderWay {
        let started = self.api.now();
        let due = started.checked_add(self.stall_after);
        let entry = Entry {
            name,
            started,
            progress: Arc::clone(progress),
            stalls: 0,
            due: due.unwrap_or(Instant::END),
        };
        let call = self.numbers.next();
        let mut state = self.state();
        let is_sooner = entry.due < state.looks_at;
        state.calls.insert(call, entry);
        drop(state);
        if is_sooner {
            let _ = self.sooner.0.try_send(());
        }
        CallUnderWay {
            calls: Arc::clone(self),
            call,
            end: CallEnd::Cancelled,
        }
    }

    /// The calls that are under way, the oldest first.
    pub(super) fn list(&self) -> Vec<OpenRequest> {
        // In the child of a fork the lock may be held for ever, and no call is under way.
        if self.api.is_forked() {
            return Vec::new();
        }
        let now = self.api.now();
        let state = self.state();
        let calls = state.calls.iter();
        calls
            .map(|(call, entry)| entry.describe(*call, now, None))
            .collect()
    }

    /// Reports the calls that are due, for as long as the session is open.
    pub(super) async fn watch(&self) {
        loop {
            let looks_at = self.report_stalls();
            let sleep = self.api.sleep_until(looks_at);
            let sooner = self.sooner.1.recv();
            // Whichever comes first: a look too many costs little.
            let _ = super::io::with_deadline(pin!(sleep), sooner).await;
        }
    }

    /// Reports the calls that are due. Returns when the next one is.
    fn report_stalls(&self) -> Instant {
        let now = self.api.now();
        let mut stalled = Vec::new();
        let mut state = self.state();
        let mut looks_at = Instant::END;
        for (call, entry) in &mut state.calls {
            if entry.due <= now {
                entry.stalls += 1;
                stalled.push(entry.describe(*call, now, None));
                // Twice as old as it should have been now; if the executor was late, as it is.
                let age = now.saturating_duration_since(entry.started);
                let mut next = entry.due.saturating_duration_since(entry.started);
                while next <= age {
                    next = next.saturating_mul(2);
                }
                entry.due = entry.started.checked_add(next).unwrap_or(Instant::END);
            }
            looks_at = looks_at.min(entry.due);
        }
        state.looks_at = looks_at;
        drop(state);
        // Outside the lock: observers and handlers are the application's.
        for request in &stalled {
            self.report(REQUEST_STALLED, request);
        }
        if let [first, others @ ..] = &*stalled {
            let others = match others.len() {
                0 => String::new(),
                1 => ", and another call".into(),
                others => format!(", and {others} other calls"),
            };
            let reason = format!("{first}{others}");
            let kind = DiagnosticKind::RequestStalled;
            let count = stalled.len() as u64;
            self.handle
                .report_all(kind, count, &reason, &self.session_id);
        }
        looks_at
    }

    /// Ends a call, and reports that if it was reported as stalled.
    fn end(&self, call: u64, end: CallEnd) {
        // In the child of a fork the lock may be held for ever.
        if self.api.is_forked() {
            return;
        }
        let Some(entry) = self.state().calls.remove(&call) else {
            return;
        };
        if entry.stalls > 0 {
            let request = entry.describe(call, self.api.now(), Some(end));
            self.report(REQUEST_STALL_ENDED, &request);
        }
    }

    /// Ends all calls: the session is closed.
    pub(super) fn end_all(&self) {
        let calls: Vec<_> = self.state().calls.keys().copied().collect();
        for call in calls {
            self.end(call, CallEnd::Closed);
        }
    }

    fn report(&self, event: &str, request: &OpenRequest) {
        if let Some(bus) = &self.bus {
            let measurements = [("age", nanos(request.age)), ("polls", request.polls.into())];
            let state = request.queue_state.map(QueueState::as_str);
            let mut metadata = Vec::from([
                ("call", Value::U64(request.call)),
                ("type", request.r#type.into()),
            ]);
            let known = [
                ("request_id", request.request_id.as_deref()),
                ("queue_state", state),
                ("queue_state_reason", request.queue_state_reason.as_deref()),
                ("last_response", request.last_response.as_deref()),
                ("result", request.end.map(CallEnd::as_str)),
            ];
            let known = known.into_iter();
            metadata.extend(known.filter_map(|(name, text)| Some((name, Value::Str(text?)))));
            metadata.push(("session_id", Value::Str(&self.session_id)));
            bus.execute(event, &measurements, &metadata);
        }
        if let Some(observer) = &self.observer {
            let _ = panics::contain(|| observer(request));
        }
    }
}

/// Nanoseconds, as events measure durations.
pub(super) fn nanos(duration: Duration) -> Value<'static> {
    Value::U64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// A call that is under way until this is dropped.
pub(super) struct CallUnderWay {
    calls: Arc<OpenCalls>,
    call: u64,
    end: CallEnd,
}

impl CallUnderWay {
    /// Ends the call with a result or an error.
    pub(super) fn end(mut self, end: CallEnd) {
        self.end = end;
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.calls.end(self.call, self.end);
    }
}
